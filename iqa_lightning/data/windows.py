"""The dense windows of LIQE: squares in raster order, of which training draws some and evaluation shows fixed ones.

Source: the official code, https://github.com/zwx8981/LIQE (arXiv 2303.14968).
"""

import torch
from jaxtyping import UInt8
from torch import Tensor

STRIDE, LARGE_STRIDE, LARGE = 32, 48, 1024  # pixels; images with a side of LARGE or more take the larger stride


def grid(height: int, width: int, side: int) -> tuple[int, int, int]:
    """Rows and columns of the windows of an image, and the pixels from one to the next."""
    stride = LARGE_STRIDE if max(height, width) >= LARGE else STRIDE
    return (height - side) // stride + 1, (width - side) // stride + 1, stride


def count(height: int, width: int, side: int) -> int:
    """Number of windows of an image."""
    rows, columns, _ = grid(height, width, side)
    return rows * columns


def fixed_indices(windows: int, shown: int) -> list[int]:
    """Which of the windows evaluation shows: i * floor(windows / shown), i from 0; all where there are not so many."""
    return [i * (windows // shown) for i in range(shown)] if windows >= shown else list(range(windows))


def drawn_indices(windows: int, drawn: int, first: float, second: float) -> list[int]:
    """`drawn` windows, each equally likely, with replacement; a pure function of two numbers in [0, 1).

    They are the digits of the two numbers, in turn, to the base `windows`.
    """
    digits, rest = [], [first, second]
    for i in range(drawn):
        value = rest[i % 2] * windows
        digits.append(min(int(value), windows - 1))
        rest[i % 2] = value - int(value)
    return digits


def cut(
    image: UInt8[Tensor, "3 height width"], side: int, indices: list[int], mirror: bool = False
) -> UInt8[Tensor, "windows 3 side side"]:
    """Windows of the image, or of its mirror image, by their number in raster order; a copy."""
    height, width = image.shape[-2:]
    _, columns, stride = grid(height, width, side)
    shown = []
    for index in indices:
        y, x = (stride * k for k in divmod(index, columns))
        x = width - side - x if mirror else x
        shown.append(image[:, y : y + side, x : x + side])
    stacked = torch.stack(shown)
    return stacked.flip(-1) if mirror else stacked
