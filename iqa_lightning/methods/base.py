"""What every continual-learning method is: a LightningModule with three task hooks."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iqa_lightning.distributed import from_all_ranks
from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.readouts import (
    NOTHING,
    HeadScores,
    HeadsReadFeatures,
    Known,
    Prediction,
    read_out,
)
from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.models.backbones import Backbone, Encoder, Images
from iqa_lightning.models.normalization import batch_norms
from iqa_lightning.stream.schedule import Phase, Position, Task
from iqa_lightning.stream.training_images import TrainingImages

Batch = dict[str, Any]

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]

BN_STATS = ("first_epoch", "always", "frozen")
BN_PAIRS = ("joint", "separate")
CONTINUE_FROM = ("best", "latest")


class ContinualMethod(pl.LightningModule, ABC):
    """A quality model that learns one task after another.

    A method *must* have `readouts`, `score`, `head_scores`, `head_parameters` and
    `body_parameters`. It *may* override `loss`, the hooks `on_task_start`, `on_phase_start` and
    `on_task_end`, and what stands below under `phases`, `training_images` and the like. It does not
    know who calls: images, batches and positions are handed to it.

    Everything carried over tasks is allocated by the constructor, for all tasks, and lives in the
    `state_dict`: a resumed run calls no task hook for the task it is in, and `on_phase_start` for
    each epoch alone. Parameters are frozen in `on_phase_start` only, because DDP drops those that
    are frozen when it wraps the model.

    Args:
        backbone: the network whose features the heads read.
        tasks: names of all tasks, in order; they are unique.
        optimizer: builds the optimiser from parameter groups, body and heads.
        head_lr_factor: scales its learning rate for the heads.
        bn_stats: in which epochs of fine-tuning batch normalisation uses and updates batch
            statistics: `first_epoch` (what the official codes do: evaluation after the first epoch
            leaves them in evaluation mode), `always`, `frozen`.
        link: from the difference of two scores to a preference, see `losses.fidelity`.
        bn_pairs: while batch normalisation is live, `separate` passes the first images of the pairs
            and then the second ones, two batches to it (what the official codes do), where no image
            is in two pairs; `joint` passes all at once.
        continue_from: where the next task begins, with the weights of the `best` epoch, by which
            the task is scored and kept, or of the `latest`.
        task_datasets: what each task learns, where that comes more than once; the tasks' names by
            default.

    Raises:
        ValueError: what a method must have is missing, no optimiser, an unknown `bn_stats`.
    """

    readouts: tuple[str, ...]
    """The ways one score is read out of the heads: `single`, or `latest`, `oracle` and `gated`."""

    training_images: TrainingImages = TrainingImages()
    """What its batches are made of: by default the current task alone."""

    independent_tasks: bool = False
    """Whether what a task learns depends on no other task: the records of one order then hold those
    of all orders.
    """

    phases: tuple[Phase, ...] = ()
    """Phases of its own, after those of the schedule, in each task."""

    selects_best: bool = True
    """Whether a task ends with the epoch that is best by validation; else with its last."""

    health: Mapping[str, float] = MappingProxyType({})
    """What it has to say of itself since the last task ended, by name; for the loggers."""

    def __new__(cls, *_: Any, **__: Any) -> "ContinualMethod":
        """Say in one line what a method lacks."""
        missing = [] if hasattr(cls, "readouts") else ["readouts"]
        if missing := missing + sorted(cls.__abstractmethods__):
            raise ValueError(
                f"method {cls.__name__} lacks: {', '.join(missing)} (see "
                "docs/how-to/add-a-method.md)"
            )
        taken = inspect.signature(cls.__init__).parameters.values()
        if not any(p.kind == p.VAR_KEYWORD or p.name == "optimizer" for p in taken):
            raise ValueError(
                f"method {cls.__name__} takes no optimizer: end its constructor with **options, "
                "and pass them on by super().__init__(**options)"
            )
        return super().__new__(cls)

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[str],
        optimizer: OptimizerFactory | None = None,
        head_lr_factor: float = 1.0,
        bn_stats: str = "first_epoch",
        link: str = "phi",
        bn_pairs: str = "joint",
        continue_from: str = "best",
        task_datasets: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if not callable(optimizer):
            raise ValueError(
                f"method {type(self).__name__} has no optimizer: its config needs one, as in "
                "optimizer: {_target_: torch.optim.Adam, _partial_: true, lr: 2.0e-4}, and its "
                "constructor must pass it on by super().__init__(**options)"
            )
        for key, value, known in (
            ("bn_stats", bn_stats, BN_STATS),
            ("bn_pairs", bn_pairs, BN_PAIRS),
            ("continue_from", continue_from, CONTINUE_FROM),
        ):
            if value not in known:
                raise ValueError(f"method.{key}={value!r}: choose one of {known}")
        self.backbone = backbone
        self.tasks, self.task_datasets = list(tasks), list(task_datasets or tasks)
        self.optimizer_factory, self.head_lr_factor = optimizer, head_lr_factor
        self.bn_stats, self.link = bn_stats, link
        self.bn_pairs, self.continue_from = bn_pairs, continue_from
        self.task: Tensor
        self.register_buffer("task", torch.tensor(0))

    # --- what a method must have, besides `readouts`

    @abstractmethod
    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score of the task being learnt, higher is better: what training ranks and validation
        selects by.
        """

    @abstractmethod
    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """`score` of each head learnt so far, weights where there is a gate; `known` need not be
        computed again.
        """

    @abstractmethod
    def body_parameters(self) -> list[nn.Parameter]:
        """Parameters besides the heads that the current task may train."""

    @abstractmethod
    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters of the heads that the current task trains."""

    # --- what it may override

    def added_parameters(self) -> int:
        """Trainable parameters that one more task adds; by default none."""
        return 0

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Before the first epoch of a task, in evaluation mode.

        Args:
            task: the task.
            images: its training images, whole, this rank's share; each has its `index` in the task.
        """
        self.task.fill_(task.t)

    def on_phase_start(self, position: Position) -> None:
        """Before each epoch (so it must be idempotent): what is trained, in which mode, at which
        learning rate.
        """
        trains_all = position.phase.trains == "all"
        for parameter in self.body_parameters():
            parameter.requires_grad_(trains_all)
        live = trains_all and (
            self.bn_stats == "always"
            or (self.bn_stats == "first_epoch" and position.full_epoch == 0)
        )
        trained = {id(parameter) for parameter in self.body_parameters()}
        for layer in batch_norms(self):  # those of teachers, gates and other tasks stay as they are
            layer.train(live and id(layer.weight) in trained)
        for module in self.modules():
            if isinstance(module, Teacher):
                module.eval()
        found = self.optimizers(use_pl_optimizer=False)
        for optimizer in found if isinstance(found, list) else [found]:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * position.phase.lr_at(position.epoch)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Fidelity loss over the pairs of the batch; from its `feature`s where it brings them."""
        if "feature" in batch:
            assert isinstance(self, HeadsReadFeatures)
            score = self.score_feature(batch["feature"])
        else:
            score = self.score(batch["image"])
        return pair_loss(score, batch["pairs"], batch["target"], self.link)

    def on_task_end(self, task: Task, images: Iterable[Batch], batches: Iterable[Batch]) -> None:
        """After the last epoch of a task, its best weights being back, before the test sets are
        scored; in evaluation mode.

        Args:
            task: the task.
            images: its training images, as in `on_task_start`.
            batches: the batches of its last epoch once more, this rank's share.
        """

    def selection_score(self, image: Images, known: Known) -> Float[Tensor, " batch"]:
        """`score`; `known` may hold the backbone's `frozen_output`."""
        return self.score(image)

    def watched_features(self, image: Images) -> Float[Tensor, "batch width"]:
        """What tells whether images are like those that were learnt; of windows their mean."""
        windows = image if image.ndim == 5 else image[:, None]
        stages = torch.cat(self.backbone.stages(windows.flatten(0, 1)), dim=1)
        return stages.float().view(*windows.shape[:2], -1).mean(dim=1)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Prediction:
        """Columns of the prediction records: each readout, then `score/<task>`, `gate/<task>`, ...
        of each head.

        `batch["owner_task"]` is the task t that learns the data set of each image; only `oracle`
        reads it, and it has no value where that task is still to come. `batch["known"]` is what
        need not be computed again.
        """
        heads = self.head_scores(batch["image"], batch.get("known", NOTHING))
        found = read_out(heads, batch["owner_task"], int(self.task))
        columns = {name: found[name] for name in self.readouts}
        if self.readouts != ("single",):
            columns |= heads.columns(self.tasks[: int(self.task)])
        return Prediction(columns, heads.gate_features)

    # --- what all share

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """`loss` of the batch, logged."""
        with self.pair_passes(batch):
            loss = self.loss(batch)
        self.log("train/loss", loss, batch_size=len(batch["pairs"]))
        return loss

    def pair_passes(self, batch: Batch) -> AbstractContextManager[None]:
        """Within it the backbone passes the two sides of the pairs one after the other, where
        `bn_pairs` asks for it and batch normalisation is live.
        """
        live = self.bn_pairs == "separate" and any(
            layer.training for layer in batch_norms(self.backbone)
        )
        return self.backbone.in_passes(sides(batch["pairs"], len(batch["image"])) if live else ())

    def walked(self) -> dict[str, Tensor]:
        """What the training of a task moves: parameters in training and running statistics."""
        norms = {id(b) for layer in batch_norms(self) for b in layer.buffers()}
        parameters = {k: v for k, v in self.named_parameters() if v.requires_grad}
        return parameters | {k: v for k, v in self.named_buffers() if id(v) in norms}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """A fresh optimiser over what the current task trains; called again at each task."""
        optimizer = self.optimizer_factory(
            [{"params": self.body_parameters()}, {"params": self.head_parameters()}]
        )
        for group, factor in zip(optimizer.param_groups, (1.0, self.head_lr_factor), strict=True):
            group["initial_lr"] = group["lr"] * factor
        return optimizer

    @property
    def seen(self) -> int:
        """Heads in use: those of the tasks so far, and before the first task the first head as it
        starts.
        """
        return max(int(self.task), 1)

    @property
    def images_forwarded(self) -> int:
        """Images that any network of the method has read so far: what an evaluation costs."""
        return sum(
            module.images_forwarded for module in self.modules() if isinstance(module, Encoder)
        )

    def collect(
        self,
        images: Iterable[Batch],
        features: Callable[[Images], list[Float[Tensor, "batch width"]]],
    ) -> list[Float[Tensor, "images width"]]:
        """Features of all images of all ranks, in the order of their `index`, the same on each
        rank.
        """
        return self.collect_rated(images, features)[1]

    def collect_rated(
        self,
        images: Iterable[Batch],
        features: Callable[[Images], list[Float[Tensor, "batch width"]]],
    ) -> tuple[Float[Tensor, " images"], list[Float[Tensor, "images width"]]]:
        """The MOS of the images (NaN where a batch has none) and what `collect` gives: one pass."""
        rows = []
        with torch.no_grad():
            for batch in images:
                index = batch["index"].cpu()
                mos = batch.get("mos", torch.full(index.shape, torch.nan)).cpu()
                rows.append([index, mos, *(stage.cpu() for stage in features(batch["image"]))])
        shares = from_all_ranks(rows)
        columns = [
            torch.cat(column)
            for column in zip(*(row for share in shares for row in share), strict=True)
        ]
        order = columns[0].argsort()
        mos, *found = (column[order].to(self.device) for column in columns[1:])
        return mos, found


def sides(pairs: Int[Tensor, "pairs 2"], images: int) -> Sequence[Int[Tensor, " rows"]]:
    """Rows of the first and of the second images of pairs, in the order of the batch; none where an
    image is in two pairs or in no one.
    """
    if 2 * len(pairs) != images or len(set(pairs.flatten().tolist())) != images:
        return ()
    return [pairs[:, side].sort().values for side in range(2)]
