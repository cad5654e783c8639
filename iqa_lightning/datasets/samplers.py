"""Batch samplers: which images, seen how, in which order. Each is a pure function of its seed."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

Key = tuple[int, float, float, float]
"""An image of a task and how it is seen: position, top, left and flip, the last three in [0, 1)."""


# Eight photographs of 1024x768. Measured in float32: 160 (ResNet-18) to 370 bytes a pixel
# (ResNet-50), so 2.3 GB of 8.
MAX_PIXELS = 8 * 1024 * 768


class EpochSampler(Sampler[list[Key]]):
    """The batches of one epoch and rank, drawn anew by each `iter`, so that a second `iter` gives
    the same batches.

    `draw(generator)` returns image positions, one array (units, images of a unit) a batch: a unit
    is a pair or a single image. Every rank draws all of them and takes an equal share of each
    batch, so that the order of the data depends neither on the number of ranks nor on that of
    loader workers. What cannot be shared out, or leaves a rank without a pair, is left out.
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator], list[NDArray[np.int64]]],
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.draw, self.seed, self.rank, self.world_size = draw, seed, rank, world_size

    def batches(self, generator: np.random.Generator) -> list[NDArray[np.int64]]:
        """Batches of all ranks, each a multiple of their number."""
        drawn = self.draw(generator)
        whole = [batch[: len(batch) // self.world_size * self.world_size] for batch in drawn]
        return [batch for batch in whole if batch.size // self.world_size >= 2]

    def __iter__(self) -> Iterator[list[Key]]:
        """Lists of keys, one list a batch: the first image of every unit, then the second of every
        unit.
        """
        generator = np.random.default_rng(self.seed)
        for batch in self.batches(generator):
            views = generator.random((*batch.shape, 3))
            positions = batch[self.rank :: self.world_size].T.reshape(-1)
            shown = views[self.rank :: self.world_size].swapaxes(0, 1).reshape(-1, 3)
            yield [(i, *view) for i, view in zip(positions.tolist(), shown.tolist(), strict=True)]  # type: ignore[misc]  # three numbers

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches(np.random.default_rng(self.seed)))


class JoinedSampler(Sampler[list[Key]]):
    """The batches of several samplers of one length, joined: to each of the first what the others
    give along.
    """

    def __init__(self, samplers: Sequence[EpochSampler]) -> None:
        self.samplers = samplers

    def __iter__(self) -> Iterator[list[Key]]:
        """Lists of keys, one list a batch."""
        for batches in zip(*self.samplers, strict=True):
            yield [key for batch in batches for key in batch]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.samplers[0])


class SizeSampler(Sampler[list[int]]):
    """Every image once, in batches of equal-sized images of at most `max_pixels` together, dealt
    out over the ranks.

    An image of more pixels runs alone: 40 megapixels take 5.5 GB in a ResNet-18, and 2 % of that
    after the adaptive resize of the continual papers. In evaluation mode and float32 the scores do
    not depend on the batches (to 1e-5).
    """

    def __init__(
        self,
        sizes: NDArray[np.int64],
        max_pixels: int = MAX_PIXELS,
        rank: int = 0,
        world_size: int = 1,
        max_images: int = 64,
    ) -> None:
        self.batches: list[list[int]] = []
        for height, width in np.unique(sizes, axis=0):
            same = np.flatnonzero((sizes == (height, width)).all(axis=1))
            step = int(np.clip(max_pixels // (height * width), 1, max_images))
            self.batches += [
                same[start : start + step].tolist() for start in range(0, len(same), step)
            ]
        self.batches = self.batches[rank::world_size]

    def __iter__(self) -> Iterator[list[int]]:
        """Lists of image positions, one list a batch."""
        return iter(self.batches)

    def __len__(self) -> int:
        """Number of batches of this rank."""
        return len(self.batches)


class RandomViews(Sampler[tuple[int, float, float, float]]):
    """Every image once in a new order, each with random numbers for its view, from PyTorch's global
    generator.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, float, float, float]]:
        order = torch.randperm(self.count).tolist()
        for i, (top, left, flip) in zip(order, torch.rand(self.count, 3).tolist(), strict=True):
            yield i, top, left, flip
