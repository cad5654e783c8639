"""The task stream: which data sets are learnt, in which order, in which phases."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from math import cos, pi
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from iqa_lightning.data.base import IQADataModule, Part
from iqa_lightning.data.csv import CSVData
from iqa_lightning.data.orders import named_order
from iqa_lightning.data.pairs import InBatchPairs, ListedPairs, PairCollate, Pairs
from iqa_lightning.data.samplers import EpochSampler, Key, SizeSampler
from iqa_lightning.data.transforms import View

Order = str | Sequence[str | Sequence[str]]


@dataclass(frozen=True)
class Phase:
    """A part of each task's training: warm-up (heads only) or fine-tuning (all that the method trains).

    `batch_size` counts images over all ranks. The learning rates are the optimiser's times `lr_factor`, over the epochs
    of the phase constant or along a half `cosine` to zero.
    """

    name: str
    epochs: int
    batch_size: int
    trains: str = "all"
    lr_factor: float = 1.0
    decay: str = "constant"

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        for key, value, known in (
            ("trains", self.trains, ("heads", "all")),
            ("decay", self.decay, ("constant", "cosine")),
        ):
            if value not in known:
                raise ValueError(f"schedule: phase {self.name!r} has {key}={value!r}: choose one of {known}")
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(f"schedule: phase {self.name!r} needs at least 1 epoch and 2 images a batch, got {self}")

    def lr_at(self, epoch: int) -> float:
        """Factor on the learning rates in epoch `epoch` (from 0) of the phase."""
        return self.lr_factor * (0.5 * (1 + cos(pi * epoch / self.epochs)) if self.decay == "cosine" else 1.0)


@dataclass(frozen=True)
class Task:
    """Task t (from 1) of a stream and the names of the data sets that it learns together."""

    t: int
    name: str
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Position:
    """Where in the walk an epoch lies. A pure function of the epoch, so there is nothing to store or to restore."""

    task: Task
    phase: Phase
    epoch: int  # of the phase, from 0
    full_epoch: int  # of the task's phases that train all, from 0; -1 in the warm-up
    starts_task: bool
    ends_task: bool


class TaskStream(pl.LightningDataModule):
    """The tasks in order, as one Lightning data module for one fit over all of them.

    `tasks` maps the name of a data set to what builds its data module (a partial of its class); `order` picks from it:
    a name is a task, a list of names is one joint task, null takes all as they stand, `reverse` and `random:<seed>`
    (`data/orders.py`) all in that order. A data set that comes again is a task of its own, called `<name>_2`. `split`
    (1 to 10) and `seed` fix all that is drawn. `splits` and `split_files` (see `IQADataModule`) hold for every data set
    that does not set its own.

    Raises:
        ValueError: an order that names what `tasks` does not hold, an empty order or schedule.
    """

    def __init__(
        self,
        tasks: Mapping[str, Callable[..., IQADataModule]],
        phases: Sequence[Phase],
        order: Order | None = None,
        pairs: Pairs | None = None,
        view: View | None = None,
        split: int = 1,
        splits: str | None = None,
        split_files: str | None = None,
        seed: int = 0,
        cache: str = "auto",
        cache_dir: str | None = None,
        num_workers: int = 0,
        max_pixels: int = 16 * 224 * 224,
    ) -> None:
        super().__init__()
        self.order = checked_order(list(tasks) if order is None else order, tasks)
        self.tasks, sources = number_tasks(self.order)
        shown = {"split": split, "view": view or View(resize=0, crop=224), "cache": cache, "cache_dir": cache_dir}
        given = {key: value for key, value in (("splits", splits), ("split_files", split_files)) if value is not None}
        own = {name: getattr(tasks[name], "keywords", {}) for name in sources.values()}  # of a partial
        built = {name: tasks[name](**(given | own[name] | {"name": name} | shown)) for name in own}
        self.data = {name: built[source] for name, source in sources.items()}
        if not phases:
            raise ValueError("the schedule has no phase")
        self.phases, self.pairs = list(phases), pairs or InBatchPairs()
        self.split, self.seed = split, seed
        self.num_workers, self.max_pixels = num_workers, max_pixels

    @property
    def datasets(self) -> list[str]:
        """Names of all data sets, in stream order: the columns of the matrices."""
        return list(self.data)

    @property
    def owner(self) -> dict[str, int]:
        """The task t that learns each data set."""
        return {name: task.t for task in self.tasks for name in task.datasets}

    @property
    def synthetic(self) -> bool:
        """Whether any target is computed rather than given by people."""
        return any(data.synthetic for data in self.data.values())

    @property
    def split_hash(self) -> str:
        """16 hex digits that change with any image of any part; the same for every order of the same sets."""
        known = sorted({f"{data.name}:{data.split_hash}" for data in self.data.values()})
        return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(phase.epochs for _ in self.tasks for phase in self.phases))

    @property
    def num_epochs(self) -> int:
        """Epochs of the whole walk."""
        return self._ends[-1]

    def at(self, epoch: int) -> Position:
        """Where epoch `epoch` (from 0) lies."""
        index = bisect_right(self._ends, epoch)
        t, k = divmod(index, len(self.phases))
        phase = self.phases[k]
        within = epoch - (self._ends[index] - phase.epochs)
        full = within + sum(p.epochs for p in self.phases[:k] if p.trains == "all") if phase.trains == "all" else -1
        last = k == len(self.phases) - 1 and within == phase.epochs - 1
        return Position(self.tasks[t], phase, within, full, k == 0 and within == 0, last)

    @property
    def position(self) -> Position:
        """Where the trainer is now."""
        return self.at(self._trainer.current_epoch)

    @property
    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None, "the stream is not attached to a trainer"
        return self.trainer

    def prepare_data(self) -> None:
        """Check that every data set is there."""
        for data in self.data.values():
            data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Read tables, splits and images of every data set; all that can be wrong with them is reported here."""
        for data in self.data.values():
            data.setup(stage)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the current epoch, whose order is fixed here: loader workers fetch ahead before any other hook."""
        trainer = self._trainer
        epoch = min(trainer.current_epoch, self.num_epochs - 1)
        position = self.at(epoch)
        images = TaskImages([self.data[name].part("train") for name in position.task.datasets])
        if isinstance(self.pairs, ListedPairs):
            given = [self.data[name].name for name in position.task.datasets]
            self.pairs.find([part.images for part in images.parts], given)
        draw = self.pairs.draw(images.sizes, position.task.datasets, self.seed, position.phase.batch_size)
        sampler = EpochSampler(draw, (self.seed, epoch), trainer.global_rank, trainer.world_size)
        return DataLoader(
            images,
            batch_sampler=sampler,
            collate_fn=PairCollate(self.pairs),
            num_workers=self.num_workers,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )

    def evaluation_dataloader(self, name: str, part: str) -> DataLoader[Any]:
        """This rank's share of a part of data set `name`, every image once, in the evaluation view."""
        trainer, images = self._trainer, self.data[name].part(part)
        sampler = SizeSampler(images.sizes, self.max_pixels, trainer.global_rank, trainer.world_size)
        return DataLoader(images, batch_sampler=sampler, num_workers=self.num_workers, generator=torch.Generator())


class TaskImages(Dataset[dict[str, Any]]):
    """Training images of a task: the parts of its data sets one after another, each item with its `source`."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts, self.sizes = parts, [len(part) for part in parts]
        self.ends = list(accumulate(self.sizes))

    def __len__(self) -> int:
        """Number of images."""
        return self.ends[-1]

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """One image as the key says it is seen."""
        index, *view = key
        source = bisect_right(self.ends, index)
        start = self.ends[source] - self.sizes[source]
        top, left, flip = view
        return self.parts[source][(index - start, top, left, flip)] | {"index": index, "source": source}


def checked_order(order: Order, tasks: Mapping[str, Any]) -> list[str | list[str]]:
    """The order as plain lists, or an error that names what is wrong in it."""
    order = named_order(order, list(tasks)) if isinstance(order, str) else order
    plain: list[Any] = [list(item) if isinstance(item, list | tuple) else item for item in order]
    names = [name for item in plain for name in (item if isinstance(item, list) else [item])]
    unknown = [name for name in names if not isinstance(name, str) or name not in tasks]
    if unknown:
        raise ValueError(f"stream.order names {unknown[0]!r}, which is not in the stream: choose from {list(tasks)}")
    if not names or [] in plain:
        raise ValueError(f"stream.order={plain} holds no data set: choose from {list(tasks)}")
    for item in plain:
        if not isinstance(item, str) and len(set(item)) < len(item):
            raise ValueError(f"stream.order: the joint task {item} names a data set twice")
    return plain


def number_tasks(order: list[str | list[str]]) -> tuple[list[Task], dict[str, str]]:
    """Tasks with unique names, and for each of their data-set names the data set behind it."""
    tasks: list[Task] = []
    sources: dict[str, str] = {}
    given = {name for item in order for name in ([item] if isinstance(item, str) else item)}
    for t, item in enumerate(order, start=1):
        names = []
        for source in [item] if isinstance(item, str) else item:
            candidates = (source, *(f"{source}_{again}" for again in range(2, 3 + len(given) + len(sources))))
            names.append(next(name for name in candidates if name not in sources and name not in given - {source}))
            sources[names[-1]] = source
        tasks.append(Task(t, "+".join(names), tuple(names)))
    return tasks, sources


def folder_stream(folders: Sequence[str], **options: Any) -> TaskStream:
    """A stream of a user's own folders, each with a `ratings.csv` and the images it names; tasks are named after them.

    Raises:
        ValueError: no folder, or two folders of the same name.
    """
    if not folders:
        raise ValueError("stream.folders is empty: give a list, as in 'stream.folders=[photos/a,photos/b]'")
    names = [CSVData(folder).name for folder in folders]
    if len(set(names)) < len(names):
        raise ValueError(f"stream.folders: two folders are called the same: {names}; rename one")

    tasks = {name: partial(CSVData, folder) for name, folder in zip(names, folders, strict=True)}
    return TaskStream(tasks, **options)
