"""Few ratings: the batches of a task show the same few of its training images in each epoch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from iqa_lightning.seeds import seed_of
from iqa_lightning.stream.pairs import Draw, InBatchPairs


class FewShots(InBatchPairs):
    """`shots` training images of each data set, drawn once by (`seed`, data set) without
    replacement; all of a smaller one.

    The batches are those of `InBatchPairs` over the drawn images. What else a method reads of a
    task (a gate, the range of the ratings) is of all its training images.

    Source: the protocol of GRMP-IQA, https://github.com/LXDxmu/GRMP-IQA: 50 images, ten times.

    Args:
        shots: images of a data set.
        seed: of the draw.
        min_images: see `InBatchPairs`.
        target: see `InBatchPairs`.

    Raises:
        ValueError: fewer than 2 images.
    """

    def __init__(
        self, shots: int = 50, seed: int = 0, min_images: int = 0, target: str = "binary"
    ) -> None:
        super().__init__(min_images, target)
        if shots < 2:
            raise ValueError(f"pairs.shots={shots}: a task needs 2 images or more to learn from")
        self.shots, self.seed = shots, seed

    def draw(
        self,
        sizes: Sequence[int],
        names: Sequence[str],
        seed: int,  # the draw has a seed of its own
        batch_size: int,
        count: int | None = None,  # pairs are made in the batch
    ) -> Draw:
        """Batches of images, (images, 1) positions each."""
        starts = np.cumsum([0, *sizes])[:-1]
        drawn = [
            start + self.chosen(name, size)
            for start, name, size in zip(starts, names, sizes, strict=True)
        ]
        positions = np.concatenate(drawn)
        inner = super().draw([len(rows) for rows in drawn], names, seed, batch_size, count)
        return lambda generator: [positions[batch] for batch in inner(generator)]

    def chosen(self, name: str, size: int) -> NDArray[np.int64]:
        """Positions of the images drawn from the `size` of a data set, in order."""
        order = np.random.default_rng(seed_of(self.seed, "shots", name)).permutation(size)
        return np.sort(order[: self.shots])
