"""Patches of degraded photographs: the whole image is degraded first, so that a patch is never
changed afterwards.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from iqa_lightning.images.degradations.chain import Chain, degrade

Pixels = UInt8[Tensor, "3 height width"]


Corner = tuple[int, int]


def degrade_each(
    images: Sequence[Pixels], chains: Sequence[Chain], seeds: Sequence[int]
) -> list[Pixels]:
    """Whole images of any sizes, each after its chain; those of one size go together."""
    out = list(images)
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(tuple(image.shape), []).append(i)
    for rows in groups.values():
        stack = torch.stack([images[i] for i in rows])
        for i, image in zip(
            rows, degrade(stack, [chains[i] for i in rows], [seeds[i] for i in rows]), strict=True
        ):
            out[i] = image
    return out


def random_corner(image: Pixels, side: int, generator: np.random.Generator) -> Corner:
    """Row and column of the upper left corner of a random patch.

    Raises:
        ValueError: the image is smaller than the patch, which is not to be enlarged.
    """
    free = [length - side for length in image.shape[-2:]]
    if min(free) < 0:
        raise ValueError(
            f"an image of {image.shape[-2]}x{image.shape[-1]} pixels holds no patch of {side}: "
            "lower the patch, raise "
            "the size that images are shrunk to, or take the image out"
        )
    y, x = (int(generator.integers(length + 1)) for length in free)
    return y, x


def halved(image: Pixels, side: int) -> Pixels:
    """The image at half its size, or so large that it holds a patch."""
    height, width = image.shape[-2:]
    scale = max(0.5, side / min(height, width))
    size = [max(side, round(height * scale)), max(side, round(width * scale))]
    return interpolate(image[None], size, mode="bicubic", antialias=True)[0]


def overlapping_corners(
    image: Pixels,
    side: int,
    overlap: tuple[float, float],
    generator: np.random.Generator,
    tries: int = 50,
) -> tuple[Corner, Corner]:
    """Two patches whose common area is such a share of one patch; the last two where none is found.

    Re-IQA (https://github.com/avinabsaha/ReIQA): 10 to 30 %.
    """
    for _ in range(tries):
        first, second = random_corner(image, side, generator), random_corner(image, side, generator)
        height, width = (max(0, side - abs(a - b)) for a, b in zip(first, second, strict=True))
        if overlap[0] <= height * width / side**2 <= overlap[1]:
            break
    return first, second


def patch(image: Pixels, corner: Corner, side: int) -> Pixels:
    """The patch at a corner."""
    y, x = corner
    return image[:, y : y + side, x : x + side]
