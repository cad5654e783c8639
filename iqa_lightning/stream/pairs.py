"""Pairs of images of one data set and their targets: what ranking losses learn from.

Pairs never cross data sets, so the sets' different rating scales do not matter. Three protocols:
`SampledPairs`, the papers' (a fixed draw per task), `InBatchPairs` (all pairs of a batch: B (B - 1)
/ 2 of them for B forward passes), and `FilePairs` of `data/pair_files.py` (the papers' own lists).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor
from torch.utils.data import default_collate

from iqa_lightning.seeds import seed_of

Draw = Callable[[np.random.Generator], list[NDArray[np.int64]]]


TARGETS = ("binary", "sign", "soft")


def draw_pairs(images: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """`count` distinct unordered pairs of `images` images, (count, 2), without listing all
    combinations.

    Fewer where there are not so many. The order inside a pair is random too.
    """
    total = images * (images - 1) // 2
    code = generator.choice(total, size=min(count, total), replace=False, shuffle=True)
    second = ((1 + np.sqrt(1 + 8 * code.astype(np.float64))) / 2).astype(np.int64)
    second -= second * (second - 1) // 2 > code  # the root may be rounded up ...
    second += second * (second + 1) // 2 <= code  # ... or down
    pairs = np.stack([code - second * (second - 1) // 2, second], axis=1)
    swap = generator.random(len(pairs)) < 0.5
    pairs[swap] = pairs[swap, ::-1]
    return pairs


def pair_target(
    mos: Float[Tensor, "pairs 2"], mos_std: Float[Tensor, "pairs 2"], kind: str = "binary"
) -> Float[Tensor, " pairs"]:
    """Wanted preference for the first image of each pair, in [0, 1].

    `binary`: 1 where the first MOS is strictly higher, else 0 (the papers' default; a tie gives 0
    as in the official lists). `sign`: the same, but a tie gives 0.5 (LIQE). `soft`: Thurstone,
    Phi((m1 - m2) / sqrt(s1^2 + s2^2)); where both deviations are 0, the sign of m1 - m2 (0.5 for a
    tie).
    """
    difference = (mos[:, 0] - mos[:, 1]).double()
    if kind == "binary":
        return (difference > 0).float()
    if kind == "sign":
        return 0.5 * (1.0 + difference.sign().float())
    spread = mos_std.double().square().sum(dim=1).sqrt()
    z = torch.where(
        spread > 0, difference / spread.clamp_min(1e-300), difference.sign() * torch.inf
    )
    return torch.from_numpy(ndtr(torch.nan_to_num(z, nan=0.0).numpy())).float()


class Pairs(Protocol):
    """How the images of a task become training batches."""

    target: str

    def draw(
        self,
        sizes: Sequence[int],
        names: Sequence[str],
        seed: int,
        batch_size: int,
        count: int | None = None,
    ) -> Draw:
        """The function that draws an epoch's batches; `sizes` and `names` of the data sets that the
        task joins.

        `count` asks for so many pairs of each data set instead of what is configured, where pairs
        are counted.
        """

    def positions(self, dataset_index: Int[Tensor, " batch"]) -> Int[Tensor, "pairs 2"]:
        """Pairs of a batch as positions in it; `dataset_index` is the data set of each image."""


@runtime_checkable
class ListedPairs(Pairs, Protocol):
    """Pairs that name their images and bring their targets."""

    def find(
        self, images: Sequence[Sequence[str]], names: Sequence[str], starts: Sequence[int]
    ) -> None:
        """Look up the images that are learnt, before `draw`: of each data set the names of its
        images, its own name, and the `index` of its first image in its task.
        """

    def targets(
        self, index: Int[Tensor, "pairs 2"], dataset_index: Int[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:
        """Listed targets of pairs, by the `index` of both images in their task and by data set."""


class SampledPairs:
    """The papers' protocol: M pairs per data set, fixed for the whole training, re-shuffled each
    epoch.

    The draw is a function of (seed, data set). Each image of a pair is cropped and flipped on its
    own. `count` is M for data sets that `counts` does not name; the batch size counts images, two a
    pair.

    Source: specification of LwF-KG (https://github.com/zwx8981/BIQA_CL), which ships such lists.
    """

    def __init__(
        self, count: int = 20_000, counts: Mapping[str, int] | None = None, target: str = "binary"
    ) -> None:
        self.count, self.counts, self.target = count, dict(counts or {}), checked_target(target)

    def draw(
        self,
        sizes: Sequence[int],
        names: Sequence[str],
        seed: int,
        batch_size: int,
        count: int | None = None,
    ) -> Draw:
        """Batches of pairs, (pairs, 2) positions each, all pairs once an epoch."""
        starts = np.cumsum([0, *sizes])
        pairs = []
        for start, size, name in zip(starts[:-1], sizes, names, strict=True):
            wanted = self.counts.get(name, self.count) if count is None else count
            generator = np.random.default_rng(seed_of(seed, "pairs", name))
            pairs.append(start + draw_pairs(size, wanted, generator))
        return shuffled(np.concatenate(pairs), batch_size)

    def positions(self, dataset_index: Int[Tensor, " batch"]) -> Int[Tensor, "pairs 2"]:
        """First half against second half."""
        half = len(dataset_index) // 2
        return torch.stack([torch.arange(half), torch.arange(half, 2 * half)], dim=1)


def shuffled(table: NDArray[np.int64], batch_size: int) -> Draw:
    """Batches of the pairs of a table, (pairs, 2), in a new order each epoch; `batch_size` counts
    images.
    """
    step = max(1, batch_size // 2)

    def epoch(generator: np.random.Generator) -> list[NDArray[np.int64]]:
        order = generator.permutation(table)
        return [order[i : i + step] for i in range(0, len(order), step)]

    return epoch


class InBatchPairs:
    """All pairs of a batch of single images that come from the same data set.

    Each image is drawn once an epoch; a set with fewer than `min_images` images is gone through
    again, in new crops, until so many are drawn, so that small tasks get enough optimiser steps.
    Where a task joins several sets, a batch is half of one set and half of another (or the same):
    drawn one by one, the images of a set that makes up a twentieth of the union would meet hardly
    ever, and give a four-hundredth of the pairs.
    """

    def __init__(self, min_images: int = 0, target: str = "binary") -> None:
        self.min_images, self.target = min_images, checked_target(target)

    def draw(
        self,
        sizes: Sequence[int],
        names: Sequence[str],  # pairs are made in the batch
        seed: int,  # the same
        batch_size: int,
        count: int | None = None,  # the same
    ) -> Draw:
        """Batches of images, (images, 1) positions each."""
        starts = np.cumsum([0, *sizes])
        length = batch_size if len(sizes) == 1 else max(batch_size // 2, 1)

        def epoch(generator: np.random.Generator) -> list[NDArray[np.int64]]:
            runs: list[NDArray[np.int64]] = []
            for start, size in zip(starts[:-1], sizes, strict=True):
                wanted = max(size, self.min_images)
                rounds = [generator.permutation(size) for _ in range(-(-wanted // size))]
                order = start + np.concatenate(rounds)[:wanted, None]
                runs += [order[i : i + length] for i in range(0, wanted, length)]
            if len(sizes) == 1:
                return runs
            mixed = [runs[i] for i in generator.permutation(len(runs))]
            return [np.concatenate(mixed[i : i + 2]) for i in range(0, len(mixed), 2)]

        return epoch

    def positions(self, dataset_index: Int[Tensor, " batch"]) -> Int[Tensor, "pairs 2"]:
        """Every unordered pair of images of one data set."""
        pairs = torch.combinations(torch.arange(len(dataset_index)), 2)
        return pairs[dataset_index[pairs[:, 0]] == dataset_index[pairs[:, 1]]]


class PairCollate:
    """Stack the images of a batch and add `pairs` (P, 2) and `target` (P,).

    The images of the first `own` sources are the batch; others are its `memory`, a batch of its own
    within it, in which the images of each task are paired by themselves.
    """

    def __init__(self, pairs: Pairs, own: int | None = None) -> None:
        self.pairs, self.own = pairs, own

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Items of a task's images, then those of its memory task by task, to one batch."""
        own = [item for item in items if self.own is None or item["dataset_index"] < self.own]
        batch = self.paired([own], isinstance(self.pairs, ListedPairs))
        if len(own) < len(items):
            tasks = groupby(items[len(own) :], key=lambda item: item["task"])
            batch["replay"] = self.paired([list(group) for _, group in tasks], listed=False)
        return batch

    def paired(self, groups: list[list[dict[str, Any]]], listed: bool) -> dict[str, Any]:
        """Groups of items to one batch without pairs between groups; `listed` pairs bring their
        targets, those of a memory are always drawn.
        """
        batch: dict[str, Any] = default_collate([item for group in groups for item in group])
        sources = batch["dataset_index"].split([len(group) for group in groups])
        starts = np.cumsum([0, *map(len, sources)])
        both = torch.cat(
            [
                int(k) + self.pairs.positions(part)
                for k, part in zip(starts[:-1], sources, strict=True)
            ]
        )
        both = both[
            batch["index"][both[:, 0]] != batch["index"][both[:, 1]]
        ]  # two crops of one image are no pair
        batch["pairs"] = both
        if listed:
            assert isinstance(self.pairs, ListedPairs)
            of_set = batch["dataset_index"][both[:, 0]]
            batch["target"] = self.pairs.targets(batch["index"][both], of_set)
        else:
            batch["target"] = pair_target(
                batch["mos"][both], batch["mos_std"][both], self.pairs.target
            )
        return batch


def checked_target(target: str) -> str:
    """The target kind, or an error that names the choices."""
    if target not in TARGETS:
        raise ValueError(f"pairs.target={target!r}: choose one of {TARGETS}")
    return target


class SetBatches(InBatchPairs):
    """`steps` batches an epoch, each of `images` images of every data set (`by_set` names others),
    paired within it.

    A data set is gone through in a new order each time, and again when it is used up, so that an
    epoch shows a random part of a large set. What does not fill a mini-batch is left out of that
    pass: a single image has no pair. The batch size of the schedule has no say.

    Source: the official code of LIQE, https://github.com/zwx8981/LIQE.
    """

    def __init__(
        self,
        steps: int = 200,
        images: int = 4,
        by_set: Mapping[str, int] | None = None,
        target: str = "sign",
    ) -> None:
        super().__init__(target=target)
        self.steps, self.images, self.by_set = steps, images, dict(by_set or {})
        small = next(
            (name for name, count in {"images": images, **self.by_set}.items() if count < 2), None
        )
        if small is not None or steps < 1:
            raise ValueError(
                f"pairs: {small or 'steps'} is too small; give 1 step or more of 2 images or more "
                "a set"
            )

    def draw(
        self,
        sizes: Sequence[int],
        names: Sequence[str],
        seed: int,  # each epoch draws anew
        batch_size: int,
        count: int | None = None,
    ) -> Draw:
        """Batches of images, (images, 1) positions each."""
        starts = np.cumsum([0, *sizes])[:-1]
        parts = [
            min(self.by_set.get(name, self.images), size)
            for name, size in zip(names, sizes, strict=True)
        ]

        def epoch(generator: np.random.Generator) -> list[NDArray[np.int64]]:
            sets = [
                start + rounds(size, part, self.steps, generator)
                for start, size, part in zip(starts, sizes, parts, strict=True)
            ]
            return [np.concatenate(step)[:, None] for step in zip(*sets, strict=True)]

        return epoch


def rounds(size: int, part: int, steps: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """`steps` mini-batches of `part` of `size` images, (steps, part), from as many passes as that
    takes.
    """
    whole = size // part
    passes = [
        generator.permutation(size)[: whole * part].reshape(whole, part)
        for _ in range(-(-steps // whole))
    ]
    return np.concatenate(passes)[:steps]
