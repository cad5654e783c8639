"""What the batches of a task are made of: its own images, those of other tasks, or what a memory
holds of them.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from iqa_lightning.datasets.samplers import EpochSampler, JoinedSampler, Key, SizeSampler
from iqa_lightning.datasets.split_dataset import SplitDataset
from iqa_lightning.seeds import seed_of
from iqa_lightning.stream.pairs import Draw, Pairs

IMAGES = ("task", "seen", "all", "replay_memory", "none")


class ReplayMemory:
    """At most `capacity` training images of the tasks learnt so far.

    A task whose training images all fit into what is free is kept whole. Otherwise every task keeps
    at most floor(capacity / t) images after task t: earlier tasks are trimmed at random, the new
    one is sampled at random, and a share that a small task leaves unused is not given to others.

    What is kept is a pure function of (`seed`, names and numbers of images of the tasks so far): a
    task keeps a prefix of a random order of its images, and trimming shortens the prefix. So
    nothing is stored, and a resumed run or another rank finds the same images; their pixels come
    from the cache of decoded images.

    `shares` says how many images of each earlier task a step replays, as a share of the batch, with
    one, two, and so on earlier tasks; the last holds for more. The paper's 32, 16 and 8 pairs
    beside 32 pairs are 1, 1/2 and 1/4.

    With `memory_per_task` each task keeps up to `capacity` images, whatever the others hold: what
    the official code of SH-CL-Replay does, whose shared head makes it count every task as the
    first.

    Source: specification of LwF-KG's replay baselines (https://github.com/zwx8981/BIQA_CL).

    Raises:
        ValueError: a capacity below 2, no share, or a share that is not positive.
    """

    def __init__(
        self,
        capacity: int = 1000,
        seed: int = 0,
        shares: Sequence[float] = (1.0, 0.5, 0.25),
        memory_per_task: bool = False,
    ) -> None:
        if capacity < 2:
            raise ValueError(
                f"method.replay_memory.capacity={capacity}: a memory needs at least 2 images, "
                "which make a pair"
            )
        if not shares or min(shares) <= 0:
            raise ValueError(
                f"method.replay_memory.shares={list(shares)}: give one positive share of the "
                "batch or more"
            )
        self.capacity, self.seed, self.shares = capacity, seed, tuple(shares)
        self.memory_per_task = memory_per_task

    def counts(self, sizes: Sequence[int]) -> list[int]:
        """Images kept of each task, after all the tasks whose numbers of training images are
        `sizes`.
        """
        if self.memory_per_task:
            return [min(size, self.capacity) for size in sizes]
        kept: list[int] = []
        for t, size in enumerate(sizes, start=1):
            fits = size <= self.capacity - sum(kept)
            kept = (
                [*kept, size]
                if fits
                else [min(count, self.capacity // t) for count in (*kept, size)]
            )
        return kept

    def order(self, task: str, size: int) -> NDArray[np.int64]:
        """`size` training images of a task, in the order in which the memory prefers them."""
        return np.random.default_rng(seed_of(self.seed, "memory", task)).permutation(size)

    def rows(self, sizes: Mapping[str, int]) -> list[NDArray[np.int64]]:
        """Positions, among its training images, of what is kept of each task after tasks of `sizes`
        images, by name.
        """
        counts = self.counts(list(sizes.values()))
        return [
            self.order(task, size)[:count]
            for (task, size), count in zip(sizes.items(), counts, strict=True)
        ]

    def share(self, earlier: int) -> float:
        """Images of each of `earlier` tasks that a step replays, as a share of the batch."""
        return self.shares[min(earlier, len(self.shares)) - 1]


@dataclass(frozen=True)
class TrainingImages:
    """Which training images a method learns from; tasks are numbered from 1.

    `images`: `task` (those of the current one), `seen` (of all tasks so far), `all` (of all tasks
    of the stream at once, in the place of the first task; the later ones then train nothing),
    `replay_memory` (of what the memory holds, the current task included), `none` (a task is learnt
    by its hooks alone: one batch that changes nothing stands for its epochs). With `task`, a memory
    rides along: in the phases that train all, each batch also brings images of every earlier task,
    as `batch["replay"]`.
    """

    images: str = "task"
    replay_memory: ReplayMemory | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        assert self.images in IMAGES, f"{self.images} is not one of {IMAGES}"
        assert self.replay_memory is not None or self.images != "replay_memory", (
            "there is no memory to learn from"
        )
        assert self.replay_memory is None or self.images in ("task", "replay_memory"), (
            f"with {self.images} a memory is of no use"
        )

    def learnt(self, t: int, count: int) -> range:
        """Tasks, of `count`, whose images make the batches of task t."""
        ranges = dict.fromkeys(("task", "none"), range(t, t + 1)) | {"all": range(1, count + 1)}
        return ranges.get(self.images, range(1, t + 1))

    def replayed(self, t: int) -> range:
        """Tasks of which images ride along in the batches of task t."""
        return range(1, t) if self.replay_memory is not None and self.images == "task" else range(0)

    def validated(self, t: int, count: int) -> range:
        """Tasks whose validation parts choose the best epoch: a memory holds none of theirs."""
        return range(t, t + 1) if self.images == "replay_memory" else self.learnt(t, count)

    def kept(self, t: int, sizes: Mapping[str, int]) -> list[NDArray[np.int64]]:
        """Training images of each task that must still be there once task t is learnt, by position;
        `sizes` of all, by name.
        """
        if self.replay_memory is not None:
            return self.replay_memory.rows(dict(islice(sizes.items(), t)))
        last = {"task": 0, "none": 0, "seen": t}.get(self.images, len(sizes))
        return [np.arange(size) for size in islice(sizes.values(), last)]

    def check(self, tasks: int) -> None:
        """Refuse a memory that cannot hold a pair of each task.

        Raises:
            ValueError: naming the capacity and the number of tasks.
        """
        memory = self.replay_memory
        if memory is not None and memory.capacity < 2 * (1 if memory.memory_per_task else tasks):
            raise ValueError(
                f"method.replay_memory.capacity={memory.capacity} is too little for "
                f"{tasks} tasks: a pair of each takes "
                f"{2 * tasks} images; raise it"
            )


class TaskImages(Dataset[dict[str, Any]]):
    """Training images of tasks (by number), the parts of their data sets (by name) one after
    another.

    An item also says its `task`, its `dataset_index` (number of the part) and, as `index`, its
    position among the images of its task.
    """

    def __init__(self, tasks: Mapping[int, Mapping[str, SplitDataset]]) -> None:
        self.names = [(t, name) for t, parts in tasks.items() for name in parts]
        self.parts = [part for parts in tasks.values() for part in parts.values()]
        self.ends = [0, *accumulate(len(part) for part in self.parts)]
        self.starts: dict[int, int] = {}
        for (t, _), start in zip(self.names, self.ends[:-1], strict=True):
            self.starts.setdefault(t, start)

    def __len__(self) -> int:
        """Number of images."""
        return self.ends[-1]

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """One image as the key says it is seen."""
        position, *view = key
        dataset_index = bisect_right(self.ends, position) - 1
        top, left, flip = view
        t = self.names[dataset_index][0]
        item = self.parts[dataset_index][(position - self.ends[dataset_index], top, left, flip)]
        return item | {
            "index": position - self.starts[t],
            "dataset_index": dataset_index,
            "task": t,
        }

    def positions(
        self, t: int, rows: NDArray[np.int64] | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """Positions of the images of task t by data set: of all of them, or of those at `rows` of
        the task.
        """
        found = {}
        for dataset_index, (task, name) in enumerate(self.names):
            if task == t:
                whole = np.arange(self.ends[dataset_index], self.ends[dataset_index + 1])
                found[name] = (
                    whole if rows is None else whole[np.isin(whole - self.starts[t], rows)]
                )
        return found


def draw_from(
    pool: Mapping[str, NDArray[np.int64]],
    pairs: Pairs,
    seed: int,
    batch_size: int,
    count: int | None = None,
) -> Draw:
    """The function that draws an epoch's batches out of a pool of positions by data set."""
    draw = pairs.draw([len(rows) for rows in pool.values()], list(pool), seed, batch_size, count)
    where = np.concatenate(list(pool.values()))
    return lambda generator: [where[batch] for batch in draw(generator)]


def replay(
    current: EpochSampler,
    pools: Mapping[str, Mapping[str, NDArray[np.int64]]],
    pairs: Pairs,
    seed: int,
    batch_size: int,
) -> JoinedSampler:
    """The batches of `current` with about `batch_size` images of each earlier task appended.

    Per earlier task there are (units of the current epoch) // (earlier tasks) pairs, one draw for
    the whole task, gone through pass after pass as long as there are batches of `current`. Pairs of
    a batch (`InBatchPairs`) go through the images of the memory in the same way and pair what comes
    together.

    Raises:
        ValueError: the memory of a task is too small to give a pair to each rank.
    """
    steps, ranks = len(current), current.world_size
    units = sum(len(batch) for batch in current.batches(np.random.default_rng(current.seed)))
    samplers = [current]
    for task, pool in pools.items():
        share = units // len(pools) // len(pool)
        draw = draw_from(pool, pairs, seed, max(batch_size, 2 * ranks), share)
        sampler = EpochSampler(
            cycled(draw, steps), seed_of(current.seed, "replay", task), current.rank, ranks
        )
        if len(sampler) < steps:
            held = sum(map(len, pool.values()))
            raise ValueError(
                f"the memory holds {held} images of task {task}, too few for a pair on each of "
                f"{ranks} devices: "
                "raise method.replay_memory.capacity"
            )
        samplers.append(sampler)
    return JoinedSampler(samplers)


def cycled(draw: Draw, steps: int) -> Draw:
    """`steps` batches of one size, from as many passes of `draw` as that takes; what is left over
    of a pass is dropped.

    None at all where a pass is empty.
    """

    def epoch(generator: np.random.Generator) -> list[NDArray[np.int64]]:
        batches: list[NDArray[np.int64]] = []
        while len(batches) < steps:
            one = draw(generator)
            if not one:
                return []
            batches += [batch for batch in one if len(batch) == max(map(len, one))]
        return batches[:steps]

    return epoch


class FixedCrops(Dataset[dict[str, Any]]):
    """Images of a task, each in `crops` views, which `seed` alone draws. Crop c is view c % crops
    of image c // crops.

    With the key c an item is crop c, and c its `index`. With a key of a training batch, which would
    choose among all views, its first number chooses among the crops of the image; the item says as
    `crop` which it is.
    """

    def __init__(self, images: TaskImages, crops: int, seed: int) -> None:
        self.images, self.crops = images, crops
        self.views = np.random.default_rng(seed).random((len(images), crops, 3))

    def __len__(self) -> int:
        """Number of crops."""
        return self.crops * len(self.images)

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """A crop."""
        if isinstance(key, int):
            return self.shown(*divmod(key, self.crops)) | {"index": key}
        position, chosen = key[0], int(key[1] * self.crops)
        return self.shown(position, chosen) | {"crop": position * self.crops + chosen}

    def shown(self, position: int, view: int) -> dict[str, Any]:
        """One image in one of its views."""
        top, left, flip = self.views[position, view].tolist()
        return self.images[position, top, left, flip]

    def loader(self, max_pixels: int, rank: int = 0, world_size: int = 1) -> DataLoader[Any]:
        """This rank's share of the crops, each once, in batches of at most `max_pixels`."""
        sizes = np.full((len(self), 2), self.images.parts[0].view.crop)
        return DataLoader(self, batch_sampler=SizeSampler(sizes, max_pixels, rank, world_size))
