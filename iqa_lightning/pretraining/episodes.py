"""Episodes of meta-learning: every distortion is a task, of which some images support and others
query.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from iqa_lightning.audit.contents import content_of
from iqa_lightning.datasets.base import IQADataModule, unlocked_test_set
from iqa_lightning.datasets.split_dataset import SplitDataset
from iqa_lightning.images.transforms import square
from iqa_lightning.seeds import seed_of

Key = tuple[int, int, int]
"""Task, epoch, visit: what an episode is drawn from."""


class Shape(NamedTuple):
    """How episodes look: image batches of each, sizes in pixels, share of the support."""

    resize: int
    crop: int
    support_batch: int
    query_batch: int
    batches: int | None
    support_share: float
    split_by: str = "reference"


class Episodes(Dataset[dict[str, Any]]):
    """Item (task, epoch, visit): `{"support": [batch, ...], "query": [batch, ...]}`, as many
    batches of each.

    The episode also names its `dataset`. A batch is `{"image": uint8 (n, 3, crop, crop), "target":
    float32 (n,)}`, the target in [0, 1], higher is better. Images are scaled to squares, aspect
    lost: support images to `resize`, then cropped and mirrored at random; query images to `crop`.
    Support and query share no reference where there are references, and are drawn anew each time.
    """

    def __init__(
        self,
        parts: Sequence[SplitDataset],
        references: Sequence[Sequence[str]],
        targets: Sequence[Tensor],
        shape: Shape,
        seed: int,
        datasets: Sequence[str] = (),
    ) -> None:
        self.parts, self.targets, self.shape, self.seed = parts, targets, shape, seed
        self.datasets = datasets or [""] * len(parts)
        if shape.split_by == "image":
            references = [[str(i) for i in range(len(names))] for names in references]
        self.codes = [np.unique(list(names), return_inverse=True)[1] for names in references]

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.parts)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """The episode of a key; a pure function of it."""
        task, shape = key[0], self.shape
        visit = seed_of(self.seed, "episode", "", "pretrain", key[1], task, key[2])
        generator = np.random.default_rng(visit)
        support, query = split(self.codes[task], shape.support_share, generator)
        if shape.batches is None:  # every support image once
            supports = pieces(support, shape.support_batch)
            queries = pieces(query, shape.query_batch)
            queries = [queries[k % len(queries)] for k in range(len(supports))]
        else:
            supports = cycled(support, shape.support_batch, shape.batches)
            queries = cycled(query, shape.query_batch, shape.batches)
        return {
            "dataset": self.datasets[task],
            "support": [self.batch(task, rows, generator) for rows in supports],
            "query": [self.batch(task, rows, None) for rows in queries],
        }

    def batch(
        self, task: int, rows: NDArray[np.int64], generator: np.random.Generator | None
    ) -> dict[str, Tensor]:
        """Images of a task, seen at random if there is a generator."""
        images = [self.parts[task][int(row)]["image"] for row in rows]
        resize, crop = self.shape.resize, self.shape.crop
        if generator is None:
            shown = [square(image, crop) for image in images]
        else:
            shown = [cut(square(image, resize), crop, generator) for image in images]
        return {"image": torch.stack(shown), "target": self.targets[task][torch.from_numpy(rows)]}


class TaskSampler(Sampler[list[Key]]):
    """Mini-batches of `tasks` tasks, all in a new order, dealt out over the ranks; `visits` rounds
    an epoch. Tasks stand in `groups` of so many: those of a group follow one another.
    """

    def __init__(
        self,
        groups: Sequence[int],
        tasks: int,
        visits: int,
        seed: int,
        epoch: int,
        rank: int,
        ranks: int,
    ) -> None:
        self.groups, self.tasks, self.visits, self.seed = list(groups), tasks, visits, seed
        self.epoch, self.rank, self.ranks = epoch, rank, ranks

    def __iter__(self) -> Iterator[list[Key]]:
        """Keys of this rank's tasks, mini-batch by mini-batch."""
        generator = np.random.default_rng(seed_of(self.seed, "batches", "", "pretrain", self.epoch))
        for visit in range(self.visits):
            first = 0
            for count in self.groups:
                order = (first + generator.permutation(count)).tolist()
                for start in range(0, count, self.tasks):
                    batch = order[start : start + self.tasks]
                    yield [(task, self.epoch, visit) for task in batch[self.rank :: self.ranks]]
                first += count

    def __len__(self) -> int:
        """Mini-batches."""
        return self.visits * sum(-(-count // self.tasks) for count in self.groups)


class DistortionTasks(pl.LightningDataModule):
    """The training images of distortion data sets as episodes; a batch is a list of episodes, of
    this rank's tasks.

    Args:
        data: one data set a task.
        tasks: tasks of a mini-batch over all ranks (k of the paper).
        visits: how often an epoch goes through all tasks.
        resize: side in pixels that support images are scaled to, then cropped to `crop`.
        crop: side in pixels of what the network sees.
        support_batch: images of a support step.
        query_batch: images of a query step.
        batches: support and query steps of an episode; null: as many as it takes to show every
            support image once, the last batch being what is left (the official code).
        support_share: share of a task's references (or images) that support.
        split_by: `reference`, so that support and query share none, or `image` (the official code).
        images: `train`, or `all`, those of the test part too (the official code), so that a stream
            with the same data set refuses the weights.
        label_ranges: by data set, scores that are 0 and 1, where others are wanted than the range
            that it was published with.
        sequential: whether the tasks of one data set follow one another, data set by data set, or
            all are mixed.
        seed: of all that is drawn.
        num_workers: loader processes.
    """

    def __init__(
        self,
        data: Sequence[IQADataModule],
        tasks: int = 5,
        visits: int = 1,
        resize: int = 256,
        crop: int = 224,
        support_batch: int = 75,
        query_batch: int = 50,
        batches: int | None = 1,
        support_share: float = 0.8,
        split_by: str = "reference",
        images: str = "train",
        label_ranges: Mapping[str, Sequence[float]] | None = None,
        sequential: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if crop > resize or not 0 < support_share < 1:
            raise ValueError(
                f"data.crop={crop} exceeds resize={resize}, or support_share={support_share} is "
                "not a share"
            )
        if split_by not in ("reference", "image") or images not in ("train", "all"):
            raise ValueError(
                f"data.split_by={split_by!r}, images={images!r}: choose reference or image; train "
                "or all"
            )
        self.data, self.tasks, self.visits, self.seed = list(data), tasks, visits, seed
        self.shape = Shape(
            resize, crop, support_batch, query_batch, batches, support_share, split_by
        )
        self.images, self.label_ranges = images, dict(label_ranges or {})
        self.sequential = sequential
        self.num_workers = num_workers
        self.contents: dict[str, str] = {}
        self.episodes: Episodes | None = None

    def setup(self, stage: str | None = None) -> None:  # there is training only
        """Read all tasks; scores go to [0, 1] by the published range of each data set."""
        if self.episodes is not None:
            return
        parts = []
        for data in self.data:
            data.setup()
            if self.images == "all":
                with unlocked_test_set():
                    parts.append(data.whole())
            else:
                parts.append(data.part("train"))
            for row in parts[-1].rows.tolist():
                self.contents[content_of(data, row)] = (
                    f"{data.name}/{data.samples.table['image'].iloc[row]}"
                )
        references = [
            data.samples.table["reference"].iloc[p.rows].astype(str).tolist()
            for data, p in zip(self.data, parts, strict=True)
        ]
        targets = [self.scaled(data, part) for data, part in zip(self.data, parts, strict=True)]
        names = [data.default_name() for data in self.data]
        self.episodes = Episodes(parts, references, targets, self.shape, self.seed, names)

    def scaled(self, data: IQADataModule, part: SplitDataset) -> Tensor:
        """Scores of a part, 0 and 1 at the ends of the range."""
        low, high = self.label_ranges.get(data.default_name(), data.native_range)
        return (part.mos - low) / (high - low)

    def train_dataloader(self) -> DataLoader[Any]:
        """Mini-batches of the current epoch."""
        trainer = self.trainer
        assert trainer is not None, "not attached to a trainer"
        assert self.episodes is not None, "setup() comes first"
        names = [data.default_name() for data in self.data]
        counts = [len(list(group)) for _, group in groupby(names)]
        sampler = TaskSampler(
            counts if self.sequential else [len(names)],
            self.tasks,
            self.visits,
            self.seed,
            trainer.current_epoch,
            trainer.global_rank,
            trainer.world_size,
        )
        return DataLoader(
            self.episodes,
            batch_sampler=sampler,
            collate_fn=list,
            num_workers=self.num_workers,
            generator=torch.Generator(),
        )


def split(
    codes: NDArray[np.int64], share: float, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions that support and that query, at random; by reference, at least one each.

    Raises:
        ValueError: all images show one reference.
    """
    order = generator.permutation(codes.max() + 1)
    if len(order) < 2:
        raise ValueError(
            "a task has one reference only, so support and query would share it: take the task out"
        )
    count = min(max(1, round(share * len(order))), len(order) - 1)
    chosen = np.isin(codes, order[:count])
    return generator.permutation(np.flatnonzero(chosen)), generator.permutation(
        np.flatnonzero(~chosen)
    )


def pieces(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Consecutive batches of the rows, the last of what is left."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def cycled(rows: NDArray[np.int64], size: int, batches: int) -> list[NDArray[np.int64]]:
    """Consecutive batches of the rows, again from the start where they end."""
    size = min(size, len(rows))
    return [np.take(rows, np.arange(k * size, (k + 1) * size), mode="wrap") for k in range(batches)]


def cut(
    image: UInt8[Tensor, "3 side side"], crop: int, generator: np.random.Generator
) -> UInt8[Tensor, "3 crop crop"]:
    """A random crop, mirrored with probability 1/2."""
    y, x = generator.integers(image.shape[-1] - crop + 1, size=2)
    shown = image[:, y : y + crop, x : x + crop]
    return shown.flip(-1) if generator.random() < 0.5 else shown
