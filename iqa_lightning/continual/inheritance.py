"""What an extended run takes over from its parent, a finished run: weights and scores of each task.

The weights of a task of the parent, with what more tasks need as it starts, are what the longer run
would have had at that point; the scores of its data sets are those of the longer run already. Only
the new data sets are scored anew.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from iqa_lightning.continual.checkpoints import (
    RESTART,
    TASKS,
    damage,
    fall_back,
    read_checkpoint,
    read_restart,
    save_atomic,
    whole_tasks,
)
from iqa_lightning.files import write_bytes
from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.predictions import IDENTITY, OPTIONAL, read_predictions
from iqa_lightning.records import RunFolder
from iqa_lightning.stream.stream import TaskStream

State = dict[str, Tensor]

OF_IMAGES = (*IDENTITY, *OPTIONAL, "mos_std")
"""Columns of predictions that say what an image is, not what was predicted of it."""


class Inheritance:
    """The tasks of a parent in the folder of the run that extends it. The parent is only read.

    Args:
        parent: records of the finished run.
        tasks: names of its tasks, in order.
        records: of the extended run.
    """

    def __init__(self, parent: RunFolder, tasks: Sequence[str], records: RunFolder) -> None:
        self.parent, self.tasks, self.records = parent, list(tasks), records
        self.start: State = {}

    def check(self, stream: TaskStream) -> None:
        """Refuse a parent that cannot be gone on from.

        Raises:
            ValueError: a file of it is missing or damaged, or its tasks lie elsewhere in the walk.
        """
        noted = read_restart(self.parent.path)
        for t in range(len(self.tasks) + 1):
            if broken := damage(self.parent, t, self.tasks):
                raise ValueError(f"{broken}: without it the run cannot be extended")
            if t and str(t) not in noted:
                raise ValueError(
                    f"{self.parent.path / RESTART} does not know task {t}: without it the run "
                    "cannot be extended"
                )
        last = len(self.tasks)
        position = stream.at(int(noted[str(last)]["epoch"]))
        if not position.ends_task or position.task.t != last:
            raise ValueError(
                f"{self.parent.path} ends its task {last} elsewhere than this version does: train "
                "the longer stream anew"
            )

    def take_over(
        self, method: ContinualMethod, stream: TaskStream, write: bool = True
    ) -> Path | None:
        """Put the weights of the parent's tasks into the folder, and where the walk goes on from.

        Args:
            method: of the extended run, as it starts.
            stream: of the extended run.
            write: whether this is the process that writes.

        Returns:
            The weights of the parent's last task; none where the run itself is beyond them.

        Raises:
            ValueError: weights that do not fit the method.
        """
        start = method.state_dict()
        self.start = {name: tensor.detach().cpu().clone() for name, tensor in start.items()}
        names = self.tasks
        if (self.records.path / "last.ckpt").exists():
            return None
        if self.records.begun and whole_tasks(self.records, names) == len(names):
            return None
        if not write:
            return self.file(len(names))
        fall_back(self.records, [task.name for task in stream.tasks], "")
        for t in range(1, len(names) + 1):
            # from the method itself, so that the file too is that of the longer run
            method.load_state_dict(grown(self.weights_of(self.parent, t), self.start))
            save_atomic(method.state_dict(), self.file(t), self.records.path)
        noted = read_restart(self.parent.path)
        kept = {str(t): noted[str(t)] for t in range(1, len(names) + 1)}
        write_bytes(self.records.path / RESTART, f"{json.dumps(kept, indent=1)}\n".encode())
        return self.file(len(names))

    def file(self, t: int) -> Path:
        """Where the extended run keeps the weights of task t."""
        return self.records.path / TASKS / f"{t}_{self.tasks[t - 1]}.ckpt"

    def weights_of(self, records: RunFolder, t: int) -> State:
        """Weights of task t in a folder."""
        path = records.path / TASKS / f"{t}_{self.tasks[t - 1]}.ckpt"
        return read_checkpoint(path, records.path)

    def missing(self) -> list[int]:
        """The tasks, 0 for the start, after which the new data sets are still to be scored."""
        return [
            t for t in range(len(self.tasks) + 1) if not self.predictions(self.records, t).is_file()
        ]

    def state(self, t: int) -> State:
        """Weights after task t, 0 for the start."""
        return self.weights_of(self.records, t) if t else self.start

    def name(self, t: int) -> str:
        """Name of task t as records have it."""
        return self.tasks[t - 1] if t else "start"

    def predictions(self, records: RunFolder, t: int) -> Path:
        """The file of predictions after task t in a folder."""
        return records.path / "predictions" / f"after_{t}_{self.name(t)}.parquet"

    def scores(self, t: int) -> dict[tuple[str, str], dict[str, Any]]:
        """What the parent predicted after task t: columns by data set and part."""
        frame = read_predictions(self.predictions(self.parent, t))
        return {
            (str(name), str(part)): {
                str(column): rows[column].to_numpy() for column in rows if column not in OF_IMAGES
            }
            for (name, part), rows in frame.groupby(["dataset", "split"], sort=False)
        }


def grown(weights: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> State:
    """Weights of a model for fewer tasks in one for more: what is added is as it starts.

    Raises:
        ValueError: they are of another model.
    """
    found = {name: tensor.clone() for name, tensor in start.items()}
    for name, tensor in weights.items():
        own = found.get(name)
        if (
            own is None
            or own.ndim != tensor.ndim
            or any(few > many for few, many in zip(tensor.shape, own.shape, strict=True))
        ):
            raise ValueError(
                f"the parent's weights do not fit this method: {name} is {tuple(tensor.shape)} "
                f"there and {'not there' if own is None else tuple(own.shape)} here"
            )
        own[tuple(map(slice, tensor.shape))] = tensor
    return found
