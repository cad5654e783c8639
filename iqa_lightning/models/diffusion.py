"""A text-to-image diffusion model as a backbone: what the denoiser makes of a clean image.

The prior of DP-IQA (https://arxiv.org/abs/2405.19996), for Stable Diffusion 1.5 and any pipeline of
the same layout. Needs `diffusers` (pip install 'iqa-lightning[dp_iqa]').
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.models.backbones import (
    Backbone,
    Encoder,
    Images,
    Stages,
    checked_features,
    stage_statistics,
)

if TYPE_CHECKING:
    from types import ModuleType

TRAINS = ("full", "adapters")


POSTERIORS = ("sample", "mode")


WEIGHTS = "diffusion_pytorch_model.safetensors"


BANK = "prompt_bank"
"""Name of the table of prompts in its file."""


class TextAdapter(nn.Module):
    """A fixed table of embedded prompts and what is learnt to add to it: e + gamma * MLP(e).

    The same rows stand for every image in the cross-attention. With 768 columns 1,181,952
    parameters.
    """

    def __init__(self, bank: Float[Tensor, "prompts width"]) -> None:
        super().__init__()
        width = bank.shape[1]
        # no buffer, which DDP would broadcast at each step
        self.bank = nn.Parameter(bank, requires_grad=False)
        self.layers = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.gamma = nn.Parameter(torch.full((width,), 1e-4))

    def forward(self) -> Float[Tensor, "prompts width"]:
        """The adapted table."""
        adapted: Tensor = self.bank + self.gamma * self.layers(self.bank)
        return adapted


class Diffusion(Backbone):
    """The denoiser of a latent diffusion model, run once over the latent of a clean image; its
    feature is the mean over each up-block's map, one after another.

    Images become squares of `side` pixels, aspect lost, in [0, 1]. No noise is added. What the
    denoiser would predict is computed and thrown away, and its last two layers are never trained.

    Args:
        folder: a pipeline in diffusers' layout, of which `vae/` and `unet/` are read, as
            safetensors; nothing is downloaded. Null with `sizes`: a random one.
        sizes: arguments of `AutoencoderKL`, `UNet2DConditionModel` by the names `vae` and `unet`.
        bank: a safetensors file with the table `prompt_bank` (see docs/methods/dp_iqa.md), or a
            number of random rows.
        side: of the images that the network sees, in pixels; a multiple of 64.
        timestep: what the denoiser is told of the noise.
        trains: `full` (the denoiser and both adapters, the official code) or `adapters`.
        posterior: of the VAE in training: a `sample` (the official code) or its `mode`.
        evaluation_posterior: the same in evaluation: `mode` makes scores deterministic; the
            official code has `sample`.
        centred: whether the VAE gets images in [-1, 1], as it was trained; the official code gives
            it [0, 1].
        adapter_blocks: residual blocks of each level of the image adapter.
        features: what heads read, `last` (means over the maps) or `stages`, as in `Backbone`.
        checkpointing: compute the denoiser's maps twice instead of keeping them for the way back.

    Raises:
        ValueError: no `folder`, one that is no pipeline, a table of another width, an unknown
            choice.
    """

    def __init__(
        self,
        folder: str | None = None,
        sizes: Mapping[str, Mapping[str, Any]] | None = None,
        bank: str | int | None = None,
        side: int = 512,
        timestep: int = 1,
        trains: str = "full",
        posterior: str = "sample",
        evaluation_posterior: str = "mode",
        centred: bool = False,
        adapter_blocks: int = 2,
        features: str = "last",
        checkpointing: bool = False,
    ) -> None:
        Encoder.__init__(self)
        self.features = checked_features(features)
        check_choices(trains, posterior, evaluation_posterior, side)
        diffusers = load_diffusers()
        self.vae = build(diffusers.AutoencoderKL, "vae", folder, sizes).requires_grad_(False)
        self.vae.decoder = self.vae.post_quant_conv = None  # images are never made
        self.network = build(diffusers.UNet2DConditionModel, "unet", folder, sizes)
        channels = list(self.network.config.block_out_channels)
        levels = len(channels), len(self.vae.config.block_out_channels)
        if levels != (4, 4):
            raise ValueError(
                f"backbone.folder={folder!r}: unet and vae have {levels} levels, the image adapter "
                "fits 4 and 4, as Stable Diffusion 1 and 2 have"
            )
        self.image_adapter = diffusers.T2IAdapter(
            adapter_type="full_adapter",
            channels=channels,
            num_res_blocks=adapter_blocks,
            downscale_factor=8,
        )
        self.text_adapter = TextAdapter(read_bank(bank, self.network.config.cross_attention_dim))
        if checkpointing:
            self.network.enable_gradient_checkpointing()
        for unused in (self.network.conv_norm_out, self.network.conv_out):
            unused.requires_grad_(False)
        if trains == "adapters":
            self.network.requires_grad_(False)
        self.side, self.timestep, self.centred = side, timestep, centred
        self.posterior, self.evaluation_posterior = posterior, evaluation_posterior
        self._trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.map_channels: list[int] = channels[::-1]
        self.stage_widths = [sum(channels)]
        self.width: int = sum(channels) if features == "last" else self.statistics_width
        self.images_forwarded = 0
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.full((3, 1, 1), 255.0), persistent=False)

    def trainable(self) -> list[nn.Parameter]:
        """The denoiser and the adapters, or the adapters alone."""
        return self._trainable

    def twin(self) -> "Diffusion":
        """A frozen copy, which shares what nothing trains."""
        trained = {id(parameter) for parameter in self._trainable}
        shared: dict[int, Any] = {
            id(parameter): parameter
            for parameter in self.parameters()
            if id(parameter) not in trained
        }
        return copy.deepcopy(self, shared).requires_grad_(False)

    def prepare(self, image: Images) -> Float[Tensor, "batch 3 side side"]:
        """Squares in [0, 1]."""
        return super().prepare(squares(image, self.side))

    def frozen_output(self, image: Images) -> Float[Tensor, "batch channels rows rows"]:
        """Latents, which no training changes."""
        counted = self.images_forwarded
        pixels = self.prepare(image)
        self.images_forwarded = counted  # the pass itself counts
        kind = self.posterior if self.training else self.evaluation_posterior
        with torch.no_grad():
            found = self.vae.encode(2 * pixels - 1 if self.centred else pixels).latent_dist
            latent: Tensor = found.sample() if kind == "sample" else found.mode()
            scaling: float = self.vae.config.scaling_factor
            return latent * scaling

    def up_maps(self, prepared: Float[Tensor, "batch 3 side side"], latent: Tensor) -> list[Tensor]:
        """Output of each up-block, the coarsest first (of Stable Diffusion 1.5 and 512 pixels
        1280@16, 1280@32, 640@64, 320@64).
        """
        maps: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _, __, output: maps.append(output))
            for block in self.network.up_blocks
        ]
        try:
            self.network(
                latent,
                self.timestep,
                encoder_hidden_states=self.text_adapter().expand(len(latent), -1, -1),
                down_intrablock_additional_residuals=list(self.image_adapter(prepared)),
            )
        finally:
            for hook in hooks:
                hook.remove()
        return maps

    def maps_of(self, image: Images, latent: Tensor | None = None) -> list[Tensor]:
        """`up_maps` of images; `latent` is what `frozen_output` gave for them."""
        if latent is None:
            latent = self.frozen_output(image)
        return self.up_maps(self.prepare(image), latent)

    def pooled(
        self,
        prepared: Float[Tensor, "batch 3 side side"],
        fixed: Tensor | None,
    ) -> Float[Tensor, "batch width"]:
        """Mean over each map, and the deviation where `features` are `stages`."""
        assert fixed is not None, "`forward` asks `frozen_output`"
        return read(self.up_maps(prepared, fixed), self.features)

    def stages(self, image: Images) -> Stages:
        """Mean over each map, as the only stage."""
        return [read(self.maps_of(image), "last")]

    def statistics(self, image: Images) -> Float[Tensor, "batch statistics_width"]:
        """Mean and deviation over space of every map."""
        return read(self.maps_of(image), "stages")

    @property
    def statistics_width(self) -> int:
        """Twice the channels of all maps."""
        return 2 * sum(self.map_channels)

    def with_stages(
        self, image: Images, fixed: Tensor | None = None, features: str = "last"
    ) -> tuple[Float[Tensor, "batch width"], Stages]:
        """What `forward` and `gate_stages` say, from one pass."""
        maps = self.maps_of(image, fixed)
        return read(maps, self.features), [read(maps, features)]


def read(maps: list[Tensor], features: str) -> Float[Tensor, "batch width"]:
    """Means over maps, or their means and deviations."""
    if features == "stages":
        return stage_statistics(maps)
    return torch.cat([found.mean(dim=(2, 3)) for found in maps], dim=1)


def squares(image: Images, side: int) -> Tensor:
    """Whole images as squares, aspect lost."""
    if tuple(image.shape[-2:]) == (side, side) or image.ndim != 4:
        return image
    return F.interpolate(image.float(), [side, side], mode="bilinear", antialias=True)


def load_diffusers() -> "ModuleType":
    """The package, which nothing else here needs.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import diffusers  # noqa: PLC0415  # optional
    except ImportError as error:
        raise ValueError(
            "a diffusion backbone needs the package diffusers, which is not installed: "
            "pip install 'iqa-lightning[dp_iqa]'"
        ) from error
    return diffusers


def build(
    kind: Any, part: str, folder: str | None, sizes: Mapping[str, Mapping[str, Any]] | None
) -> Any:
    """One part of a pipeline, from its folder or at random."""
    if folder is None:
        if sizes is None:
            raise ValueError(
                "backbone.folder=null: name a folder of Stable Diffusion 1.5 in diffusers' layout "
                "(with vae/ and unet/), or take backbone=diffusion_tiny, which starts at random"
            )
        return kind(**sizes[part])
    needed = [Path(folder) / part / name for name in ("config.json", WEIGHTS)]
    if missing := [str(path) for path in needed if not path.is_file()]:
        raise ValueError(
            f"backbone.folder={folder!r} is no pipeline in diffusers' layout: {missing[0]} is not "
            "there; nothing is downloaded"
        )
    try:
        found = kind.from_pretrained(
            folder,
            subfolder=part,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
        )
        return found.train()  # it comes in evaluation mode
    except Exception as error:  # each reader has errors of its own
        raise ValueError(
            f"backbone.folder={folder!r}: {part} cannot be read ({error}); get it again"
        ) from error


def read_bank(bank: str | int | None, width: int) -> Float[Tensor, "prompts width"]:
    """The table of a file, or random rows.

    Raises:
        ValueError: no file, no such table in it, or one of another width.
    """
    if isinstance(bank, int):
        return torch.randn(bank, width)
    if bank is None or not Path(bank).is_file():
        raise ValueError(
            f"backbone.bank={bank!r}: name a safetensors file with the table {BANK!r} "
            "(docs/methods/dp_iqa.md says how it is made), or a number of random rows"
        )
    table = load_file(bank).get(BANK)
    if table is None or table.ndim != 2 or table.shape[1] != width:
        shape = None if table is None else tuple(table.shape)
        raise ValueError(
            f"backbone.bank={bank!r}: the table {BANK!r} is {shape}, the cross-attention reads "
            f"(prompts, {width}); make it with the text encoder that belongs to the pipeline"
        )
    return table.float()


def check_choices(trains: str, posterior: str, evaluation_posterior: str, side: int) -> None:
    """Refuse what the backbone cannot do."""
    for key, value, known in (
        ("trains", trains, TRAINS),
        ("posterior", posterior, POSTERIORS),
        ("evaluation_posterior", evaluation_posterior, POSTERIORS),
    ):
        if value not in known:
            raise ValueError(f"backbone.{key}={value!r}: choose one of {known}")
    if side < 64 or side % 64:
        raise ValueError(f"backbone.side={side}: give a multiple of 64 pixels")
