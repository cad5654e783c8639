"""Multi-head fine-tuning with a penalty on changing what mattered: what EWC, SI, MAS and the L2 anchor share."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from iqa_lightning.data.stream import Task
from iqa_lightning.losses.importance import Parameters, check_finite, penalty, score_gradients, sum_over_pairs
from iqa_lightning.methods.base import Batch, sum_over_ranks
from iqa_lightning.methods.finetune import MultiHead
from iqa_lightning.models.backbones import Backbone


class Regularized(MultiHead):
    """Loss plus `weight` * sum of importance * (parameter - anchor)^2 over the backbone; heads are free.

    One online term: importances add up over the tasks, the anchor is the latest task's best weights. Values and the
    absent factor 1/2 as in the official code of LwF-KG (`Reg_CL` of https://github.com/zwx8981/BIQA_CL).
    """

    def __init__(self, weight: float, **options: Any) -> None:
        super().__init__(**options)
        self.weight = weight
        self.importance, self.anchor = self.like_backbone(), self.like_backbone()
        ids = {id(parameter): name for name, parameter in self.backbone.named_parameters()}
        self.names = [ids[id(parameter)] for parameter in self.backbone.trainable()]

    def like_backbone(self) -> nn.ParameterList:
        """Zeros in the shapes of the backbone's parameters, saved, never trained, never broadcast by DDP."""
        shapes = (parameter.shape for parameter in self.backbone.trainable())
        return nn.ParameterList(nn.Parameter(torch.zeros(shape), requires_grad=False) for shape in shapes)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Fidelity loss and, from the second task on, the penalty on what is in training."""
        loss = super().loss(batch)
        if self.seen == 1 or self.weight == 0:
            return loss
        parts = zip(self.backbone.trainable(), self.anchor, self.importance, self.names, strict=True)
        moving = [part for part in parts if part[0].requires_grad]  # none in the warm-up
        if not moving:
            return loss
        return loss + self.weight * penalty(*zip(*moving, strict=True))

    def on_task_end(self, task: Task, images: Iterable[Batch]) -> None:
        """Add the importances of the task, and move the anchor to its best weights."""
        super().on_task_end(task, images)
        found = self.new_importance()
        check_finite(found, self.names)
        with torch.no_grad():
            for total, new in zip(self.importance, found, strict=True):
                total.add_(new)
            for anchor, parameter in zip(self.anchor, self.backbone.trainable(), strict=True):
                anchor.copy_(parameter)

    def new_importance(self) -> Sequence[Tensor]:
        """Importance of each parameter of the backbone to the task just learnt."""
        raise NotImplementedError


class PairImportance(Regularized):
    """Importances that are the mean, over all pairs of an epoch of the task, of |gradient|^`power` of each pair.

    Evaluation mode (images of a batch do not see each other), the training's crops, the task's head with its free norm.
    `importance_batches`: of how many batches of the epoch; null takes all, as the official code does.
    """

    power: int

    def __init__(self, importance_batches: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.importance_batches = importance_batches

    def slope(self, delta: Float[Tensor, " pairs"], batch: Batch) -> Float[Tensor, " pairs"]:
        """Derivative of what is differentiated, by the difference of the scores of each pair."""
        raise NotImplementedError

    def new_importance(self) -> Sequence[Tensor]:
        """The mean over the pairs of all ranks."""
        totals, pairs = [torch.zeros_like(part) for part in self.importance], torch.zeros((), device=self.device)
        for batch in islice(self.training_batches(), self.importance_batches):
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
        fixed = self.backbone.fixed_part(batch["image"])
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
    """A backbone from prepared images on: what `functional_call` can differentiate for one image of many."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, prepared: Tensor, fixed: Tensor | None = None) -> Tensor:
        """The feature."""
        return self.backbone.pooled(prepared, fixed)
