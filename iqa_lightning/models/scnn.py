"""S-CNN: the branch of DB-CNN that was trained to tell 39 kinds and stages of synthetic distortion.

Zhang et al., "Blind image quality assessment using a deep bilinear convolutional neural network",
TCSVT 2020, https://arxiv.org/abs/1907.02665. Weights: `pretrained_scnn/scnn.pkl` of
https://github.com/zwx8981/DBCNN-PyTorch (MIT).
"""

import warnings
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.models.backbones import Encoder, Images, read_weights

CHANNELS = (48, 48, 64, 64, 64, 64, 128, 128, 128)


STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 2)


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


HOME = "github.com/zwx8981/DBCNN-PyTorch, pretrained_scnn/scnn.pkl"


class SCNN(Encoder):
    """Nine blocks of 3x3 convolution, batch normalisation and ReLU; 128 channels at stride 16.
    Never trained.

    `weights` is the authors' file; null starts it at random, with a warning: its features then say
    little.

    Raises:
        ValueError: the file is missing, unreadable, or of another network.
    """

    def __init__(self, weights: str | None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, channels, stride in zip((3, *CHANNELS), CHANNELS, STRIDES, strict=False):
            layers += [
                nn.Conv2d(before, channels, 3, stride, padding=1),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.mean: Tensor
        self.std: Tensor
        for key, value in (("mean", MEAN), ("std", STD)):
            self.register_buffer(key, 255.0 * torch.tensor(value).view(3, 1, 1), persistent=False)
        self.stage_widths, self.images_forwarded = [CHANNELS[-1]], 0
        if weights is None:
            warnings.warn(
                f"the S-CNN starts at random: for its pretrained weights ({HOME}) give the file",
                stacklevel=2,
            )
        else:
            load(self.features, weights)
        self.requires_grad_(False)

    def forward(self, image: Images) -> Float[Tensor, "batch 128 height width"]:
        """The last map. Batch normalisation uses the stored statistics in every mode."""
        with torch.no_grad():
            x: Tensor = (image.float() - self.mean) / self.std
            for layer in self.features:
                x = stored_norm(layer, x) if isinstance(layer, nn.BatchNorm2d) else layer(x)
        return x

    def stages(self, image: Images) -> list[Float[Tensor, "batch 128"]]:
        """One stage: the average of the map."""
        self.images_forwarded += len(image)
        return [self(image).mean(dim=(2, 3))]


def stored_norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch normalisation by the stored statistics, which it leaves as they are."""
    return nn.functional.batch_norm(
        x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps
    )


def load(features: nn.Module, weights: str) -> None:
    """Load the authors' file: names start with `module.features.`; the classifier in it is not
    used.
    """
    if not Path(weights).is_file():
        raise ValueError(
            f"backbone.scnn_weights={weights!r}: no such file; get it from {HOME}, or set it to "
            "null for a random start"
        )
    found = {key.removeprefix("module."): tensor for key, tensor in read_weights(weights).items()}
    wanted = {
        key: value
        for key, value in features.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    for key, value in wanted.items():
        shape = tuple(found[f"features.{key}"].shape) if f"features.{key}" in found else None
        if shape != tuple(value.shape):
            held = "nothing" if shape is None else f"shape {shape}"
            raise ValueError(
                f"backbone.scnn_weights={weights!r} is not the S-CNN: features.{key} should have "
                "the shape "
                f"{tuple(value.shape)}, the file holds {held}; get it again from {HOME}"
            )
    unknown = [
        key
        for key in found
        if key.startswith("features.") and key.removeprefix("features.") not in wanted
    ]
    if unknown:
        raise ValueError(
            f"backbone.scnn_weights={weights!r} is not the S-CNN: it has no layer {unknown[0]}; "
            f"see {HOME}"
        )
    features.load_state_dict({key: found[f"features.{key}"] for key in wanted}, strict=False)
