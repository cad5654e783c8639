"""Multi-head fine-tuning with a penalty on changing what mattered: what EWC, SI, MAS and the L2
anchor share.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from iqa_lightning.distributed import sum_over_ranks
from iqa_lightning.losses.importance import (
    Parameters,
    check_finite,
    ewc_slopes,
    mas_slopes,
    penalty,
    score_gradients,
    si_importance,
    sum_over_pairs,
)
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.finetune import MultiHead
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.stream.pairs import pair_target
from iqa_lightning.stream.schedule import Task


class Regularized(MultiHead):
    """Loss plus `weight` * sum of importance * (parameter - anchor)^2 over the backbone; heads are
    free.

    One online term: importances add up over the tasks, the anchor is the latest task's best
    weights. Values and the absent factor 1/2 as in the official code of LwF-KG (`Reg_CL` of
    https://github.com/zwx8981/BIQA_CL).

    Args:
        weight: of the penalty.
        options: see `MultiHead`.
    """

    def __init__(self, weight: float, **options: Any) -> None:
        super().__init__(**options)
        self.weight = weight
        self.importance, self.anchor = self.like_backbone(), self.like_backbone()
        ids = {id(parameter): name for name, parameter in self.backbone.named_parameters()}
        self.names = [ids[id(parameter)] for parameter in self.backbone.trainable()]

    def like_backbone(self) -> nn.ParameterList:
        """Zeros in the shapes of the backbone's parameters, saved, never trained, never broadcast
        by DDP.
        """
        shapes = (parameter.shape for parameter in self.backbone.trainable())
        return nn.ParameterList(
            nn.Parameter(torch.zeros(shape), requires_grad=False) for shape in shapes
        )

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Fidelity loss and, from the second task on, the penalty on what is in training."""
        loss = super().loss(batch)
        if self.seen == 1 or self.weight == 0:
            return loss
        parts = zip(
            self.backbone.trainable(), self.anchor, self.importance, self.names, strict=True
        )
        moving = [part for part in parts if part[0].requires_grad]  # none in the warm-up
        if not moving:
            return loss
        return loss + self.weight * penalty(*zip(*moving, strict=True))

    def on_task_end(self, task: Task, images: Iterable[Batch], batches: Iterable[Batch]) -> None:
        """Add the importances of the task, and move the anchor to its best weights."""
        super().on_task_end(task, images, batches)
        found = self.new_importance(batches)
        check_finite(found, self.names)
        with torch.no_grad():
            for total, new in zip(self.importance, found, strict=True):
                total.add_(new)
            for anchor, parameter in zip(self.anchor, self.backbone.trainable(), strict=True):
                anchor.copy_(parameter)

    @abstractmethod
    def new_importance(self, batches: Iterable[Batch]) -> Sequence[Tensor]:
        """Importance of each parameter of the backbone to the task just learnt, of which `batches`
        are an epoch.
        """


class PairImportance(Regularized):
    """Importances that are the mean, over all pairs of an epoch of the task, of |gradient|^`power`
    of each pair.

    Evaluation mode (images of a batch do not see each other), the training's crops, the task's head
    with its free norm.

    Args:
        importance_batches: of how many batches of the epoch; null takes all, as the official code
            does.
        options: see `Regularized`.
    """

    power: int

    def __init__(self, importance_batches: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.importance_batches = importance_batches

    @abstractmethod
    def slope(self, delta: Float[Tensor, " pairs"], batch: Batch) -> Float[Tensor, " pairs"]:
        """Derivative of what is differentiated, by the difference of the scores of each pair."""

    def new_importance(self, batches: Iterable[Batch]) -> Sequence[Tensor]:
        """The mean over the pairs of all ranks."""
        totals, pairs = (
            [torch.zeros_like(part) for part in self.importance],
            torch.zeros((), device=self.device),
        )
        for batch in islice(batches, self.importance_batches):
            scores, gradients = self.scores_and_gradients(batch)
            both = batch["pairs"]
            slope = self.slope(scores[both[:, 0]] - scores[both[:, 1]], batch)
            sums = sum_over_pairs(gradients, slope, both, self.power)
            for total, name in zip(totals, self.names, strict=True):
                total.add_(sums[name])
            pairs += len(both)
        count = max(float(sum_over_ranks(pairs)), 1.0)
        return [sum_over_ranks(total) / count for total in totals]

    def scores_and_gradients(self, batch: Batch) -> tuple[Float[Tensor, " images"], Parameters]:
        """Score of each image and its gradient by each parameter of the backbone."""
        network, head = PooledFeature(self.backbone), self.head()
        inputs = [self.backbone.prepare(batch["image"])]
        fixed = self.backbone.frozen_output(batch["image"])
        inputs += [] if fixed is None else [fixed]

        def score(parameters: Parameters, *one: Tensor) -> Float[Tensor, ""]:
            named = {f"backbone.{name}": parameter for name, parameter in parameters.items()}
            feature = functional_call(network, named, tuple(x[None] for x in one))
            return self.heads.free(feature, head)[0]

        known: Parameters = dict(zip(self.names, self.backbone.trainable(), strict=True))
        with torch.no_grad():
            scores = self.heads.free(network(*inputs), head)
        return scores, score_gradients(score, known, *inputs)


class PooledFeature(nn.Module):
    """A backbone from prepared images on: what `functional_call` can differentiate for one image of
    many.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, prepared: Tensor, fixed: Tensor | None = None) -> Tensor:
        """The feature."""
        return self.backbone.pooled(prepared, fixed)


TARGETS = ("soft", "training")


class EWC(PairImportance):
    """Importance: squared gradient of the fidelity loss of a pair, averaged over the pairs of an
    epoch.

    Args:
        importance_target: `soft`, Thurstone's preference from MOS and its deviation, as in the
            official code of LwF-KG, although it trains on binary targets; or `training`, the target
            of the training.
        options: see `PairImportance`.

    Raises:
        ValueError: another `importance_target`.
    """

    power = 2

    def __init__(self, importance_target: str = "soft", **options: Any) -> None:
        super().__init__(**options)
        if importance_target not in TARGETS:
            raise ValueError(
                f"method.importance_target={importance_target!r}: choose one of {TARGETS}"
            )
        self.importance_target = importance_target

    def slope(self, delta: Float[Tensor, " pairs"], batch: Batch) -> Float[Tensor, " pairs"]:
        """Of the fidelity loss."""
        target = batch["target"]
        if self.importance_target == "soft":
            both = batch["pairs"].cpu()
            target = pair_target(batch["mos"].cpu()[both], batch["mos_std"].cpu()[both], "soft").to(
                delta
            )
        return ewc_slopes(delta, target, self.link)


class SI(Regularized):
    """Importance: sum over the steps of -gradient * change, divided by squared change over the task
    plus a damping.

    The gradient is the optimiser's own, of loss and penalty, before any clipping. The backbone
    moves in fine-tuning only. The best weights of a task come back with the sum as it was then, so
    that both belong to one path.

    Args:
        damping: what is added to the squared change.
        options: see `Regularized`.
    """

    def __init__(self, damping: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.damping = damping
        self.path, self.start = self.like_backbone(), self.like_backbone()
        self.before: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """A new path from here."""
        super().on_task_start(task, images)
        with torch.no_grad():
            for path, start, parameter in zip(
                self.path, self.start, self.backbone.trainable(), strict=True
            ):
                path.zero_()
                start.copy_(parameter)

    def on_before_optimizer_step(
        self, optimizer: torch.optim.Optimizer
    ) -> None:  # Lightning's signature
        """Remember where the step begins, and which way is down."""
        self.before = [
            (path, parameter, parameter.detach().clone(), parameter.grad.clone())
            for path, parameter in zip(self.path, self.backbone.trainable(), strict=True)
            if parameter.grad is not None
        ]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # Lightning's
        """Add the step to the path."""
        with torch.no_grad():
            for path, parameter, old, gradient in self.before:
                path.sub_(gradient * (parameter - old))
        self.before = []

    def new_importance(self, batches: Iterable[Batch]) -> Sequence[Tensor]:
        """From start to best weights."""
        changes = (
            now.detach() - start
            for now, start in zip(self.backbone.trainable(), self.start, strict=True)
        )
        return [
            si_importance(path, change, self.damping)
            for path, change in zip(self.path, changes, strict=True)
        ]


class MAS(PairImportance):
    """Importance: |gradient| of the squared preference (not of the score) of a pair, averaged over
    an epoch's pairs.
    """

    power = 1

    def slope(
        self, delta: Float[Tensor, " pairs"], batch: Batch
    ) -> Float[Tensor, " pairs"]:  # no target
        """Of the squared preference."""
        return mas_slopes(delta, self.link)


class L2Anchor(Regularized):
    """Penalty to the weights after the previous task, importance 1 for every parameter of the
    backbone.
    """

    def new_importance(self, batches: Iterable[Batch]) -> Sequence[Tensor]:
        """What lifts each importance to 1, whatever the task."""
        return [torch.ones_like(part) - part for part in self.importance]
