"""Fragments: small patches of an image from the cells of a grid, put together to a small image.

FAST-VQA (https://arxiv.org/abs/2207.02595); as in the code of GRepQ.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


class Grid(NamedTuple):
    """Cells of an image: size that it is enlarged to, first row of each row of cells, first column
    of each column of cells, height and width of a cell.
    """

    size: tuple[int, int]
    rows: list[int]
    columns: list[int]
    cell: tuple[int, int]


def grid_of(
    size: tuple[int, int] | torch.Size, grid: int, patch: int, after_upsampling: bool = False
) -> Grid:
    """The cells of an image of `size` (height, width), `grid` a side.

    An image smaller than `grid` * `patch` is enlarged until that fits. The official code takes the
    cells from the size before, so that only the upper left corner is seen; `after_upsampling` takes
    them from the size after.
    """
    height, width = size
    side = grid * patch
    ratio = min(height / side, width / side)
    enlarged = (height, width)
    if ratio < 1:
        enlarged = (max(side, int(height / ratio)), max(side, int(width / ratio)))
    seen = enlarged if after_upsampling else (height, width)
    # an image narrower than a patch would start outside; there the first cell stands for all
    rows, columns = (
        [max(0, min(i * (length // grid), length - patch)) for i in range(grid)] for length in seen
    )
    return Grid(enlarged, rows, columns, (seen[0] // grid, seen[1] // grid))


def draw_offsets(cells: Grid, patch: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Row and column of each patch within its cell, (2, grid, grid): from 0 to the cell's side less
    the patch less 1, and 0 where a cell is no larger than a patch.
    """
    shape = (len(cells.rows), len(cells.columns))
    free = [length - patch for length in cells.cell]
    drawn = [draw.integers(room, size=shape) if room > 0 else np.zeros(shape, int) for room in free]
    return np.stack(drawn).astype(np.int64)


def fragments(
    images: UInt8[Tensor, "batch 3 height width"],
    cells: Grid,
    offsets: Int[np.ndarray, "2 grid grid"],
    patch: int,
) -> Float[Tensor, "batch 3 side side"]:
    """The patches of all images, of one size and cut at the same places; in [0, 255]."""
    shown = images.float()
    if cells.size != tuple(images.shape[-2:]):
        shown = F.interpolate(shown, list(cells.size), mode="bilinear", align_corners=False)
    rows = []
    for i, y in enumerate(cells.rows):
        row = []
        for j, x in enumerate(cells.columns):
            top, left = y + int(offsets[0, i, j]), x + int(offsets[1, i, j])
            row.append(shown[..., top : top + patch, left : left + patch])
        rows.append(torch.cat(row, dim=-1))
    return torch.cat(rows, dim=-2)
