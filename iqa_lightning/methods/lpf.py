"""LPF: small networks on frozen features that learn a category, comparisons and a score at once.

After Huang and Fang, "A lightweight parallel framework for blind image quality assessment",
https://arxiv.org/abs/2402.12043. A re-implementation from the abstract and third-party summaries:
no code is known, the body could not be read, **and all numbers are design**. Its way through a
stream is design too.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.losses.comparison import (
    CATEGORIES,
    categories,
    category_bounds,
    comparable_pairs,
    comparison_loss,
    score_loss,
)
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.gated import GatedHeads
from iqa_lightning.methods.readouts import HeadScores, Known
from iqa_lightning.models.backbones import Backbone, Images, Stages
from iqa_lightning.models.gating import Gate, frozen
from iqa_lightning.models.lpf_heads import (
    CategoryHead,
    ComparisonHead,
    FeatureEmbedding,
    QualityRegression,
)
from iqa_lightning.models.trunk import Trunk
from iqa_lightning.stream.schedule import Task

PER_TASK = ("nothing", "regression", "all")


class LPF(GatedHeads):
    """A frozen trunk, an embedding (FEN), and on it three heads that learn together: the category
    of an image, which of two is better, and the score (DaQRN), the only one that is read.

    Loss: distance of the scores to the targets + `category_weight` * cross-entropy of the
    categories + `comparison_weight` * cross-entropy of the comparisons of the pairs of the batch
    (with `pairs=in_batch`: of all). Targets are in
    [0, 1] by the range of the task's training images; the bounds of its categories are kept with
    the model.

    `per_task` says what each task has of its own. `nothing`: one model goes from task to task, and
    the readout is `single`. `regression`: a score head a task on one embedding. `all`: embedding
    and heads; nothing is forgotten, and only which of them to use is open. The head of categories,
    which are relative to a task, is always its own.

    With `schedule.warmup.fixed_crops` features are computed once a crop. "Heads" are all that
    stands on the trunk: phases of heads and of all train the same.

    Args:
        per_task: `nothing`, `regression` or `all`.
        taps: what is read of the backbone, see `models.trunk`.
        deviation: whether maps also give their standard deviation.
        hidden: width of the embedding.
        blocks: its depth.
        dropout: in it.
        components: of the score.
        component_weights: `softmax` or `sigmoid`.
        comparison: `network` or `difference`, see `models.lpf_heads`.
        bins: of the categories, `quantile` or `width`.
        score_loss: `l1`, `mse` or `smooth_l1`.
        category_weight: of the categories' loss.
        comparison_weight: of the comparisons' loss.
        delta: least difference of targets that are compared.
        spread: deviation of a target, for soft comparisons; null: hard ones.
        gate: a class of `models.gating`, as a partial, reading the trunk; null: no readout `gated`.
        options: see `ContinualMethod`.

    Raises:
        ValueError: an unknown word among these, a gate with one model, or a joint task.
    """

    readouts: tuple[str, ...] = ("single",)
    heads_read_features = True

    def __init__(
        self,
        backbone: Backbone,
        per_task: str = "nothing",
        taps: str = "last",
        deviation: bool = False,
        hidden: int = 256,
        blocks: int = 1,
        dropout: float = 0.1,
        components: int = 16,
        component_weights: str = "softmax",
        comparison: str = "network",
        bins: str = "quantile",
        score_loss: str = "l1",
        category_weight: float = 1.0,
        comparison_weight: float = 1.0,
        delta: float = 0.0,
        spread: float | None = None,
        gate: Callable[..., Gate] | None = None,
        **options: Any,
    ) -> None:
        trunk = Trunk([backbone], frozen=True, taps=taps, deviation=deviation)
        super().__init__(backbone=trunk, **options)
        if per_task not in PER_TASK:
            raise ValueError(f"method.per_task={per_task!r}: choose one of {PER_TASK}")
        if gate is not None and per_task == "nothing":
            raise ValueError(
                "method.gate has no heads to choose from: set method.per_task=regression or all, "
                "or "
                "method.gate=null"
            )
        self.per_task, self.bins, self.loss_of_scores = per_task, bins, score_loss
        self.category_weight, self.comparison_weight = category_weight, comparison_weight
        self.delta, self.spread = delta, spread
        self.independent_tasks = per_task == "all"
        count = len(self.tasks)
        own, scored = (
            count if kinds else 1 for kinds in (per_task == "all", per_task != "nothing")
        )
        width = trunk.width
        self.embeddings = parts(lambda: FeatureEmbedding(width, hidden, blocks, dropout), own)
        self.comparisons = parts(lambda: ComparisonHead(hidden, comparison), own)
        self.regressions = parts(
            lambda: QualityRegression(hidden, components, component_weights), scored
        )
        self.categories = parts(lambda: CategoryHead(hidden), count)
        self.ranges, self.bounds = frozen(count, 2), frozen(count, CATEGORIES - 1)
        if per_task != "nothing":
            self.readouts = ("latest", "oracle")
        if gate is not None:
            self.gate = gate(trunk, count)
            self.readouts = (*self.readouts, "gated")

    def feature(self, image: Images) -> Float[Tensor, "batch width"]:
        """What the trunk says."""
        return self.backbone(image)  # type: ignore[no-any-return]  # modules are untyped

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score by the parts of the current task."""
        return self.score_feature(self.feature(image))

    def score_feature(self, feature: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """Score by the parts of the current task."""
        return self.score_of(feature, self.seen - 1)

    def score_of(self, feature: Float[Tensor, "batch width"], k: int) -> Float[Tensor, " batch"]:
        """Score by the parts of task k, from 0."""
        return of(self.regressions, k)(of(self.embeddings, k)(feature))  # type: ignore[no-any-return]

    def selection_score(self, image: Images, known: Known) -> Float[Tensor, " batch"]:
        """`score`."""
        return self.score_feature(self.backbone(image, known.frozen_output))

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """Scores by the parts of each task so far, and their weights."""
        feature = self.backbone(image, known.frozen_output)
        heads = range(1 if self.per_task == "nothing" else self.seen)
        scores = torch.stack([self.score_of(feature, k) for k in heads], dim=1)
        read = [feature] if self.gate is not None and self.gate.features == "last" else None
        known = replace(known, gate_features=known.gate_features or read)
        return self.weigh_heads(scores, image, known, read)

    def gate_stages(self, image: Images) -> Stages:
        """What the gate reads of the trunk."""
        assert self.gate is not None
        return self.backbone.gate_stages(image, self.gate.features)

    def body_parameters(self) -> list[nn.Parameter]:
        """None: the trunk stands still."""
        return []

    def head_parameters(self) -> list[nn.Parameter]:
        """All that stands on the trunk, of the current task."""
        groups = (self.embeddings, self.regressions, self.comparisons, self.categories)
        return [p for group in groups for p in of(group, self.seen - 1).parameters()]

    def added_parameters(self) -> int:
        """What each task has of its own; categories and comparisons are dropped at test time."""
        parts_of = (self.embeddings, self.regressions, self.comparisons, self.categories)
        groups = [group for group in parts_of if len(group) > 1]
        return sum(p.numel() for group in groups for p in group[0].parameters())

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """The range of the task's scores, the bounds of its categories, its place for the gate."""
        super().on_task_start(task, images)
        if len(task.datasets) > 1:
            raise ValueError(
                f"method=lpf cannot pool the scales of {', '.join(task.datasets)}: make each a "
                "task "
                "of its own"
            )
        mos, stages = self.collect_rated(
            images, lambda image: self.gate_stages(image) if self.gate else []
        )
        self.ranges[task.t - 1] = torch.stack([mos.min(), mos.max()])
        self.bounds[task.t - 1] = category_bounds(self.target(mos.to(self.ranges)), self.bins)
        if self.gate is not None:
            self.gate.fit(task.t, stages)

    def target(self, mos: Float[Tensor, " images"]) -> Float[Tensor, " images"]:
        """Scores of the current task in [0, 1]."""
        low, high = self.ranges[self.seen - 1].unbind()
        return (mos - low) / (high - low)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Weighted sum of the three losses."""
        feature = batch["feature"] if "feature" in batch else self.feature(batch["image"])
        terms = self.terms(feature, batch["mos"], batch["pairs"])
        return torch.stack(list(terms.values())).sum()

    def terms(
        self,
        feature: Float[Tensor, "batch width"],
        mos: Float[Tensor, " batch"],
        pairs: Int[Tensor, "pairs 2"],
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses by name, weighted."""
        k, target = self.seen - 1, self.target(mos)
        latent = of(self.embeddings, k)(feature)
        pairs = comparable_pairs(target, pairs, self.delta)
        wanted = categories(target, self.bounds[k])
        category = F.cross_entropy(of(self.categories, k)(latent).float(), wanted)
        compared = comparison_loss(
            of(self.comparisons, k)(latent, pairs), target, pairs, self.spread
        )
        return {
            "score": score_loss(of(self.regressions, k)(latent), target, self.loss_of_scores),
            "category": self.category_weight * category,
            "comparison": self.comparison_weight * compared,
        }


def parts(build: Callable[[], nn.Module], count: int) -> nn.ModuleList:
    """One part for all tasks, or one for each; all start alike."""
    first = build()
    return nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(count - 1))])


def of(group: nn.ModuleList, k: int) -> nn.Module:
    """The part of task k, from 0, or that of all."""
    return group[k if len(group) > 1 else 0]
