"""Data sets of random images, made on the fly from their numbers: as many as a real set has, no
disk, no memory.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.images.cache import ImageCache
from iqa_lightning.images.transforms import View
from iqa_lightning.stream.schedule import Phase
from iqa_lightning.stream.stream import TaskStream


class Generated(ImageCache):
    """In the place of a cache of decoded images: each is made when it is asked for, and not kept."""

    def __init__(self, count: int, sides: tuple[int, int]) -> None:
        self.sizes: NDArray[np.int64] = np.tile(np.array(sides, np.int64), (count, 1))
        self.sides = sides

    def __getitem__(self, i: int) -> Tensor:
        """Image i: noise whose strength falls with its number."""
        generator = torch.Generator().manual_seed(i)
        small = torch.randint(0, 256, (3, *self.sides), generator=generator, dtype=torch.uint8)
        return small // (1 + i % 7)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class NoiseData(IQADataModule):
    """`count` random images of `sides` (height, width) pixels with a rating each."""

    native_range = (0.0, 100.0)
    native_higher_is_better = True
    synthetic = True

    def __init__(self, count: int, sides: tuple[int, int], **options: Any) -> None:
        super().__init__(".", **options)
        self.count, self.sides = count, sides

    def read_table(self) -> pd.DataFrame:
        """Ratings that follow the strength of the noise, and noise of their own."""
        mos = (
            50 + 5 * (np.arange(self.count) % 7) + np.random.default_rng(0).normal(0, 3, self.count)
        )
        names = [f"{i:06d}.png" for i in range(self.count)]
        return pd.DataFrame({"image": names, "mos": mos, "mos_std": 5.0})

    def check_files(self) -> None:
        """There are none."""

    def setup(self, stage: str | None = None) -> None:  # as in every data set
        """A table and a split, no pixels."""
        if self._images is None:
            self.prepare_data()
            self._images = self._shown = Generated(self.count, self.sides)

    def load_image(self, row: int) -> Image.Image:
        """Not used."""
        raise NotImplementedError


def noise_stream(
    counts: Sequence[int],
    side: int,
    phases: Sequence[Phase],
    crop: int | None = None,
    **options: Any,
) -> TaskStream:
    """A stream of data sets `t1`, `t2`, ... with these numbers of square images."""
    tasks: dict[str, Callable[..., IQADataModule]] = {
        f"t{i}": partial(NoiseData, count, (side, side)) for i, count in enumerate(counts, start=1)
    }
    return TaskStream(tasks, phases, view=View(0, crop or side), **options)


def noise_files(folder: Path, count: int, side: int, seed: int) -> Path:
    """A data set on disk, for `CSVData`: square JPEG images whose noise follows their rating;
    returns its folder.
    """
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for i in range(count):
        smooth = np.cumsum(draw.normal(0, 3, (side, side, 3)), axis=1) + 128
        pixels = (
            (smooth + draw.normal(0, 5 + 60 * i / count, smooth.shape))
            .clip(0, 255)
            .astype(np.uint8)
        )
        Image.fromarray(pixels).save(folder / f"{i:03d}.jpg", quality=90)
    names = [f"{i:03d}.jpg" for i in range(count)]
    pd.DataFrame({"image": names, "mos": 100 - 100 * np.arange(count) / count}).to_csv(
        folder / "ratings.csv", index=False
    )
    return folder
