"""What a person sees of the walk: where it is, how long it will take, and the matrix after each
task.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from typing_extensions import override

from iqa_lightning.continual.callback import stream_of
from iqa_lightning.records import RunFolder
from iqa_lightning.stream.schedule import Position
from iqa_lightning.stream.stream import TaskStream

REVERSED = -0.9999


class Display(Callback):
    """A progress bar over the whole walk on a terminal, a line an epoch elsewhere; matrices after
    each task.

    Stands after `ContinualLearning` in the list of callbacks: it shows what that one has written.

    Args:
        records: of the run.
        show: prints a matrix, `show(matrix, title, console, synthetic)`, as
            `report.text.terminal.print_matrix`.
        console: where to.
        notes: of the run's summary; what is doubtful about a validation is added.
    """

    def __init__(
        self,
        records: RunFolder,
        show: Callable[..., None],
        console: Console | None = None,
        notes: list[str] | None = None,
    ) -> None:
        self.records, self.show = records, show
        self.notes = [] if notes is None else notes
        self.console = console or Console()
        self.progress: Progress | None = None
        self.started, self.first_epoch = 0.0, 0

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        stream = stream_of(trainer)
        self.started, self.first_epoch = monotonic(), trainer.current_epoch
        if trainer.current_epoch > 0:
            self.console.print(
                f"resuming at epoch {trainer.current_epoch + 1} of {stream.num_epochs}"
            )
        if self.console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.progress = Progress(*columns, console=self.console)
            self.progress.add_task("", total=stream.num_epochs, completed=trainer.current_epoch)
            self.progress.start()

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.progress is not None:
            self.update(trainer, 0.0)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self.progress is not None:
            self.update(trainer, (batch_idx + 1) / max(trainer.num_training_batches, 1))

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        stream = stream_of(trainer)
        if self.progress is None:
            self.console.print(self.line(trainer), markup=False, highlight=False, soft_wrap=True)
        self.doubt(trainer, stream.position)
        if stream.position.ends_task and stream.position.task.t < len(
            stream.tasks
        ):  # the command prints the last
            name = stream.position.task.name
            self.console.print(
                f"\nafter task {stream.position.task.t}/{len(stream.tasks)}, {name}:",
                markup=False,
                highlight=False,
            )
            for readout in self.records.read_summary()["readouts"]:
                matrix = self.records.read_matrix(f"srcc_{readout}")
                self.show(matrix, f"SRCC, {readout}", self.console, stream.synthetic)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.progress is not None:
            self.progress.stop()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.teardown(
            trainer, pl_module, "fit"
        )  # which Lightning leaves out then; the cursor would stay hidden

    def update(self, trainer: pl.Trainer, fraction: float) -> None:
        """Move the bar to a fraction of the current epoch."""
        assert self.progress is not None
        stream = stream_of(trainer)
        text = where(stream, stream.position) + measures(trainer)
        self.progress.update(
            self.progress.task_ids[0], completed=trainer.current_epoch + fraction, description=text
        )

    def doubt(self, trainer: pl.Trainer, position: Position) -> None:
        """Say once of each data set that its validation comes out exactly reversed."""
        for key, value in trainer.callback_metrics.items():
            note = (
                f"task {position.task.t}: the SRCC on the validation part of "
                f"{key.removeprefix('val/srcc/')} is -1, exactly reversed: are its scores lower "
                "where quality is better (higher_is_better: false), or its images very few?"
            )
            known = any(
                key.removeprefix("val/srcc/") in said for said in self.notes if "-1" in said
            )
            if key.startswith("val/srcc/") and float(value) < REVERSED and not known:
                self.notes.append(note)
                self.console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)

    def line(self, trainer: pl.Trainer) -> str:
        """One epoch in words."""
        stream = stream_of(trainer)
        done = trainer.current_epoch + 1 - self.first_epoch
        elapsed = monotonic() - self.started
        left = elapsed / done * (stream.num_epochs - trainer.current_epoch - 1)
        here = f"{where(stream, stream.position)}{measures(trainer)}"
        return f"{here}  {clock(elapsed)} elapsed, about {clock(left)} left"


def where(stream: TaskStream, position: Position) -> str:
    """Task, phase and epoch."""
    task, phase = position.task, position.phase
    epoch = f"{phase.name} {position.epoch + 1}/{phase.epochs}"
    return f"task {task.t}/{len(stream.tasks)} {task.name}, {epoch}"


def measures(trainer: pl.Trainer) -> str:
    """Loss and validation SRCC, once they exist."""
    known = {"train/loss": "loss", "val/srcc": "val SRCC"}
    seen = [
        f"{word} {float(trainer.callback_metrics[key]):.3f}"
        for key, word in known.items()
        if key in trainer.callback_metrics
    ]
    return "".join(f"  {text}" for text in seen)


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
