"""The task stream: which data sets are learnt, in which order, in which phases."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.datasets.samplers import MAX_PIXELS, EpochSampler, Key, SizeSampler
from iqa_lightning.datasets.split_dataset import SplitDataset
from iqa_lightning.images.transforms import View
from iqa_lightning.kinds import check_arguments
from iqa_lightning.seeds import seed_of
from iqa_lightning.stream.folders import Folders, named_folders
from iqa_lightning.stream.orders import Order, checked_order, numbered
from iqa_lightning.stream.pairs import InBatchPairs, ListedPairs, PairCollate, Pairs
from iqa_lightning.stream.schedule import Phase, Position, Task
from iqa_lightning.stream.training_images import (
    FixedCrops,
    TaskImages,
    TrainingImages,
    cycled,
    draw_from,
    replay,
)


class TaskStream(pl.LightningDataModule):
    """The tasks in order, as one Lightning data module for one fit over all of them.

    `tasks` maps the name of a data set to what builds its data module (a partial of its class);
    `order` picks from it: a name is a task, a list of names is one joint task, null takes all as
    they stand, `reverse` and `random:<seed>` (`data/orders.py`) all in that order. A data set that
    comes again is a task of its own, called `<name>_2`. `split` (1 to 10) and `seed` fix all that
    is drawn. `splits`, `split_files`, `group_file` and `train_on_val` (see `IQADataModule`) hold
    for every data set that does not set its own. `max_pixels` bounds a batch of an evaluation (see
    `SizeSampler`); pictures of more than `max_megapixels` are refused.

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
        group_file: str | None = None,
        train_on_val: bool | None = None,
        seed: int = 0,
        cache: str = "auto",
        cache_dir: str | None = None,
        num_workers: int = 0,
        max_pixels: int = MAX_PIXELS,
        max_megapixels: float = 200,
    ) -> None:
        super().__init__()
        self.order = checked_order(list(tasks) if order is None else order, tasks)
        names, sources = numbered(self.order)
        self.tasks = [Task(t, "+".join(sets), sets) for t, sets in enumerate(names, start=1)]
        shown = {
            "split": split,
            "view": view or View(resize=0, crop=224),
            "cache": cache,
            "cache_dir": cache_dir,
            "max_megapixels": max_megapixels,
        }
        given = {
            "splits": splits,
            "split_files": split_files,
            "group_file": group_file,
            "train_on_val": train_on_val,
        }
        given = {key: value for key, value in given.items() if value is not None}
        # of a partial
        own = {name: getattr(tasks[name], "keywords", {}) for name in sources.values()}
        self.task_datasets = [
            "+".join(sources[name] for name in task.datasets) for task in self.tasks
        ]
        built = {name: tasks[name](**(given | own[name] | {"name": name} | shown)) for name in own}
        self.data = {name: built[source] for name, source in sources.items()}
        for t in range(1, min(len(self.tasks), 2) + 1):
            if not any(phase.in_task(t) for phase in phases):
                raise ValueError(
                    f"the schedule has no phase for task {t}: give one of tasks=all"
                    if phases
                    else "the schedule has no phase"
                )
        if brought := next((phase.name for phase in phases if phase.trains == "generator"), None):
            raise ValueError(
                f"schedule: phase {brought!r} has trains='generator': a method that needs it "
                "brings it itself"
            )
        self.phases, self.pairs = list(phases), pairs or InBatchPairs()
        self.split, self.seed = split, seed
        self.num_workers, self.max_pixels = num_workers, max_pixels
        self.serve(TrainingImages())

    def serve(self, training_images: TrainingImages, after: Sequence[Phase] = ()) -> None:
        """Make batches of what a method learns from; called before the walk begins.

        `after` are phases of the method's own, which follow the schedule in each task: also in the
        last, which it is only until the run is extended.

        Raises:
            ValueError: the method's memory is too small for the tasks.
        """
        training_images.check(len(self.tasks))
        self.training_images, self.after = training_images, list(after)
        self._walk = [
            (task, k, phase) for task in self.tasks for k, phase in enumerate(self.phases_of(task))
        ]
        self._ends = list(accumulate(phase.epochs for _, _, phase in self._walk))

    def phases_of(self, task: Task) -> list[Phase]:
        """The schedule; where no epoch teaches anything (the first task has learnt all there is, or
        hooks alone learn), a task passes by: one batch, no change.
        """
        images = self.training_images.images
        if images != "none" and (images != "all" or task.t == 1):
            own = [phase for phase in self.phases if phase.in_task(task.t)]
            return own + self.after
        return [
            replace(
                self.phases[-1],
                name="keep",
                epochs=1,
                trains="nothing",
                lr_factor=0.0,
                fixed_crops=None,
                tasks="all",
            )
        ]

    @property
    def datasets(self) -> list[str]:
        """Names of all data sets, in stream order: the columns of the matrices."""
        return list(self.data)

    @property
    def task_of_dataset(self) -> dict[str, int]:
        """The task t that learns each data set."""
        return {name: task.t for task in self.tasks for name in task.datasets}

    @property
    def synthetic(self) -> bool:
        """Whether any target is computed rather than given by people."""
        return any(data.synthetic for data in self.data.values())

    @property
    def split_hash(self) -> str:
        """16 hex digits that change with any image of any part; the same for every order of the
        same sets.
        """
        known = sorted({f"{data.name}:{data.split_hash}" for data in self.data.values()})
        return hashlib.sha256("\n".join(known).encode()).hexdigest()[:16]

    @property
    def num_epochs(self) -> int:
        """Epochs of the whole walk."""
        return self._ends[-1]

    def at(self, epoch: int) -> Position:
        """Where epoch `epoch` (from 0) lies."""
        index = bisect_right(self._ends, epoch)
        task, k, phase = self._walk[index]
        phases = self.phases_of(task)
        within = epoch - (self._ends[index] - phase.epochs)
        full = (
            within + sum(p.epochs for p in phases[:k] if p.trains == "all")
            if phase.trains == "all"
            else -1
        )
        last = k == len(phases) - 1 and within == phase.epochs - 1
        return Position(task, phase, within, full, k == 0 and within == 0, last)

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
        """Read tables, splits and images of every data set; all that can be wrong with them is
        reported here.
        """
        for data in self.data.values():
            data.setup(stage)

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the current epoch, whose order is fixed here: loader workers fetch ahead
        before any other hook.

        So they do not outlive it. Starting two takes 0.2 s, and decoded images need none
        (`benchmarks/loader.py`).
        """
        trainer = self._trainer
        epoch = min(trainer.current_epoch, self.num_epochs - 1)
        position = self.at(epoch)
        images, sampler, own = self._training(position)
        return DataLoader(
            images
            if (bank := position.phase.fixed_crops) is None
            else FixedCrops(images, bank, seed_of(self.seed, "crops", *position.words[:2])),
            batch_sampler=sampler,
            collate_fn=PairCollate(self.pairs, own),
            num_workers=self.num_workers,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )

    def _training(self, position: Position) -> tuple[TaskImages, Sampler[list[Key]], int]:
        """Images that an epoch may show, its batches, and how many of the data sets are not of the
        replay memory.
        """
        t, phase, trainer = position.task.t, position.phase, self._trainer
        learnt = self.training_images.learnt(t, len(self.tasks))
        replayed = self.training_images.replayed(t) if phase.trains == "all" else range(0)
        images = TaskImages({k: self._parts(k, "train") for k in (*learnt, *replayed)})
        if isinstance(self.pairs, ListedPairs):
            self._find_listed(self.pairs, images, len(learnt))
        memory = self.training_images.replay_memory
        sizes = {
            task.name: sum(map(len, self._parts(task.t, "train").values()))
            for task in self.tasks[:t]
        }
        rows = (
            dict(enumerate(memory.rows(sizes), start=1))
            if memory and self.training_images.images == "replay_memory"
            else {}
        )
        pool = {
            name: found for k in learnt for name, found in images.positions(k, rows.get(k)).items()
        }
        draw = draw_from(pool, self.pairs, self.seed, phase.batch_size)
        if phase.trains == "nothing":
            draw = cycled(draw, 1)
        seed = seed_of(self.seed, "batches", *position.words)
        sampler = EpochSampler(draw, seed, trainer.global_rank, trainer.world_size)
        if not memory or not replayed:
            return images, sampler, len(pool)
        earlier = {task.name: sizes[task.name] for task in self.tasks[: t - 1]}
        pools = {
            name: images.positions(k, found)
            for k, (name, found) in enumerate(
                zip(earlier, memory.rows(earlier), strict=True), start=1
            )
        }
        batch_size = round(memory.share(len(replayed)) * phase.batch_size)
        return images, replay(sampler, pools, self.pairs, self.seed, batch_size), len(pool)

    def _find_listed(self, pairs: ListedPairs, images: TaskImages, learnt: int) -> None:
        """Let listed pairs look up the images of the first `learnt` tasks of `images`, the others
        being replayed.
        """
        if self.training_images.images == "replay_memory":
            raise ValueError(
                "pairs=files lists pairs of all training images, and this method learns from those "
                "in a memory alone: draw pairs with pairs=paper or pairs=in_batch"
            )
        tasks = list(images.starts)[:learnt]
        parts = [k for k, (t, _) in enumerate(images.names) if t in tasks]
        pairs.find(
            [images.parts[k].images for k in parts],
            [self.data[images.names[k][1]].name for k in parts],
            [images.ends[k] - images.starts[images.names[k][0]] for k in parts],
        )

    def _parts(self, t: int, part: str) -> dict[str, SplitDataset]:
        """A part of each data set of task t."""
        return {name: self.data[name].part(part) for name in self.tasks[t - 1].datasets}

    def validation_sets(self, task: Task) -> list[str]:
        """Data sets whose validation parts choose the best epoch of a task."""
        return [
            name
            for t in self.training_images.validated(task.t, len(self.tasks))
            for name in self.tasks[t - 1].datasets
        ]

    def kept_bytes(self, t: int) -> int:
        """Bytes of the pixels of training images that the method must still have once task t is
        learnt.
        """
        numbers = range(1, len(self.tasks) + 1)
        nbytes = [
            np.concatenate([part.nbytes for part in self._parts(k, "train").values()])
            for k in numbers
        ]
        sizes = {task.name: len(images) for task, images in zip(self.tasks, nbytes, strict=True)}
        kept = self.training_images.kept(t, sizes)
        return sum(int(images[rows].sum()) for images, rows in zip(nbytes, kept, strict=False))

    def evaluation_dataloader(self, name: str, part: str) -> DataLoader[Any]:
        """This rank's share of a part of data set `name`, each image once, as it is evaluated."""
        trainer, images = self._trainer, self.data[name].part(part)
        sampler = SizeSampler(
            images.sizes, self.max_pixels, trainer.global_rank, trainer.world_size
        )
        return DataLoader(
            images, batch_sampler=sampler, num_workers=self.num_workers, generator=torch.Generator()
        )


def folder_stream(folders: Folders, **options: Any) -> TaskStream:
    """A stream of a user's own folders, each with a `ratings.csv` and the images it names.

    Args:
        folders: a list of folders, which are called by their names, or names with a folder each;
            `{root: <folder>, higher_is_better: false}` in the place of a folder says more of it
            (see `CSVData`).
        options: see `TaskStream`.

    Raises:
        ValueError: no folder, or one that is given twice.
    """
    places = named_folders(folders)
    for name, place in places.items():
        check_arguments(CSVData, place, f"stream.folders.{name}")
    return TaskStream(
        {name: partial(CSVData, **place) for name, place in places.items()}, **options
    )
