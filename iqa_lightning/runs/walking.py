"""A walk in its folder: all that surrounds one fit of the trainer, built before it writes."""

import inspect
import logging
import sys
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint

from iqa_lightning import signals
from iqa_lightning.configs import config_hash, without_places
from iqa_lightning.continual.callback import ContinualLearning, stream_of
from iqa_lightning.continual.checkpoints import AtomicCheckpointIO, find_restart
from iqa_lightning.continual.display import Display
from iqa_lightning.continual.inheritance import Inheritance
from iqa_lightning.continual.loggers import warn_on_failure
from iqa_lightning.continual.runtime import keep_freed_memory
from iqa_lightning.continual.stopping import Stopping
from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.records import RunFolder
from iqa_lightning.report import figures
from iqa_lightning.report.text.terminal import print_matrix
from iqa_lightning.runs.compose import instantiate
from iqa_lightning.runs.extend import Parent, check_method
from iqa_lightning.runs.folder import is_first_process
from iqa_lightning.runs.package import package
from iqa_lightning.runs.process import lead_children
from iqa_lightning.seeds import SCHEME
from iqa_lightning.stream.stream import TaskStream

HINTS = (
    "does not have many workers",  # crops come out of a cache in memory
    "smaller than the logging interval",  # a task may be small
    "Checkpoint directory .* exists",  # that is what resuming means
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 with torch 2.14
)


FEW = 8
"""Validation images below which the best epoch is chosen by chance."""


def prepare(seed: int) -> None:
    """What a process needs before anything is built."""
    silence_hints()
    keep_freed_memory()
    pl.seed_everything(seed, verbose=False)


class Walk:
    """One method on one stream, in a folder that need not exist before `fit`.

    Args:
        cfg: the config.
        stream: of tasks.
        method: what learns.
        records: of the run.
        names: the five names of the run.
        parent: the finished run that this one extends, if it does.
    """

    def __init__(
        self,
        cfg: DictConfig,
        stream: TaskStream,
        method: ContinualMethod,
        records: RunFolder,
        names: tuple[str, ...],
        parent: Parent | None = None,
    ) -> None:
        self.stream, self.method, self.records, self.names = stream, method, records, names
        self.inheritance: Inheritance | None = None
        self.config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]  # a dict
        self.identity: dict[str, Any] = {
            "method": names[1],
            "order": stream.order,
            "split": cfg.split,
            "seed": cfg.seed,
            "seeds": SCHEME,
        }
        self.notes: list[str] = []
        stream.serve(method.training_images, method.phases)
        if parent is not None:
            check_method(method, parent)
            self.identity["parent"] = parent.identity
            self.inheritance = Inheritance(RunFolder(parent.folder), parent.tasks, records)
        self.make_loggers = instantiate(cfg.logger, _partial_=True)
        given = inspect.signature(self.make_loggers.func)
        given.bind(folder=records.path, name="", group="", **self.make_loggers.keywords)
        build = instantiate(cfg.trainer, _partial_=True)
        last = records.path / "last.ckpt"
        self.learning = ContinualLearning(
            records, self.identity, cfg.select_best, figures.heat_maps
        )
        callbacks = [
            Stopping(in_task, str(last)),
            *build.keywords.get("callbacks", []),
            self.learning,
            Display(records, print_matrix, notes=self.notes),
            ModelCheckpoint(
                records.path, "last", save_on_train_epoch_end=True, enable_version_counter=False
            ),
        ]
        self.trainer: pl.Trainer = build(
            callbacks=callbacks,
            logger=False,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=records.path,
        )
        self.start: Any = None

    def check(self) -> None:
        """Read the data, which finds all that can be wrong with them, and say what is doubtful."""
        self.stream.prepare_data()
        self.stream.setup()
        if self.inheritance is not None:
            self.inheritance.check(self.stream)
        self.notes.extend(notes_of(self.stream))
        code = package()
        devices = [*self.records.read_summary().get("devices", []), device_name(self.trainer)]
        self.identity |= {
            "git": code["commit"],
            "package": code,
            "config_hash": config_hash(
                self.config | {"stream": self.config["stream"] | {"order": self.stream.order}}
            ),
            "synthetic": self.stream.synthetic,
            "devices": list(dict.fromkeys(devices)),
            "notes": self.notes,
        }
        if is_first_process():
            for note in self.notes:
                print(f"note: {note}", flush=True)

    def find_restart(self) -> None:
        """Decide from the records where to go on.

        Raises:
            ValueError: A record is missing or damaged that would be missed at the end.
        """
        if is_first_process():
            self.records.clean()
        if self.inheritance is not None:
            self.start = self.inheritance.take_over(self.method, self.stream, is_first_process())
            if self.start is not None:
                self.learning.inheritance = self.inheritance
                return
        self.start, said = find_restart(self.records, self.stream, self.method.state_dict().keys())
        if said and is_first_process():
            print(f"note: {said}", flush=True)

    def fit(self) -> None:
        """Walk from the last checkpoint, or from the start."""
        loggers = self.make_loggers(
            folder=self.records.path, name=" ".join(self.names[1:]), group=self.names[0]
        )
        self.trainer.loggers = loggers
        for logger in loggers:
            logger.log_hyperparams(without_places(self.config))
        try:
            with lead_children():
                self.trainer.fit(
                    self.method, datamodule=self.stream, ckpt_path=self.start, weights_only=True
                )
        finally:
            signals.move_to(signals.NOTE)  # what is left takes a moment; a second signal ends it
            for logger in loggers:
                logger.finalize("success" if self.trainer.state.finished else "failed")
            finish_wandb()
            end_children(self.trainer)


def in_task(trainer: pl.Trainer) -> str:
    """Where a walk is."""
    stream = stream_of(trainer)
    if trainer.current_epoch >= stream.num_epochs:
        return "after the last task"
    position = stream.position
    text = f"in task {position.task.t} of {len(stream.tasks)}"
    epoch = f"epoch {position.epoch + 1} of {position.phase.epochs}"
    return f"{text} ({position.task.name}, {position.phase.name} {epoch})"


def notes_of(stream: TaskStream) -> list[str]:
    """What is doubtful about the data of a stream, a line each."""
    notes = []
    for name, data in {data.name: data for data in stream.data.values()}.items():
        train, val, test = (len(rows) for rows in data.parts)
        if val < FEW:
            notes.append(
                f"{name} has {train + val + test} images, {val} of them to validate by: the best "
                f"epoch is chosen by chance below {FEW} (select_best=false keeps the last)"
            )
    for task in stream.tasks:
        count = sum(len(stream.data[name].parts.train) for name in task.datasets)
        for phase in stream.phases:
            if phase.batch_size > count:
                notes.append(
                    f"task {task.t} ({task.name}) has {count} images to train with, less than a "
                    f"batch of {phase.name} ({phase.batch_size}): batches are what there is"
                )
    return notes


def device_name(trainer: pl.Trainer) -> str:
    """What a training runs on."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return name if trainer.world_size == 1 else f"{trainer.world_size} x {name}"


def finish_wandb() -> None:
    """Close the wandb run of this process, so that the next run of a sweep opens its own."""
    if "wandb" in sys.modules:
        warn_on_failure(sys.modules["wandb"].finish)()


def end_children(trainer: pl.Trainer) -> None:
    """Wait a moment for the ranks that this process started, then end them."""
    for child in getattr(trainer.strategy.launcher, "procs", []):
        try:
            child.wait(10)
        except Exception:  # it hangs in a call to a rank that is gone
            child.kill()


def silence_hints() -> None:
    """Keep hints that do not apply to a walk out of the terminal; errors and warnings of the run
    itself stay.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for hint in HINTS:
        warnings.filterwarnings("ignore", f".*{hint}")
