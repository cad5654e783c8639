"""Published pair lists as training pairs, with the targets that stand in them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from iqa_lightning.datasets.split_files import PAIRS, ImageIndex, find_list, number, read_rows
from iqa_lightning.stream.pairs import Draw, SampledPairs, shuffled


class FilePairs(SampledPairs):
    """The pairs of `<data set>_train.txt`: all of them once an epoch, in a new order each.

    The target is the list's: `soft` its g = P(image 1 is better), `binary` its y. Each image of a
    pair is cropped and flipped on its own; the batch size counts images, two a pair. Where several
    tasks are learnt together their lists are joined; pairs of a replay memory are drawn, with
    targets of this kind from the ratings.

    Args:
        folder: the folder that holds the lists (see `data/split_files.py`); use it with
            `splits=files` of the same.
        split: number of the split.
        target: `binary` or `soft`.

    Source: the lists of https://github.com/zwx8981/BIQA_CL.
    """

    def __init__(self, folder: str | Path, split: int = 1, target: str = "binary") -> None:
        super().__init__(target=target)
        self.folder, self.split = Path(folder).expanduser(), split
        self._table = np.empty((0, 2), dtype=np.int64)
        self._targets: dict[tuple[int, int, int], float] = {}

    def find(
        self, images: Sequence[Sequence[str]], names: Sequence[str], starts: Sequence[int]
    ) -> None:
        """Read the lists of the data sets that are learnt.

        Args:
            images: names of the images of each.
            names: of the data sets.
            starts: the `index` of the first image of each in its task.

        Raises:
            ValueError: naming file, row and remedy: no list, an image that is not in the train
                part, a pair of an image with itself or listed twice, a target that is none.
        """
        tables = []
        self._targets = {}
        position = 0
        for k, (shown, name, start) in enumerate(zip(images, names, starts, strict=True)):
            pairs, targets = self._read(ImageIndex(name, shown), name)
            tables.append(pairs + position)
            keys = [(k, first, second) for first, second in (pairs + start).tolist()]
            self._targets |= dict(zip(keys, targets, strict=True))
            position += len(shown)
        self._table = np.concatenate(tables)

    def draw(
        self,
        sizes: Sequence[int],  # the lists say all
        names: Sequence[str],  # the same
        seed: int,  # the same
        batch_size: int,
        count: int | None = None,
    ) -> Draw:
        """Batches of the listed pairs, (pairs, 2) positions each; with a `count`, which a memory
        gives, of drawn ones.
        """
        if count is not None:
            return super().draw(sizes, names, seed, batch_size, count)
        assert len(self._table), "find() comes first"
        return shuffled(self._table, batch_size)

    def targets(
        self, index: Int[Tensor, "pairs 2"], dataset_index: Int[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        """Listed targets of pairs, by the `index` of both images in their task and by data set."""
        keys = zip(dataset_index.tolist(), index.tolist(), strict=True)
        return torch.tensor([self._targets[k, *both] for k, both in keys], dtype=torch.float32)

    def _read(self, index: ImageIndex, name: str) -> tuple[NDArray[np.int64], list[float]]:
        files = find_list(self.folder, PAIRS.format(tag=name), self.split)
        if len(files) != 1:
            found = (
                "no pair list" if not files else f"more than one pair list ({files[0]}, {files[1]})"
            )
            raise ValueError(
                f"data set {name!r}: {found} {PAIRS.format(tag=name)} of split {self.split} under "
                f"{self.folder}; "
                f"set pairs.folder to the folder of one, or draw pairs with pairs=paper"
            )
        column, known = (2, "in [0, 1]") if self.target == "soft" else (5, "0 or 1")
        seen: dict[frozenset[int], int] = {}
        pairs, targets = [], []
        for row in read_rows(files[0], 6):
            pair, target = (index.find(row, 0), index.find(row, 1)), number(row, column)
            if not 0 <= target <= 1 or (column == 5 and target not in (0, 1)):
                raise ValueError(
                    f"{row}: the target {row.cells[column]} is not {known}; get the list again"
                )
            first = seen.setdefault(frozenset(pair), row.number)
            if pair[0] == pair[1] or first != row.number:
                what = (
                    "an image with itself"
                    if pair[0] == pair[1]
                    else f"the pair of row {first} again"
                )
                raise ValueError(f"{row}: {what}; remove the row")
            pairs.append(pair)
            targets.append(target)
        return np.array(pairs, dtype=np.int64), targets
