"""Starting again: the best weights of a task, the next one's optimiser, checkpoints that are never
half-written.
"""

import json
import math
import random
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from iqa_lightning.files import verify, write_bytes, write_sealed
from iqa_lightning.predictions import read_predictions
from iqa_lightning.records import RunFolder
from iqa_lightning.seeds import seed_of
from iqa_lightning.stream.stream import TaskStream


class BestWeights:
    """The weights of the current task's epoch with the best validation SRCC; the first of equals.

    Kept whole, in memory and in the checkpoint: a run that is resumed in the middle of a task must
    be able to go back.
    """

    def __init__(self) -> None:
        self.srcc = -math.inf
        self.weights: dict[str, Tensor] | None = None

    def offer(self, srcc: float, method: pl.LightningModule) -> None:
        """Keep the weights if they are better. An SRCC that does not exist (constant scores) is
        worse than any.
        """
        value = -math.inf if math.isnan(srcc) else srcc
        if self.weights is None or value > self.srcc:
            self.srcc = value
            self.keep(method)

    def keep(self, method: pl.LightningModule) -> None:
        """Keep the weights as they are."""
        self.weights = {
            key: tensor.detach().cpu().clone() for key, tensor in method.state_dict().items()
        }

    def restore(self, method: pl.LightningModule) -> None:
        """Put the best weights back."""
        assert self.weights is not None, "no epoch has been offered"
        method.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint."""
        return {"srcc": self.srcc, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.srcc, self.weights = state["srcc"], state["weights"]


def restart_optimizers(trainer: pl.Trainer) -> None:
    """Replace the optimisers by fresh ones for the parameters of the new task."""
    trainer.strategy.setup_optimizers(trainer)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints written beside their place and renamed into it, so that a kill leaves the last
    good one; their checksums are compared when they are read.

    Lightning's own writer moves a file from the system's temporary folder, which is a copy when
    that is another disk. The weights of a finished task (`tasks/<t>_<task>.ckpt`) are read as the
    checkpoint of the epoch that ended it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:  # Lightning's signature
        """Write, flush to disk, rename."""
        save_atomic(checkpoint, Path(path), Path(path).parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:  # Lightning's signature
        """Compare with its checksum, then read.

        Raises:
            ValueError: It is damaged.
        """
        path = Path(path)
        if path.parent.name == TASKS:
            return task_checkpoint(path)
        return read_checkpoint(path, path.parent)


TASKS, LATEST, RESTART = "tasks", "latest", "restart.json"
"""Folders of the weights that a task is scored with, and of those that the next goes on from where
these are others; what else it takes to go on.
"""


@torch.no_grad()
def walk_on(method: pl.LightningModule, weights: Mapping[str, Tensor]) -> None:
    """Put some weights back, by name; the others stay."""
    named = dict(method.named_parameters()) | dict(method.named_buffers())
    for key, value in weights.items():
        named[key].copy_(value)


def save_atomic(content: dict[str, Any], path: Path, root: Path | None = None) -> None:
    """`torch.save` below the run folder `root` (default: beside the file), whole or not at all,
    with its checksum.

    Raises:
        OSError: the disk is full or gone, naming the file.
    """

    def write(file: BinaryIO) -> None:
        writer = Writer(file)
        try:
            torch.save(content, writer)  # type: ignore[arg-type]  # all that it asks of a file
        except RuntimeError as error:  # what torch makes of a write that failed
            raise (writer.failed or error) from error

    write_sealed(root or path.parent, path, write)


class Writer:
    """A file that remembers why a write failed; torch says only that it did."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.failed: OSError | None = None

    def write(self, content: Any) -> int:
        """Write, and keep the error."""
        try:
            return self.file.write(content)
        except OSError as error:
            self.failed = error
            raise

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()


def read_checkpoint(path: Path, root: Path) -> dict[str, Any]:
    """A checkpoint below the run folder `root`.

    Raises:
        ValueError: It is missing, damaged, or of something else.
    """
    try:
        verify(root, path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except Exception as error:  # torch raises of each kind for a file that it cannot read
        raise ValueError(f"{path} cannot be read ({reason(error)})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no checkpoint")
    return content


def reason(error: Exception) -> str:
    """Why a file cannot be read, shortly."""
    if isinstance(error, ValueError):
        return "it is not what was written"
    return " ".join(str(error).split())[:80] or type(error).__name__


def note_restart(folder: Path, t: int, trainer: pl.Trainer, state: dict[str, Any]) -> None:
    """Note what it takes, besides the weights of task t, to go on from its end.

    The next task begins with an optimiser of its own, so this is where in the walk that is, and the
    state of the walk.
    """
    known = read_restart(folder)
    known[str(t)] = {
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "loops": {"fit_loop": trainer.fit_loop.state_dict()},
        "state": state,
    }
    write_bytes(folder / RESTART, f"{json.dumps(known, indent=1)}\n".encode())


def read_restart(folder: Path) -> dict[str, Any]:
    """What was noted by task; empty where nothing (readable) was."""
    try:
        return dict(json.loads((folder / RESTART).read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def task_checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint of the epoch that ended a task, made of its weights and what was noted.

    Raises:
        ValueError: One of them is missing or damaged.
    """
    folder = path.parent.parent
    latest = folder / LATEST / path.name
    weights = read_checkpoint(latest if latest.is_file() else path, folder)
    noted = read_restart(folder)
    t = path.name.split("_")[0]
    if t not in noted:
        raise ValueError(f"{folder / RESTART} does not know task {t}")
    return {
        **{key: noted[t][key] for key in ("epoch", "global_step", "loops")},
        "pytorch-lightning_version": version("pytorch-lightning"),
        "state_dict": weights,
        "callbacks": {"ContinualLearning": noted[t]["state"]},
        "optimizer_states": [],
        "lr_schedulers": [],
    }


def find_restart(
    records: RunFolder, stream: TaskStream, keys: Collection[str]
) -> tuple[Path | None, str]:
    """Where a walk goes on, and what to say about it.

    That is `last.ckpt`; where it is damaged or not of this method, the end of the last finished
    task that is whole; else the start.

    Args:
        records: of the run.
        stream: with the phases that the method brings.
        keys: names of the method's weights.

    Raises:
        ValueError: `last.ckpt` is whole and a record or the weights of a task before it are not.
    """
    last, names = records.path / "last.ckpt", [task.name for task in stream.tasks]
    if not last.exists() and not records.begun:
        return None, ""
    try:
        content = read_checkpoint(last, records.path)
        if content.get("state_dict", {}).keys() != set(keys):
            raise ValueError(f"{last} is not of this run")
        position = stream.at(int(content["epoch"]))
    except (ValueError, KeyError, IndexError) as error:
        return fall_back(records, names, " ".join(str(error).split()))
    done = position.task.t if position.ends_task else position.task.t - 1
    for t in range(done + 1):
        if broken := damage(records, t, names):
            raise ValueError(
                f"{broken}: bring back a copy, or delete {last}: the same command then goes on "
                f"from {place(whole_tasks(records, names))}"
            )
    return last, ""


def fall_back(records: RunFolder, names: Sequence[str], why: str) -> tuple[Path | None, str]:
    """The end of the last finished task that is whole; records of later ones go, since they are
    made again.
    """
    t = whole_tasks(records, names)
    for later in range(t + 1, len(names) + 1):
        kept = (f"{folder}/{later}_*.ckpt" for folder in (TASKS, LATEST))
        for pattern in (f"predictions/after_{later}_*.parquet", *kept):
            for path in records.path.glob(pattern):
                path.unlink(missing_ok=True)
    weights = records.path / TASKS / f"{t}_{names[t - 1]}.ckpt"
    return weights if t else None, f"{why}; going on from {place(t)}"


def place(t: int) -> str:
    """The end of a task in words."""
    return f"the end of task {t}" if t else "the start"


def whole_tasks(records: RunFolder, names: Sequence[str]) -> int:
    """How many tasks from the first have whole records and weights to go on from."""
    known = read_restart(records.path)
    for t in range(len(names) + 1):
        if damage(records, t, names) or (t and str(t) not in known):
            return max(t - 1, 0)
    return len(names)


def damage(records: RunFolder, t: int, names: Sequence[str]) -> str:
    """What is wrong with the predictions or weights of task t (0: before training); nothing if all
    is well.
    """
    name = names[t - 1] if t else "start"
    paths = [records.path / "predictions" / f"after_{t}_{name}.parquet"]
    paths += [records.path / TASKS / f"{t}_{name}.ckpt"] if t else []
    for path in paths:
        if not path.is_file():
            return f"{path} is missing"
        try:
            verify(records.path, path)
            if path.suffix == ".parquet":
                read_predictions(path)
        except ValueError as error:
            return str(error).split(": bring back")[0]
    return ""


def seed_epoch(seed: int, words: tuple[str, str, int], rank: int = 0) -> None:
    """Reseed Python, NumPy and PyTorch, so that a resumed epoch draws what the interrupted one
    drew.

    Args:
        seed: of the run.
        words: task, phase and epoch, as `seed_of` takes them.
        rank: of this process.
    """
    state = np.random.SeedSequence(seed_of(seed, "steps", *words, rank)).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))  # noqa: NPY002  # third-party code draws from the global state
    torch.manual_seed(int(state[2]))
