"""Trunks: one or more backbones whose features stand side by side, frozen or not."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.models.backbones import Backbone, Encoder, Images

TAPS = ("last", "last_map", "multi")


class Trunk(Backbone):
    """Features of several backbones as one.

    A frozen trunk reads in evaluation mode, whatever its own, and its features are the part of a
    pass that no training changes: evaluations compute them once an image,
    `schedule.warmup.fixed_crops` once a crop.

    Args:
        encoders: backbones, each with its own normalisation of images.
        frozen: whether nothing trains them.
        taps: `last`: the feature of each backbone; `last_map`: its last map before a final pooling,
            averaged (relu5_3 of a VGG); `multi`: all its maps, averaged, side by side.
        deviation: whether the standard deviation of each map stands beside its mean.

    Raises:
        ValueError: unknown taps, or `deviation` of features that are no maps.
    """

    def __init__(
        self,
        encoders: Sequence[Backbone],
        frozen: bool = True,
        taps: str = "last",
        deviation: bool = False,
    ) -> None:
        Encoder.__init__(self)
        if taps not in TAPS:
            raise ValueError(f"method.taps={taps!r}: choose one of {TAPS}")
        if deviation and taps == "last":
            raise ValueError("method.deviation is of maps: set method.taps=last_map or multi")
        self.encoders = nn.ModuleList(encoders)
        if taps != "last":
            for encoder in encoders:
                drop_dense_layers(encoder.network)
        self.frozen, self.taps, self.deviation = frozen, taps, deviation
        self.features = "last"
        self.images_forwarded = 0  # the encoders count their own
        self.width = sum(self.width_of(encoder) for encoder in encoders)
        self.stage_widths = [self.width]
        if frozen:
            self.requires_grad_(False)

    def width_of(self, encoder: Backbone) -> int:
        """Width of what is read of a backbone."""
        if self.taps == "last":
            return encoder.width
        maps = [info["num_chs"] for info in map_infos(encoder)]
        return (1 + self.deviation) * (sum(maps) if self.taps == "multi" else maps[-1])

    def train(self, mode: bool = True) -> "Trunk":
        """Training mode, which a frozen trunk never has; Lightning asks for it in each epoch."""
        super().train(mode and not self.frozen)
        return self

    def lay_out(self, layout: torch.memory_format) -> None:
        """Keep weights and maps of all backbones in this layout."""
        for encoder in self.encoders:
            encoder.lay_out(layout)  # type: ignore[operator]  # modules are untyped

    def forward(self, image: Images, fixed: Tensor | None = None) -> Float[Tensor, "batch width"]:
        """Features of images; `fixed` are these, where they are known."""
        found = self.frozen_output(image) if fixed is None else fixed
        return self.read_all(image) if found is None else found

    def frozen_output(self, image: Images) -> Tensor | None:
        """The features, of a frozen trunk."""
        if not self.frozen:
            return None
        if self.encoders.training:  # as it is built: Lightning warns of what starts otherwise
            self.encoders.eval()
        with torch.no_grad():
            return self.read_all(image)

    def read_all(self, image: Images) -> Float[Tensor, "batch width"]:
        """Features of all backbones, in float32."""
        return torch.cat([self.read(encoder, image) for encoder in self.encoders], dim=1)  # type: ignore[arg-type]

    def read(self, encoder: Backbone, image: Images) -> Float[Tensor, "batch width"]:
        """What is read of one backbone."""
        if self.taps == "last":
            return encoder(image).float()  # type: ignore[no-any-return]  # modules are untyped
        count = len(map_infos(encoder))
        wanted = list(range(count)) if self.taps == "multi" else [count - 1]
        maps = encoder.network.forward_intermediates(
            encoder.prepare(image), indices=wanted, intermediates_only=True
        )
        read = []
        for one in maps:
            read.append(one.mean(dim=(2, 3)))
            if self.deviation:
                read.append(one.std(dim=(2, 3), correction=0))
        return torch.cat(read, dim=1).float()

    def trainable(self) -> list[nn.Parameter]:
        """Parameters of the backbones, or none."""
        if self.frozen:
            return []
        return [p for encoder in self.encoders for p in encoder.trainable()]  # type: ignore[operator]

    def stages(self, image: Images) -> list[Float[Tensor, "batch stage_width"]]:
        """The features are the only stage."""
        return [self(image)]

    def statistics(self, image: Images) -> Float[Tensor, "batch statistics_width"]:
        """Mean and deviation of every stage map of all backbones."""
        with torch.no_grad():
            return torch.cat([encoder.statistics(image) for encoder in self.encoders], dim=1)  # type: ignore[operator]

    @property
    def statistics_width(self) -> int:
        """Numbers an image of `statistics`."""
        return sum(encoder.statistics_width for encoder in self.encoders)  # type: ignore[misc]


def map_infos(encoder: Backbone) -> list[dict[str, int]]:
    """What timm says of the maps of a network, without a last one that only pools."""
    infos = list(encoder.network.feature_info)
    pools_last = (
        len(infos) > 1 and type(named(encoder.network, infos[-1]["module"])) is nn.MaxPool2d
    )
    return infos[:-1] if pools_last else infos


def named(network: nn.Module, path: str) -> nn.Module | None:
    """The module at a path, if there is one."""
    return dict(network.named_modules()).get(path)


def drop_dense_layers(network: nn.Module) -> None:
    """Take out what no map needs: nine tenths of a VGG are layers after its last map."""
    if hasattr(network, "pre_logits"):
        network.pre_logits = nn.Identity()
