"""What every continual-learning method is: a LightningModule with three task hooks."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iqa_lightning.distributed import from_all_ranks
from iqa_lightning.images.cache import ram_budget
from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.models.backbones import Backbone, Encoder, Images
from iqa_lightning.models.gating import Gate
from iqa_lightning.models.normalization import batch_norms
from iqa_lightning.stream.schedule import Phase, Position, Task
from iqa_lightning.stream.training_images import TrainingImages

Batch = dict[str, Any]


OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


BN_STATS = ("first_epoch", "always", "frozen")


STAGE, FIXED = "stage/", "fixed/part"  # no name of a data set holds a slash


class ContinualMethod(pl.LightningModule):
    """A quality model that learns one task after another.

    Everything carried over tasks is allocated by the constructor, for all `tasks` (their names, in
    order), and lives in the `state_dict`: a resumed run calls no task hook for the task it is in.
    Parameters are frozen in `on_phase_start` only, because DDP drops those that are frozen when it
    wraps the model. A method does not know who calls its hooks.

    `bn_stats` says in which epochs of fine-tuning batch normalisation uses and updates batch
    statistics: `first_epoch` (what the official codes do: evaluation after the first epoch leaves
    them in evaluation mode), `always`, `frozen`. `task_datasets` says what each task learns where
    that comes more than once, since names of tasks are unique. `optimizer` builds the optimiser
    from parameter groups; `head_lr_factor` scales its learning rate for the heads.

    Raises:
        ValueError: an unknown `bn_stats`.
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
    """Phases of its own, after those of the schedule, in each task but the last."""

    selects_best: bool = True
    """Whether a task ends with the epoch that is best by validation; else with its last."""

    heads_read_features: bool = False
    """Whether training heads alone needs nothing of an image but its `feature`."""

    health: Mapping[str, float] = MappingProxyType({})
    """What it has to say of itself since the last task ended, by name; for the loggers."""

    def __init__(
        self,
        backbone: Backbone,
        tasks: Sequence[str],
        optimizer: OptimizerFactory,
        head_lr_factor: float = 1.0,
        bn_stats: str = "first_epoch",
        link: str = "phi",
        task_datasets: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if bn_stats not in BN_STATS:
            raise ValueError(f"method.bn_stats={bn_stats!r}: choose one of {BN_STATS}")
        self.backbone = backbone
        self.tasks, self.task_datasets = list(tasks), list(task_datasets or tasks)
        self.optimizer_factory, self.head_lr_factor = optimizer, head_lr_factor
        self.bn_stats, self.link = bn_stats, link
        self.gate: Gate | None = None
        self.task: Tensor
        self.register_buffer("task", torch.tensor(0))
        self.kept_features: Tensor | None = (
            None  # of the fixed crops of a phase; computed again after a resume
        )

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score of the task being learnt, higher is better: what training ranks and validation
        selects by.
        """
        raise NotImplementedError

    def feature(self, image: Images) -> Float[Tensor, "batch width"]:
        """What the head in training reads of an image."""
        raise NotImplementedError

    def score_feature(self, feature: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """`score` of images with these features."""
        raise NotImplementedError

    def keep_features(self, crops: Iterable[Batch], count: int) -> None:
        """Compute the features of `count` fixed crops, `crops` being this rank's share, for a phase
        of heads.

        Raises:
            ValueError: they take more memory than there is.
        """
        nbytes, budget = 4 * count * self.backbone.width, ram_budget()
        if nbytes > budget:
            raise ValueError(
                f"the features of {count} fixed crops take {nbytes / 1e9:.1f} GB of the "
                f"{budget / 1e9:.1f} that may "
                "be used (a quarter of what is free): lower the phase's `fixed_crops`, or set it "
                "to null"
            )
        (self.kept_features,) = self.collect(crops, lambda image: [self.feature(image)])

    def selection_score(
        self, image: Images, known: Mapping[str, Tensor]
    ) -> Float[Tensor, " batch"]:
        """`score`, where `known` may hold, as `FIXED`, what the backbone's `frozen_output` says."""
        return self.score(image)

    def head_scores(
        self, image: Images, known: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, "batch heads"]]:
        """`score` of each head learnt so far and, where there is a gate, `gate`: the weight of
        each.

        `known` holds what need not be computed again: the recorded scores of `final_heads`,
        `gate_features`, and as `FIXED` what the backbone's `frozen_output` says. Gate features that
        came out on the way may stand beside the two.
        """
        raise NotImplementedError

    @property
    def uses_gate(self) -> bool:
        """Whether there are heads to choose from (from the second task on), and a gate that does."""
        return self.gate is not None and self.seen > 1

    def gate_stages(self, image: Images) -> list[Float[Tensor, "batch width"]]:
        """What the gate reads of an image: features of a network that no training changes, one or
        more stages.
        """
        raise NotImplementedError

    def gate_features(self, image: Images) -> dict[str, Float[Tensor, "batch width"]]:
        """The stages by name: evaluations compute them once an image and hand them over as `known`."""
        return by_name(self.gate_stages(image))

    def gate_heads(
        self, image: Images, known: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, "batch heads"]]:
        """`gate`: weight of each head learnt so far; they sum to 1, and one head needs no gate.

        Where tasks are independent also `nearness1`, ... of each stage: weights among any of them
        follow from these.
        """
        if self.gate is None or not self.uses_gate:
            return {"gate": torch.ones(len(image), self.seen, device=self.device)}
        stages = [known[name] for name in sorted(known) if name.startswith(STAGE)]
        nearness = self.gate.nearness(stages or self.gate_stages(image), self.seen)
        kept = (
            {f"nearness{i}": stage for i, stage in enumerate(nearness, 1)}
            if self.independent_tasks
            else {}
        )
        return {"gate": self.gate.weigh(nearness)} | kept

    @property
    def images_forwarded(self) -> int:
        """Images that any network of the method has read so far: what an evaluation costs."""
        return sum(
            module.images_forwarded for module in self.modules() if isinstance(module, Encoder)
        )

    def final_heads(self) -> list[str]:
        """Earlier tasks whose heads give the same scores for ever; evaluations do not compute them
        again.
        """
        return []

    def body_parameters(self) -> list[nn.Parameter]:
        """Parameters besides the heads that the current task may train."""
        raise NotImplementedError

    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters of the heads that the current task trains."""
        raise NotImplementedError

    def added_parameters(self) -> int:
        """Trainable parameters that one more task adds."""
        raise NotImplementedError

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:  # for those who need them
        """Before the first epoch of a task; `images` are its training images, whole, this rank's
        share.
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
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * position.phase.lr_at(position.epoch)

    def on_task_end(self, task: Task, images: Iterable[Batch]) -> None:
        """After the last epoch of a task, its best weights being back, before the test sets are
        scored.
        """

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # Lightning's signature
        """`loss` of the batch, logged."""
        loss = self.loss(batch)
        self.log("train/loss", loss, batch_size=len(batch["pairs"]))
        return loss

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Fidelity loss over the pairs of the batch; its features are looked up where they are
        kept.
        """
        kept = self.kept_features
        score = (
            self.score(batch["image"]) if kept is None else self.score_feature(kept[batch["crop"]])
        )
        return pair_loss(score, batch["pairs"], batch["target"], self.link)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Float[Tensor, " batch"]]:
        """Columns of the prediction records: each readout, then `score/<task>`, `gate/<task>`, ...
        of each head.

        Beside them may stand `gate_features` (before the first task), which are not recorded.

        `batch["owner_task"]` is the task t that learns the data set of each image; only `oracle`
        reads it, and it has no value where that task is still to come.
        """
        heads = self.head_scores(batch["image"], batch.get("known", {}))
        columns = read_out(heads["score"], heads.get("gate"), batch["owner_task"], int(self.task))
        columns = {name: columns[name] for name in self.readouts}
        columns |= {name: heads.pop(name) for name in list(heads) if name.startswith(STAGE)}
        if self.readouts != ("single",) and self.task > 0:
            for kind, values in heads.items():
                columns |= {
                    f"{kind}/{name}": values[:, k]
                    for k, name in enumerate(self.tasks[: int(self.task)])
                }
        return columns

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

    def collect(
        self,
        images: Iterable[Batch],
        features: Callable[[Images], list[Float[Tensor, "batch width"]]],
    ) -> list[Float[Tensor, "images width"]]:
        """Features of all images of all ranks, in the order of the data set, the same on each rank."""
        with torch.no_grad():
            rows = [
                [batch["index"].cpu(), *(stage.cpu() for stage in features(batch["image"]))]
                for batch in images
            ]
        shares = from_all_ranks(rows)
        columns = [
            torch.cat(column)
            for column in zip(*(row for share in shares for row in share), strict=True)
        ]
        return [column[columns[0].argsort()].to(self.device) for column in columns[1:]]

    def training_batches(self) -> Iterator[Batch]:
        """The batches of the current epoch once more, this rank's share."""
        for batch in self.trainer.datamodule.train_dataloader():  # type: ignore[attr-defined]  # set by `fit`
            yield self.trainer.strategy.batch_to_device(batch)


def by_name(stages: list[Tensor]) -> dict[str, Tensor]:
    """Gate features as columns of an evaluation."""
    return {f"{STAGE}{i}": stage for i, stage in enumerate(stages)}


def read_out(
    scores: Float[Tensor, "batch heads"],
    gate: Float[Tensor, "batch heads"] | None,
    owner_task: Int[Tensor, " batch"],
    task: int,
) -> dict[str, Float[Tensor, " batch"]]:
    """One score an image, by each readout.

    `single` and `latest`: the newest head. `oracle`: the head of the task that learns the image's
    data set (`owner_task`, from 1), NaN where there is none yet. `gated`: all heads, weighted by
    the gate.
    """
    latest = scores[:, -1]
    own = scores.gather(1, (owner_task - 1).clamp(0, scores.shape[1] - 1)[:, None])[:, 0]
    columns = {
        "single": latest,
        "latest": latest,
        "oracle": own.masked_fill(owner_task > task, torch.nan),
    }
    if gate is not None:
        columns["gated"] = (gate * scores).sum(dim=1)
    return columns
