"""LIQE's training batches: in each step one mini-batch of every data set of the task."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from iqa_lightning.data.pairs import Draw, InBatchPairs


class SetBatches(InBatchPairs):
    """`steps` batches an epoch, each of `images` images of every data set (`by_set` names others), paired within it.

    A data set is gone through in a new order each time, and again when it is used up, so that an epoch shows a random
    part of a large set. What does not fill a mini-batch is left out of that pass: a single image has no pair. The batch
    size of the schedule has no say.

    Source: the official code of LIQE, https://github.com/zwx8981/LIQE.
    """

    def __init__(
        self, steps: int = 200, images: int = 4, by_set: Mapping[str, int] | None = None, target: str = "sign"
    ) -> None:
        super().__init__(target=target)
        self.steps, self.images, self.by_set = steps, images, dict(by_set or {})
        small = next((name for name, count in {"images": images, **self.by_set}.items() if count < 2), None)
        if small is not None or steps < 1:
            raise ValueError(f"pairs: {small or 'steps'} is too small; give 1 step or more of 2 images or more a set")

    def draw(
        self,
        sizes: Sequence[int],
        names: Sequence[str],
        seed: int,  # noqa: ARG002  # each epoch draws anew
        batch_size: int,  # noqa: ARG002
        count: int | None = None,  # noqa: ARG002
    ) -> Draw:
        """Batches of images, (images, 1) positions each."""
        starts = np.cumsum([0, *sizes])[:-1]
        parts = [min(self.by_set.get(name, self.images), size) for name, size in zip(names, sizes, strict=True)]

        def epoch(generator: np.random.Generator) -> list[NDArray[np.int64]]:
            sets = [
                start + rounds(size, part, self.steps, generator)
                for start, size, part in zip(starts, sizes, parts, strict=True)
            ]
            return [np.concatenate(step)[:, None] for step in zip(*sets, strict=True)]

        return epoch


def rounds(size: int, part: int, steps: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """`steps` mini-batches of `part` of `size` images, (steps, part), from as many passes as that takes."""
    whole = size // part
    passes = [generator.permutation(size)[: whole * part].reshape(whole, part) for _ in range(-(-steps // whole))]
    return np.concatenate(passes)[:steps]
