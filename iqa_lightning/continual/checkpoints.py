"""Starting again: the best weights of a task, the next one's optimiser, checkpoints that are never
half-written.
"""

import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor


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
    good one.

    Lightning's own writer moves a file from the system's temporary folder, which is a copy when
    that is another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:  # Lightning's signature
        """Write, flush to disk, rename."""
        save_atomic(checkpoint, Path(path))


def save_atomic(content: dict[str, Any], path: Path) -> None:
    """`torch.save` to a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> None:
    """Reseed Python, NumPy and PyTorch, so that a resumed epoch draws what the interrupted one
    drew.
    """
    state = np.random.SeedSequence((seed, epoch, rank)).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))  # noqa: NPY002  # third-party code draws from the global state
    torch.manual_seed(int(state[2]))
