"""Geometry and resolution: affine maps, jitter, pixelation, down- and up-scaling, displaced and
painted patches.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from iqa_lightning.images.degradations.compression import to_bytes, to_floats
from iqa_lightning.images.degradations.draws import Draws, Images, Strengths, wide


def affine(image: Images, strength: Strengths, draws: Draws) -> Images:
    """A random rotation, shear and scale about the centre; strength: largest change of each entry
    of the matrix.
    """
    change = strength.view(-1, 1, 1) * (2 * draws.uniform(2, 2) - 1)
    (xx, xy), (yx, yy) = (torch.eye(2, device=image.device) + change).permute(1, 2, 0)[..., None]
    x, y = positions(image)
    grid = torch.complex(x * xx, x * yx)[:, None] + torch.complex(y * xy, y * yy)[:, :, None]
    return F.grid_sample(
        image, torch.view_as_real(grid), padding_mode="reflection", align_corners=False
    )


def jitter(image: Images, strength: Strengths, draws: Draws) -> Images:
    """Every pixel displaced by itself; strength: standard deviation in pixels."""
    height, width = image.shape[-2:]
    x, y = positions(image)
    grid = torch.view_as_real(
        torch.complex(x, torch.zeros_like(x)) + torch.complex(torch.zeros_like(y), y)[:, None]
    )
    # one row for all, since numbers are read 16 at a time and not 2
    pixel = torch.tensor([2 / width, 2 / height], device=image.device).repeat(width, 1)
    moved = torch.addcmul(grid, draws.normal(height, width, 2).mul_(wide(strength)), pixel)
    return F.grid_sample(image, moved, padding_mode="border", align_corners=False)


def positions(image: Images) -> tuple[Float[Tensor, " width"], Float[Tensor, " height"]]:
    """Of the columns and of the rows, from -1 to 1 between the outer edges."""
    y, x = ((2 * torch.arange(n, device=image.device) + 1) / n - 1 for n in image.shape[-2:])
    return x, y


def pixelation(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Large square pixels; strength: share of the resolution that is lost along each side, in [0,
    1).
    """
    return torch.cat(
        [
            _scaled(one[None], s, "area", "nearest")
            for one, s in zip(image, strength.tolist(), strict=True)
        ]
    )


def rescale(image: Images, strength: Strengths, draws: Draws) -> Images:
    """Scaled down and up again, by linear or cubic interpolation of 8-bit values; strength: as of
    `pixelation`.
    """
    modes = ["bilinear" if u < 0.5 else "bicubic" for u in draws.uniform(1)[:, 0].tolist()]
    fast = (
        to_bytes(image) if image.device.type == "cpu" else image
    )  # several times faster, and on CPUs only
    rows = zip(fast, strength.tolist(), modes, strict=True)
    out = torch.cat([_scaled(one[None], s, mode, mode) for one, s, mode in rows])
    return to_floats(out) if out.dtype == torch.uint8 else out


def patches(image: Images, strength: Strengths, draws: Draws) -> Images:
    """Small patches show what lies a little beside them; strength: their number.

    Named "non-eccentricity pattern noise" by N. Ponomarenko et al. (TID2008).
    """
    side, out = max(2, min(image.shape[-2:]) // 24), image.clone()
    for row, (count, places) in enumerate(
        zip(strength.tolist(), draws.uniform(MOST_PATCHES, 4), strict=True)
    ):
        for y, x, dy, dx in _corners(places[: round(count)], image, side):
            out[row, :, y : y + side, x : x + side] = image[row, :, dy : dy + side, dx : dx + side]
    return out


def colour_blocks(image: Images, strength: Strengths, draws: Draws) -> Images:
    """Squares of one random colour; strength: their number."""
    side, out = max(2, min(image.shape[-2:]) // 12), image.clone()
    numbers = draws.uniform(MOST_PATCHES, 7)
    for row, count in enumerate(strength.tolist()):
        drawn = numbers[row, : round(count)]
        for (y, x, _, _), colour in zip(
            _corners(drawn[:, :4], image, side), drawn[:, 4:], strict=True
        ):
            out[row, :, y : y + side, x : x + side] = colour[:, None, None]
    return out


MOST_PATCHES = 200


def _corners(places: Float[Tensor, "patches 4"], image: Images, side: int) -> list[list[int]]:
    """Upper left corner of each patch, and the corner of a patch at most two sides away."""
    free = torch.tensor([image.shape[-2] - side, image.shape[-1] - side], device=image.device)
    corner = (places[:, :2] * (free + 1)).long()
    near = (corner + (4 * side * (places[:, 2:] - 0.5)).round().long()).clamp_min(0).minimum(free)
    corners: list[list[int]] = torch.cat([corner, near], dim=1).tolist()
    return corners


def _scaled(image: Images, loss: float, down: str, up: str) -> Images:
    height, width = image.shape[-2:]
    small = [max(1, round(height * (1 - loss))), max(1, round(width * (1 - loss)))]
    antialias = {"antialias": True} if down != "area" else {}
    smooth = {"align_corners": False} if up != "nearest" else {}
    return F.interpolate(
        F.interpolate(image, small, mode=down, **antialias), [height, width], mode=up, **smooth
    )
