"""The networks of DP-IQA: a decoder of the denoiser's maps, and a student that learns its map.

Fu et al., "DP-IQA: Utilizing diffusion prior for blind image quality assessment in the wild",
https://arxiv.org/abs/2405.19996. Written from a description; no line is of the official code.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.models.backbones import Backbone, Images
from iqa_lightning.models.diffusion import Diffusion, squares

CHANNELS = 8
"""Channels of the map that a student learns."""


FACTOR = 8
"""Pixels of the image to one of the map, along a side."""


Map = Float[Tensor, "batch 8 rows rows"]


class Squeeze(nn.Module):
    """A gate for each channel, by the means of all (https://arxiv.org/abs/1709.01507)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.layers = nn.Sequential(
            nn.Linear(channels, inner, bias=False),
            nn.ReLU(),
            nn.Linear(inner, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The input, weighted."""
        gates: Tensor = self.layers(x.mean(dim=(2, 3)))
        return x * gates[:, :, None, None]


class MapHead(nn.Sequential):
    """A score, without bounds, of a map: its values in a row, two hidden layers of 512."""

    def __init__(self, side: int, hidden: int = 512) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(CHANNELS * side * side, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )


class Decoder(nn.Module):
    """Maps of the up-blocks to one map and a score; of Stable Diffusion 1.5 42,934,697 parameters.

    Each map is resized (bicubic) to `side`, then a convolution and a gate; all together, finest
    first, the same once more; then three convolutions of one pixel, each with a ReLU. What the
    official code defines and does not use (13,336 parameters) is left out.
    """

    def __init__(self, channels: Sequence[int], side: int, width: int = 512) -> None:
        super().__init__()
        self.side = side
        self.each = nn.ModuleList(gated(count, width) for count in reversed(channels))
        self.joined = gated(len(channels) * width, width)
        widths = (width, width // 4, width // 16, CHANNELS)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 1), nn.ReLU()]
        self.narrow = nn.Sequential(*layers)
        self.head = MapHead(side)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Float[Tensor, " batch"], Map]:
        """Scores, higher is better, and maps. `maps` come coarsest first, of any size."""
        pairs = zip(self.each, reversed(maps), strict=True)
        joined = torch.cat([layer(resized(found, self.side)) for layer, found in pairs], dim=1)
        narrow: Tensor = self.narrow(self.joined(joined))
        return self.head(narrow)[:, 0], narrow


class DiffusionTeacher(nn.Module):
    """A diffusion backbone and the decoder of its maps."""

    def __init__(self, network: Diffusion, width: int = 512) -> None:
        super().__init__()
        self.network = network
        self.decoder = Decoder(network.map_channels, network.side // FACTOR, width)

    def forward(
        self, image: Images, latent: Tensor | None = None
    ) -> tuple[Float[Tensor, " batch"], Map]:
        """Scores, higher is better, and maps; `latent` is what `frozen_output` gave."""
        scores: tuple[Tensor, Tensor] = self.decoder(self.network.maps_of(image, latent))
        return scores

    def trainable(self) -> list[nn.Parameter]:
        """What training may change."""
        return [*self.network.trainable(), *self.decoder.parameters()]


class StudentHead(nn.Module):
    """The last map of a convolutional network to a map as large as the teacher's, and a score; of
    EfficientNet-B7 17,225,225 parameters.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.enlarge = nn.ConvTranspose2d(channels, CHANNELS, 3, 2, padding=1, output_padding=1)
        self.head = MapHead(side)

    def forward(
        self, last: Float[Tensor, "batch channels rows columns"]
    ) -> tuple[Float[Tensor, " batch"], Map]:
        """Scores, higher is better, and maps."""
        enlarged = F.relu(self.enlarge(last))
        narrow = F.interpolate(enlarged, [self.side, self.side], mode="nearest")
        return self.head(narrow)[:, 0], narrow


class Student(nn.Module):
    """A convolutional backbone and its head. The backbone is handed to each call and is no part of
    this module.

    Raises:
        ValueError: a `side` that is no multiple of 64.
    """

    def __init__(self, backbone: Backbone, side: int) -> None:
        super().__init__()
        if side < 64 or side % 64:
            raise ValueError(f"method.side={side}: give a multiple of 64 pixels")
        self.side, self.rest = side, StudentHead(backbone.width, side // FACTOR)

    def forward(self, backbone: Backbone, image: Images) -> tuple[Float[Tensor, " batch"], Map]:
        """Scores, higher is better, and maps.

        Raises:
            ValueError: the backbone has no maps.
        """
        last = backbone.network.forward_features(backbone.prepare(squares(image, self.side)))
        if last.ndim != 4 or last.shape[1] != backbone.width:
            raise ValueError(
                "method=dp_iqa needs maps of a convolutional network, such as backbone="
                f"efficientnet_b7, and got {tuple(last.shape)}"
            )
        scores: tuple[Tensor, Tensor] = self.rest(last)
        return scores


def gated(channels: int, width: int) -> nn.Sequential:
    """A convolution without an activation of its own, and the gate."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), Squeeze(width))


def resized(
    x: Float[Tensor, "batch channels rows columns"], side: int
) -> Float[Tensor, "batch channels side side"]:
    """Bicubic interpolation as two products with matrices, whose gradient is deterministic on every
    device; what has the size already is left alone.
    """
    if tuple(x.shape[-2:]) == (side, side):
        return x
    rows, columns = (weights(count, side).to(x) for count in x.shape[-2:])
    return rows @ x @ columns.T


def weights(count: int, side: int) -> Float[Tensor, "side count"]:
    """What each of `count` values counts in each of `side` interpolated ones."""
    unit = torch.eye(count)[None, None]
    return F.interpolate(unit, [side, count], mode="bicubic", align_corners=False)[0, 0]
