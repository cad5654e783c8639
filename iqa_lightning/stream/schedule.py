"""The schedule of a walk: tasks, the phases of each, and where in the walk an epoch lies."""

from dataclasses import dataclass
from math import cos, pi


@dataclass(frozen=True)
class Phase:
    """A part of each task's training: warm-up (heads only) or fine-tuning (all that the method
    trains).

    `trains` is `heads`, `all`, `nothing` (a task that only passes by) or `generator` (what replays
    it later on, while the network stands still). `batch_size` counts images over all ranks. The
    learning rates are the optimiser's times `lr_factor`, over the epochs of the phase constant,
    along a half `cosine` to zero, `geometric` (each epoch `ratio` times the one before), or in the
    `triangle` waves of LIQE: down that cosine for five epochs and up again for four. With a
    `fixed_crops`, a phase of heads shows each image in so many fixed crops instead of a new one
    each time: methods then compute their features once (`data/bank.py`). `tasks` says which tasks
    have the phase: `all`, the `first` alone, or all `later` ones (the official code of SH-CL warms
    up once).
    """

    name: str
    epochs: int
    batch_size: int
    trains: str = "all"
    lr_factor: float = 1.0
    decay: str = "constant"
    fixed_crops: int | None = None
    tasks: str = "all"
    ratio: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot run."""
        for key, value, known in (
            ("trains", self.trains, ("heads", "all", "nothing", "generator")),
            ("decay", self.decay, ("constant", "cosine", "geometric", "triangle")),
            ("tasks", self.tasks, ("all", "first", "later")),
        ):
            if value not in known:
                raise ValueError(
                    f"schedule: phase {self.name!r} has {key}={value!r}: choose one of {known}"
                )
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"schedule: phase {self.name!r} needs at least 1 epoch and 2 images a batch, got "
                f"{self}"
            )
        if self.fixed_crops is not None and (self.fixed_crops < 1 or self.trains != "heads"):
            raise ValueError(
                f"schedule: phase {self.name!r} has fixed_crops, which takes trains='heads' and 1 "
                "crop or more"
            )

    def in_task(self, t: int) -> bool:
        """Whether task t (from 1) has the phase."""
        return self.tasks == "all" or (self.tasks == "first") == (t == 1)

    def lr_at(self, epoch: int) -> float:
        """Factor on the learning rates in epoch `epoch` (from 0) of the phase."""
        if self.decay == "constant":
            return self.lr_factor
        if self.decay == "geometric":
            return float(self.lr_factor * self.ratio**epoch)
        # the authors' loop takes one more step where the cosine reaches 0, so that epochs 4 and 5
        # are alike
        way = epoch / self.epochs if self.decay == "cosine" else min(epoch % 9, 9 - epoch % 9) / 5
        return self.lr_factor * 0.5 * (1 + cos(pi * way))


@dataclass(frozen=True)
class Task:
    """Task t (from 1) of a stream and the names of the data sets that it learns together."""

    t: int
    name: str
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Position:
    """Where in the walk an epoch lies. A pure function of the epoch, so there is nothing to store
    or to restore.
    """

    task: Task
    phase: Phase
    epoch: int  # of the phase, from 0
    full_epoch: int  # of the task's phases that train all, from 0; -1 in the warm-up
    starts_task: bool
    ends_task: bool

    @property
    def words(self) -> tuple[str, str, int]:
        """What `seed_of` takes of it: names of task and phase, epoch of the phase."""
        return self.task.name, self.phase.name, self.epoch
