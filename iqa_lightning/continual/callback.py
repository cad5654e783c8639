"""The walk: one fit goes over all tasks, and this callback does what happens between them."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from time import monotonic
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from iqa_lightning.continual.checkpoints import (
    LATEST,
    BestWeights,
    note_restart,
    restart_optimizers,
    save_atomic,
    seed_epoch,
    walk_on,
)
from iqa_lightning.continual.evaluation import (
    EvaluationCache,
    Part,
    evaluation_mode,
    on_device,
    predict,
    share_buffers,
)
from iqa_lightning.continual.inheritance import Inheritance
from iqa_lightning.continual.loggers import Draw, log_identity, log_matrices
from iqa_lightning.continual.stopping import interruptible
from iqa_lightning.continual.warm_up import WarmUpFeatures
from iqa_lightning.datasets.base import unlocked_test_set
from iqa_lightning.distributed import from_all_ranks
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.metrics.correlation import srcc
from iqa_lightning.metrics.matrices import Derived, derive
from iqa_lightning.metrics.scale import fit_scale, learnt_sets
from iqa_lightning.models.outside import reference_tensors
from iqa_lightning.records import RunFolder
from iqa_lightning.stream.schedule import Position, Task
from iqa_lightning.stream.stream import TaskStream


class ContinualLearning(Callback):
    """Walks a method through the task stream that is the trainer's data module.

    A task starts: task hook, fresh optimiser. Each epoch: seeds, phase hook, at its end the SRCC on
    the task's own validation part, of which the best epoch's weights are kept. A task ends: best
    weights back, task hook, all sets scored, records written, matrices derived and logged. Only
    then does the checkpoint of the epoch get written, so a resumed run either finds all of a task's
    end or repeats it. A phase that trains what replays the task later begins with the best weights
    and changes no score: the weights at its end are the best. A phase of heads on fixed crops reads
    features that are computed once.

    Where in the walk an epoch lies is a function of the epoch, which Lightning restores.

    Args:
        records: the run's folder.
        identity: what the summary says of the run.
        select_best: whether a task ends with its best epoch by validation SRCC; else with its last.
        draw: pictures a matrix; null for no picture.
    """

    def __init__(
        self,
        records: RunFolder,
        identity: dict[str, Any],
        select_best: bool = True,
        draw: Draw | None = None,
    ) -> None:
        self.records, self.identity = records, identity
        self.select_best, self.draw = select_best, draw
        self.best, self.cache, self.warm_up = BestWeights(), EvaluationCache(), WarmUpFeatures()
        self.cost = {"train_seconds": 0.0, "images_seen": 0, "forwards_eval": 0}
        self.clock, self.images = 0.0, 0
        self.inheritance: Inheritance | None = None  # of a walk that begins where its parent ended

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        stream, method = stream_of(trainer), method_of(pl_module)
        self.cache.wrap = partial(interruptible, trainer)
        stream.serve(method.training_images, method.phases)
        trainer.fit_loop.max_epochs = stream.num_epochs

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stream = stream_of(trainer)
        self.identity["split_hash"] = stream.split_hash
        with unlocked_test_set():
            self.identity["images"] = {
                name: {part: len(data.part(part)) for part in ("train", "val", "test")}
                for name, data in stream.data.items()
            }
        log_identity(trainer.loggers, self.identity)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stream, method = stream_of(trainer), method_of(pl_module)
        position = stream.position
        self.inherit(trainer, method)
        seed_epoch(stream.seed, position.words, trainer.global_rank)
        if trainer.current_epoch == 0:
            self.evaluate(trainer, method, 0, "start")
        if position.starts_task:
            with evaluation_mode(method):
                method.on_task_start(
                    position.task, self.images_of_task(trainer, method, position.task)
                )
            self.best = BestWeights()
            restart_optimizers(trainer)
        if position.phase.trains == "generator" and position.epoch == 0 and self.select_best:
            self.best.restore(method)
        method.on_phase_start(position)
        self.warm_up.prepare(trainer, stream, method, position)
        self.clock, self.images = monotonic(), 0

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self.warm_up.hand_over(batch)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        shown = len(batch["image"]) + (len(batch["replay"]["image"]) if "replay" in batch else 0)
        self.images += shown * trainer.world_size

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.cost["train_seconds"] += monotonic() - self.clock
        self.cost["images_seen"] += self.images
        method, position = method_of(pl_module), stream_of(trainer).position
        share_buffers(method)  # before they are judged and kept
        if position.phase.trains == "generator":
            self.best.keep(method)
        else:
            self.validate(trainer, method, position)
        if position.ends_task:
            self.end_task(trainer, method, position.task)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish the run, also one that was killed after its last checkpoint."""
        stream, method = stream_of(trainer), method_of(pl_module)
        progress: Any = trainer.fit_loop.epoch_progress.current
        walked = progress.processed  # `current_epoch` lags behind after a checkpoint is loaded
        if not trainer.is_global_zero or walked < stream.num_epochs:
            return
        if {"split_hash", "cost", "readouts"} - self.records.read_summary().keys():
            self.summarise(stream, method, len(stream.tasks))
        self.records.write_summary({"finished": True})

    def summarise(self, stream: TaskStream, method: ContinualMethod, t: int) -> Derived:
        """Write the summary and all that follows from the predictions."""
        predictions = self.records.predictions()
        derived = derive(predictions)
        if learnt := learnt_sets(predictions):
            scale = fit_scale(list(predictions.values())[-1], learnt)
            self.records.write_scale(scale.tensors(), scale.metadata())
        cost = self.cost | carried(method, stream.kept_bytes(t))
        facts = {"finished": False, "independent_tasks": method.independent_tasks, "cost": cost}
        self.records.write_summary(self.identity | facts)
        self.records.write_derived(derived)
        if self.draw:
            self.records.write_figure("srcc", self.draw(derived["srcc"], "SRCC", stream.synthetic))
        return derived

    def validate(self, trainer: pl.Trainer, method: ContinualMethod, position: Position) -> None:
        """SRCC on the validation part of each data set that the task learns; their mean selects the
        best epoch.
        """
        stream = stream_of(trainer)
        values = {}
        for name in stream.validation_sets(position.task):
            loader = stream.evaluation_dataloader(name, "val")
            scores = self.cache.validate(method, loader, (name, "val"))
            values[name] = srcc(scores, stream.data[name].part("val").mos.numpy())
        mean = float(np.mean(list(values.values())))
        if (self.select_best and method.selects_best) or position.ends_task:
            self.best.offer(mean, method)
        method.log_dict(
            {f"val/srcc/{name}": value for name, value in values.items()}, sync_dist=True
        )
        method.log_dict({"val/srcc": mean, "task": float(position.task.t)}, sync_dist=True)

    def end_task(self, trainer: pl.Trainer, method: ContinualMethod, task: Task) -> None:
        """Best weights back, task hook (a gate may be fitted in it, which the scoring needs),
        records, weights file; then the latest weights again, where the next task goes on from them.
        """
        latest = {key: value.detach().clone() for key, value in method.walked().items()}
        self.best.restore(method)
        with evaluation_mode(method):
            images = self.images_of_task(trainer, method, task)
            method.on_task_end(task, images, batches_of_epoch(trainer, method))
        self.evaluate(trainer, method, task.t, task.name)
        if task.t == len(stream_of(trainer).tasks):
            self.keep_reference(trainer, method)
        if trainer.is_global_zero:
            save_atomic(
                method.state_dict(),
                self.records.path / "tasks" / f"{task.t}_{task.name}.ckpt",
                self.records.path,
            )
        if method.continue_from == "latest":
            walk_on(method, latest)
            if trainer.is_global_zero:
                save_atomic(
                    method.state_dict(),
                    self.records.path / LATEST / f"{task.t}_{task.name}.ckpt",
                    self.records.path,
                )
        if trainer.is_global_zero:
            fresh = {"best": BestWeights().state_dict(), "cost": self.cost}
            note_restart(self.records.path, task.t, trainer, fresh)

    def inherit(self, trainer: pl.Trainer, method: ContinualMethod) -> None:
        """Score the new data sets by the weights that the parent had after each of its tasks."""
        inheritance, self.inheritance = self.inheritance, None
        if inheritance is None:
            return
        for t in inheritance.missing():
            method.load_state_dict(inheritance.state(t))
            self.evaluate(trainer, method, t, inheritance.name(t), inheritance.scores(t))
        method.load_state_dict(inheritance.state(len(inheritance.tasks)))

    def evaluate(
        self,
        trainer: pl.Trainer,
        method: ContinualMethod,
        t: int,
        task: str,
        known: Mapping[Part, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        """Score the validation and test parts of every data set, seen or not, in one pass; write,
        derive, log.

        What cannot have changed is not computed again, see `EvaluationCache`; nor what is `known`.
        """
        stream, before = stream_of(trainer), method.images_forwarded
        parts = []
        self.cache.read_final_scores(method, self.records)
        with unlocked_test_set():
            for name, owner_task in stream.task_of_dataset.items():
                for part in ("val", "test"):
                    columns = known.get((name, part))
                    if columns is None:
                        loader = stream.evaluation_dataloader(name, part)
                        columns = self.cache.evaluate(method, loader, (name, part), owner_task)
                    parts.append(pd.DataFrame(image_columns(stream, name, part) | dict(columns)))
        self.cost["forwards_eval"] += sum(from_all_ranks(method.images_forwarded - before))
        if not trainer.is_global_zero:
            return
        self.records.write_predictions(t, task, pd.concat(parts, ignore_index=True))
        derived = self.summarise(stream, method, t)
        if t > 0:
            draw = partial(self.draw, synthetic=stream.synthetic) if self.draw else None
            log_matrices(
                trainer.loggers, t, task, derived, trainer.global_step, draw, method.health
            )

    def keep_reference(self, trainer: pl.Trainer, method: ContinualMethod) -> None:
        """Store what new images are compared with: features of validation images."""
        stream, found = stream_of(trainer), {}
        for name in stream.datasets:
            stages = self.cache.gate_features.get((name, "val"))
            if stages is None:
                loader = stream.evaluation_dataloader(name, "val")
                watched = predict(
                    method, loader, lambda batch: {0: method.watched_features(batch["image"])}
                )
                stages = [watched[0]]
            found[name] = torch.from_numpy(np.concatenate(stages, axis=1))
        if trainer.is_global_zero:
            self.records.write_reference(reference_tensors(found))

    def images_of_task(
        self, trainer: pl.Trainer, method: ContinualMethod, task: Task
    ) -> Iterable[Batch]:
        """Training images of a task in the evaluation view, this rank's share, nothing read before
        it is asked for.
        """
        stream = stream_of(trainer)
        start = 0
        for name in task.datasets:
            for batch in on_device(method, stream.evaluation_dataloader(name, "train")):
                batch["index"] += start
                yield batch
            start += len(stream.data[name].part("train"))

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best.state_dict(), "cost": self.cost}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.load_state_dict(state_dict["best"])
        self.cost = state_dict["cost"]


def batches_of_epoch(trainer: pl.Trainer, method: ContinualMethod) -> Iterator[Batch]:
    """The batches of the current epoch once more, this rank's share, nothing read before it is
    asked for.
    """
    yield from on_device(method, stream_of(trainer).train_dataloader())


def stream_of(trainer: pl.Trainer) -> TaskStream:
    """The trainer's data module, which must be a task stream."""
    stream = trainer.datamodule  # type: ignore[attr-defined]  # set by `fit`, not declared
    assert isinstance(stream, TaskStream), (
        f"ContinualLearning walks a TaskStream, not a {type(stream).__name__}"
    )
    return stream


def method_of(module: pl.LightningModule) -> ContinualMethod:
    """The trainer's module, which must be a continual method."""
    assert isinstance(module, ContinualMethod), f"{type(module).__name__} is not a ContinualMethod"
    return module


def image_columns(stream: TaskStream, name: str, part: str) -> dict[str, Any]:
    """What the records say of each image besides its scores; what no data set of the stream knows
    is left out.
    """
    data = stream.data[name]
    table = data.samples.table.iloc[data.part(part).rows]
    columns: dict[str, Any] = {
        "dataset": name,
        "split": part,
        "image": table["image"],
        "mos": table["mos"],
    }
    everything = [other.samples.table for other in stream.data.values()]
    for label in ("reference", "distortion", "scene"):
        if any(label in other and (other[label] != "").any() for other in everything):
            columns[f"image/{label}"] = table.get(label, "")
    if any(other["mos_std"].notna().any() for other in everything):
        columns["mos_std"] = table["mos_std"]
    return {
        key: value.to_numpy() if isinstance(value, pd.Series) else value
        for key, value in columns.items()
    }


def carried(method: ContinualMethod, images: int) -> dict[str, int]:
    """What a method carries over tasks: parameters that one more task adds, bytes of all its state
    and `images`.

    A network that a teacher or a gate shares with the student counts once.
    """
    stored = {tensor.data_ptr(): tensor.nbytes for tensor in method.state_dict().values()}
    return {
        "parameters_added": method.added_parameters(),
        "bytes_stored": sum(stored.values()) + images,
    }
