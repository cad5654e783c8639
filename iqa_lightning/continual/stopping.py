"""Leaving a training: at a signal, at a loss that is no number, when another rank has gone.

Ranks agree: each notes what happened to it, and all leave at the same step. Lightning's own way (a
broadcast inside a signal handler) hangs where several ranks are signalled at once.
"""

import math
import os
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from iqa_lightning import signals

EVERY = 4
"""Steps between two agreements of ranks; each is one small reduction."""


Result = TypeVar("Result")


Where = Callable[[pl.Trainer], str]
"""Where in the training a trainer is, in words."""


class LossError(ValueError):
    """The loss is NaN or infinite: what follows would not be a training."""


class Stopping(Callback):
    """Leaves the training where it was asked to, or where it makes no sense any longer.

    Args:
        where: where a training is, as in `in task 2 of 4`.
        kept: the file that the same command goes on from.
    """

    def __init__(self, where: Where, kept: str) -> None:
        self.where, self.kept = where, kept
        self.lost = ""
        self.watch: Watch | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        signals.move_to(signals.NOTE)
        # Lightning would now put handlers of its own in place, with a broadcast inside
        connector: Any = trainer._signal_connector
        connector.register_signal_handlers = signals.take_over
        if trainer.world_size > 1:
            self.watch = Watch(trainer)
            self.watch.start()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signals.take_over()

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor) and not math.isfinite(value := float(loss.detach().mean())):
            rates = [
                group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups
            ]
            self.lost = self.lost or (
                f"{self.where(trainer)}, step {batch_idx + 1}: the loss is {value} at a learning "
                f"rate of {max(rates, default=0):g}; the last good checkpoint, if there is one, is "
                f"{self.kept}; try a smaller rate (it gets a folder of its own)"
            )
        if trainer.world_size == 1 or batch_idx % EVERY == EVERY - 1:
            self.agree(trainer)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.agree(trainer)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.lost or trainer.world_size > 1:  # before a checkpoint of it is written
            self.agree(trainer)

    def agree(self, trainer: pl.Trainer) -> None:
        """Leave if any rank has a reason to.

        Raises:
            LossError: the loss of one was no number.
            Interrupted: one was told to end.
        """
        reason = torch.tensor([float(bool(self.lost)), float(signals.received() or 0)])
        if trainer.world_size > 1:
            reason = reason.to(trainer.strategy.root_device)
            torch.distributed.all_reduce(reason, torch.distributed.ReduceOp.MAX)
        lost, number = (int(value) for value in reason.tolist())
        if lost:
            raise LossError(
                self.lost or f"{self.where(trainer)}: the loss of another rank is no number"
            )
        if number:
            raise signals.Interrupted(number, self.where(trainer))

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.teardown(trainer, pl_module, "fit")

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.watch is not None:
            self.watch.stop()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.teardown(trainer, pl_module, "fit")


def interruptible(trainer: pl.Trainer, step: Callable[[Any], Result]) -> Callable[[Any], Result]:
    """A step of an evaluation that leaves at a signal, where no other rank would wait for this one;
    several ranks leave at their next training step.
    """

    def checked(batch: Any) -> Result:
        if trainer.world_size == 1 and signals.received():
            signals.check(words_of(trainer))
        return step(batch)

    return checked


def words_of(trainer: pl.Trainer) -> str:
    """Where a trainer is, by its `Stopping`; nothing where it has none."""
    found = (call.where for call in trainer.callbacks if isinstance(call, Stopping))  # type: ignore[attr-defined]
    where = next(found, None)
    return where(trainer) if where else ""


class Watch(threading.Thread):
    """Ends this process when another rank has gone, which no collective call would ever say.

    Ranks that this one started are asked of the system. All ranks say through the store of the
    process group that they live; one that has not for `patience` seconds counts as gone.
    """

    def __init__(self, trainer: pl.Trainer, patience: float = 20.0, pause: float = 1.0) -> None:
        super().__init__(daemon=True, name="watch")
        self.rank, self.world = trainer.global_rank, trainer.world_size
        self.children = list(getattr(trainer.strategy.launcher, "procs", []))
        self.patience, self.pause = patience, pause
        self.over = threading.Event()

    def stop(self) -> None:
        """End the watch; the others are told that this rank ends by itself."""
        self.over.set()

    @override
    def run(self) -> None:
        try:
            store = torch.distributed.TCPStore(  # type: ignore[attr-defined]  # documented
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                is_master=False,
                timeout=timedelta(seconds=self.patience),
            )
        except (KeyError, RuntimeError, ValueError):  # a group by other means: it has no store
            store = None
        seen = {rank: ("", 0.0) for rank in range(self.world) if rank != self.rank}
        beat = 0.0
        while not self.over.wait(self.pause):
            beat += self.pause
            gone = next((child.pid for child in self.children if child.poll()), None)
            if gone is not None:
                self.leave(f"process {gone} of this run has gone")
            if store is not None:
                self.listen(store, seen, beat)
        if store is not None:
            try:
                store.set(f"iqa/alive/{self.rank}", "done")
            except RuntimeError:  # the first rank, which holds it, has ended before
                return

    def listen(self, store: Any, seen: dict[int, tuple[str, float]], beat: float) -> None:
        """Say that this rank lives, and hear whether the others do."""
        try:
            store.set(f"iqa/alive/{self.rank}", str(beat))
            for rank, (before, since) in seen.items():
                key = f"iqa/alive/{rank}"
                now = store.get(key).decode() if store.check([key]) else ""
                seen[rank] = (now, beat) if now != before else (before, since)
                if now != "done" and beat - seen[rank][1] > self.patience:
                    self.leave(f"rank {rank} has not answered for {self.patience:.0f} s")
        except RuntimeError as error:
            self.leave(f"the first rank has gone ({str(error).splitlines()[0][:80]})")

    def leave(self, why: str) -> None:
        """End this process with a word, unless the training has just ended."""
        if self.over.wait(2):  # an end of all ranks is no loss of one
            return
        for child in self.children:
            if child.poll() is None:
                child.kill()
        signals.say(f"error: {why}, so rank {self.rank} ends too; {signals.AGAIN}")
        os._exit(1)
