"""The walk: one fit goes over all tasks, and this callback does what happens between them."""

from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from iqa_lightning.continual.checkpoints import (
    BestWeights,
    restart_optimizers,
    save_atomic,
    seed_epoch,
)
from iqa_lightning.continual.evaluation import (
    Columns,
    FixedParts,
    evaluation_mode,
    on_device,
    predict,
    share_buffers,
)
from iqa_lightning.continual.loggers import Draw, log_identity, log_matrices
from iqa_lightning.datasets.base import unlocked_test_set
from iqa_lightning.distributed import from_all_ranks
from iqa_lightning.methods.base import STAGE, Batch, ContinualMethod
from iqa_lightning.metrics.correlation import srcc
from iqa_lightning.metrics.matrices import derive
from iqa_lightning.records import RunFolder
from iqa_lightning.stream.schedule import Position, Task
from iqa_lightning.stream.stream import TaskStream
from iqa_lightning.stream.training_images import FixedCrops


class ContinualLearning(Callback):
    """Walks a method through the task stream that is the trainer's data module.

    A task starts: task hook, fresh optimiser. Each epoch: seeds, phase hook, at its end the SRCC on
    the task's own validation part, of which the best epoch's weights are kept. A task ends: best
    weights back, task hook, all sets scored, records written, matrices derived and logged. Only
    then does the checkpoint of the epoch get written, so a resumed run either finds all of a task's
    end or repeats it. A phase that trains what replays the task later begins with the best weights
    and changes no score: the weights at its end are the best.

    Where in the walk an epoch lies is a function of the epoch, which Lightning restores. `identity`
    is what the summary says of the run. `select_best: false` keeps the last weights of each task
    instead. `draw` pictures matrices.
    """

    def __init__(
        self,
        records: RunFolder,
        identity: dict[str, Any],
        select_best: bool = True,
        draw: Draw | None = None,
    ) -> None:
        self.records, self.identity, self.select_best, self.draw = (
            records,
            identity,
            select_best,
            draw,
        )
        self.best = BestWeights()
        self.gate_features: dict[tuple[str, str], Columns] = {}
        self.fixed = FixedParts()
        self.cost = {"train_seconds": 0.0, "images_seen": 0, "forwards_eval": 0}
        self.clock, self.images = 0.0, 0

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        stream, method = stream_of(trainer), method_of(pl_module)
        stream.serve(method.training_images, method.phases)
        trainer.fit_loop.max_epochs = stream.num_epochs

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.identity["split_hash"] = stream_of(trainer).split_hash
        log_identity(trainer.loggers, self.identity)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        stream, method = stream_of(trainer), method_of(pl_module)
        position = stream.position
        seed_epoch(stream.seed, trainer.current_epoch, trainer.global_rank)
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
        self.keep_features(trainer, method, position)
        self.clock, self.images = monotonic(), 0

    def keep_features(
        self, trainer: pl.Trainer, method: ContinualMethod, position: Position
    ) -> None:
        """Compute once what heads read of the fixed crops of a phase, if it has such, and drop what
        others left.
        """
        if position.phase.fixed_crops is None or position.epoch == 0:
            method.kept_features = None
        if (
            position.phase.fixed_crops is None
            or method.kept_features is not None
            or not method.heads_read_features
        ):
            return
        stream = stream_of(trainer)
        bank = stream.train_dataloader().dataset
        assert isinstance(bank, FixedCrops)
        crops = bank.loader(stream.max_pixels, trainer.global_rank, trainer.world_size)
        with evaluation_mode(method):
            method.keep_features(on_device(method, crops), len(bank))

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
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and trainer.current_epoch >= stream_of(trainer).num_epochs:
            self.records.write_summary({"finished": True})

    def validate(self, trainer: pl.Trainer, method: ContinualMethod, position: Position) -> None:
        """SRCC on the validation part of each data set that the task learns; their mean selects the
        best epoch.
        """
        stream = stream_of(trainer)
        values = {}
        for name in stream.validation_sets(position.task):
            loader = stream.evaluation_dataloader(name, "val")
            fixed = self.fixed.of(method.backbone, name, "val")
            columns = predict(
                method, loader, position.task.t, partial(selection_column, method), fixed=fixed
            )
            values[name] = srcc(columns["score"], stream.data[name].part("val").mos.numpy())
        mean = float(np.mean(list(values.values())))
        if (self.select_best and method.selects_best) or position.ends_task:
            self.best.offer(mean, method)
        method.log_dict(
            {f"val/srcc/{name}": value for name, value in values.items()}, sync_dist=True
        )
        method.log_dict({"val/srcc": mean, "task": float(position.task.t)}, sync_dist=True)

    def end_task(self, trainer: pl.Trainer, method: ContinualMethod, task: Task) -> None:
        """Best weights back, task hook (a gate may be fitted in it, which the scoring needs),
        records, weights file.
        """
        self.best.restore(method)
        with evaluation_mode(method):
            method.on_task_end(task, self.images_of_task(trainer, method, task))
        self.evaluate(trainer, method, task.t, task.name)
        if trainer.is_global_zero:
            save_atomic(
                method.state_dict(), self.records.path / "tasks" / f"{task.t}_{task.name}.ckpt"
            )

    def evaluate(self, trainer: pl.Trainer, method: ContinualMethod, t: int, task: str) -> None:
        """Score the validation and test parts of every data set, seen or not, in one pass; write,
        derive, log.

        What cannot have changed is not computed: recorded scores of final heads, gate features, the
        backbone's fixed part.
        """
        stream, before = stream_of(trainer), method.images_forwarded
        parts, final = [], self.final_scores(trainer, method)
        with unlocked_test_set():
            for name, owner_task in stream.task_of_dataset.items():
                for part in ("val", "test"):
                    loader = stream.evaluation_dataloader(name, part)
                    known = final.get((name, part), {}) | self.features_of(
                        method, loader, (name, part)
                    )
                    fixed = self.fixed.of(method.backbone, name, part)
                    columns = predict(method, loader, owner_task, method.predict_step, known, fixed)
                    stages = {
                        key: columns.pop(key) for key in list(columns) if key.startswith(STAGE)
                    }
                    self.gate_features |= {(name, part): stages} if stages else {}
                    parts.append(pd.DataFrame(image_columns(stream, name, part) | columns))
        self.cost["forwards_eval"] += sum(from_all_ranks(method.images_forwarded - before))
        if not trainer.is_global_zero:
            return
        self.records.write_predictions(t, task, pd.concat(parts, ignore_index=True))
        derived = derive(self.records.predictions())
        cost = self.cost | carried(method, stream.kept_bytes(t))
        facts = {"finished": False, "independent_tasks": method.independent_tasks, "cost": cost}
        self.records.write_summary(self.identity | facts)
        self.records.write_derived(derived)
        if self.draw:
            self.records.write_figure("srcc", self.draw(derived["srcc"], "SRCC", stream.synthetic))
        if t > 0:
            draw = partial(self.draw, synthetic=stream.synthetic) if self.draw else None
            log_matrices(
                trainer.loggers, t, task, derived, trainer.global_step, draw, method.health
            )

    def features_of(
        self, method: ContinualMethod, loader: Iterable[Batch], key: tuple[str, str]
    ) -> Columns:
        """What a gate reads of a data set's part; it never changes, so it is computed once in a
        process.

        Most often it has come out of the evaluation before the first task; else (after a resume) in
        a pass of its own.
        """
        if method.uses_gate and key not in self.gate_features:
            self.gate_features[key] = predict(
                method, loader, 0, lambda batch: method.gate_features(batch["image"])
            )
        return self.gate_features.get(key, {})

    def final_scores(self, trainer: pl.Trainer, method: ContinualMethod) -> dict[Any, Columns]:
        """What the records already hold of heads that cannot change: by (data set, part), then by
        task.
        """
        tasks = method.final_heads()
        if not tasks:
            return {}
        frame = self.records.predictions()[tasks[-1]] if trainer.is_global_zero else None
        frame = from_all_ranks(frame)[0]
        assert frame is not None
        parts = frame.groupby(["dataset", "split"], sort=False)
        return {
            key: {task: rows[f"score/{task}"].to_numpy() for task in tasks} for key, rows in parts
        }

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


def selection_column(method: ContinualMethod, batch: Batch) -> dict[str, Tensor]:
    """The score that validation selects by."""
    return {"score": method.selection_score(batch["image"], batch["known"])}


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
