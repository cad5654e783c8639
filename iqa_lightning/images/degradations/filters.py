"""Filters with a kernel for each image, edges repeated: kornia's, or on CPUs what is faster for
single images.
"""

import torch
from jaxtyping import Float
from kornia.filters import filter2d, filter2d_separable
from torch import Tensor
from torch.nn import functional as F

from iqa_lightning.images.degradations.draws import Images

TILE = 16
"""Rows or columns that one matrix product yields, and strips that go through a convolution as its
channels: the width of a vector of AVX-512, to which libraries would fill up anyway."""


FEW = 16
"""Up to so many cells of a kernel that are not 0, a sum of shifted images is faster than a
convolution.
"""


def separable(image: Images, lines: Float[Tensor, "batch size"]) -> Images:
    """Each image filtered with its odd line of weights along columns and rows."""
    if image.device.type != "cpu":
        return filter2d_separable(image, lines, lines, "replicate")
    return torch.stack([_banded(one, line) for one, line in zip(image, lines, strict=True)])


def correlate(image: Images, kernels: Float[Tensor, "batch size size"]) -> Images:
    """Each image filtered with its odd square of weights."""
    if image.device.type != "cpu":
        return filter2d(image, kernels, "replicate")
    return torch.stack(
        [_correlate(one, kernel) for one, kernel in zip(image, kernels, strict=True)]
    )


def _banded(
    one: Float[Tensor, "3 height width"], line: Float[Tensor, " size"]
) -> Float[Tensor, "3 height width"]:
    """By products of overlapping tiles with the matrix that has the line, one further in each of
    its rows.
    """
    height, width = one.shape[1:]
    reach, across = len(line) // 2, TILE + len(line) - 1
    band = F.pad(line, (0, TILE)).repeat(TILE)[: TILE * across].view(TILE, across)
    wide = (
        _padded(one, (reach, reach + -width % TILE, 0, 0))
        .flatten(0, 1)
        .unfold(1, across, TILE)
        .transpose(0, 1)
    )
    wide = (
        torch.bmm(wide, band.t().expand(len(wide), -1, -1)).transpose(0, 1).reshape(3, height, -1)
    )
    tall = (
        _padded(wide, (0, 0, reach, reach + -height % TILE)).unfold(1, across, TILE).transpose(2, 3)
    )
    bands = band.expand(tall.shape[1], -1, -1)
    return torch.stack([torch.bmm(bands, channel).flatten(0, 1) for channel in tall])[
        :, :height, :width
    ]


def _correlate(one: Float[Tensor, "3 height width"], kernel: Float[Tensor, "size size"]) -> Tensor:
    height, width = one.shape[1:]
    reach = len(kernel) // 2
    cells = kernel.nonzero().tolist()
    if len(cells) <= FEW:
        wide, out = _padded(one, (reach,) * 4), torch.zeros_like(one)
        for y, x in cells:
            out.add_(wide[:, y : y + height, x : x + width], alpha=float(kernel[y, x]))
        return out
    wide = _padded(one, (reach, reach, reach, reach + -height % TILE))
    rows = -(-height // TILE)
    strips = wide.unfold(1, rows + 2 * reach, rows).transpose(2, 3).flatten(0, 1)
    weights = kernel.expand(len(strips), 1, -1, -1)
    return F.conv2d(strips[None], weights, groups=len(strips)).view(3, -1, width)[:, :height]


def _padded(
    one: Float[Tensor, "3 height width"], sides: tuple[int, ...]
) -> Float[Tensor, "3 rows columns"]:
    """With its edges repeated: so many columns left and right, rows above and below."""
    return F.pad(one, sides, mode="replicate")
