"""Replay memory: which training images of earlier tasks a method may still look at."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class ReplayMemory:
    """At most `capacity` training images of the tasks learnt so far.

    A task whose training images all fit into what is free is kept whole. Otherwise every task keeps at most
    floor(capacity / t) images after task t: earlier tasks are trimmed at random, the new one is sampled at random, and
    a share that a small task leaves unused is not given to others.

    What is kept is a pure function of (`seed`, numbers of images, t): task k keeps a prefix of a random order of its
    images, and trimming shortens the prefix. So nothing is stored, and a resumed run or another rank finds the same
    images; their pixels come from the cache of decoded images.

    `shares` says how many images of each earlier task a step replays, as a share of the batch, with one, two, and so on
    earlier tasks; the last holds for more. The paper's 32, 16 and 8 pairs beside 32 pairs are 1, 1/2 and 1/4.

    Source: specification of LwF-KG's replay baselines (https://github.com/zwx8981/BIQA_CL).

    Raises:
        ValueError: a capacity below 2, no share, or a share that is not positive.
    """

    def __init__(self, capacity: int = 1000, seed: int = 0, shares: Sequence[float] = (1.0, 0.5, 0.25)) -> None:
        if capacity < 2:
            raise ValueError(f"method.memory.capacity={capacity}: a memory needs at least 2 images, which make a pair")
        if not shares or min(shares) <= 0:
            raise ValueError(f"method.memory.shares={list(shares)}: give one positive share of the batch or more")
        self.capacity, self.seed, self.shares = capacity, seed, tuple(shares)

    def counts(self, sizes: Sequence[int]) -> list[int]:
        """Images kept of each task, after all the tasks whose numbers of training images are `sizes`."""
        kept: list[int] = []
        for t, size in enumerate(sizes, start=1):
            fits = size <= self.capacity - sum(kept)
            kept = [*kept, size] if fits else [min(count, self.capacity // t) for count in (*kept, size)]
        return kept

    def order(self, t: int, size: int) -> NDArray[np.int64]:
        """Task t's training images, `size` of them, in the order in which the memory prefers them."""
        return np.random.default_rng((self.seed, t)).permutation(size)

    def rows(self, sizes: Sequence[int]) -> list[NDArray[np.int64]]:
        """Positions, among its training images, of what is kept of each task after tasks of `sizes` images."""
        pairs = enumerate(zip(sizes, self.counts(sizes), strict=True), start=1)
        return [self.order(t, size)[:count] for t, (size, count) in pairs]

    def share(self, earlier: int) -> float:
        """Images of each of `earlier` tasks that a step replays, as a share of the batch."""
        return self.shares[min(earlier, len(self.shares)) - 1]
