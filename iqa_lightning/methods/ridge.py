"""Ridge regression on frozen features: what every learnt method has to beat.

Nothing is trained and no image is kept. Source of the parts: see `models/ridge.py`; a closed form
on a frozen network as a baseline of continual learning: RanPAC, https://arxiv.org/abs/2307.02251.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.gated import GatedHeads
from iqa_lightning.methods.readouts import HeadScores, Known
from iqa_lightning.models.backbones import Images, Stages
from iqa_lightning.models.feature_cache import FeatureCache
from iqa_lightning.models.gating import Gate
from iqa_lightning.models.ridge import (
    RandomProjection,
    RidgeStatistics,
    fit_ridge,
    z_scored,
)
from iqa_lightning.stream.schedule import Task
from iqa_lightning.stream.training_images import TrainingImages

HEADS = ("per_task", "pooled")


class Ridge(GatedHeads):
    """A ridge head on features of the frozen backbone, solved when a task starts.

    Features and targets (MOS with mean 0 and deviation 1 over the task) are standardised; the
    penalty has the least exact leave-one-out error. With `heads: per_task` each task has a head of
    its own, which depends on no other task: any order gives the same heads, bit for bit. With
    `pooled` one head is solved from the sums over all images so far, which equals the ridge
    regression of all of them; its penalty is the geometric mean of those of the tasks, weighted by
    their numbers of images. Training images are read whole, once each.

    Args:
        features: of the backbone, whatever its own `features`: `stages` (mean and deviation of
            every stage map) or `last` (the pooled last stage).
        heads: `per_task` or `pooled`.
        projection: number of random ReLU features between the features and the head; 0 for none.
        gate: a class of `models.gating`, as a partial; for `per_task`, null for none.
        cache: where features are kept: `disk`, for all runs, `ram`, or `none`.
        cache_dir: the folder of `disk`; null: where decoded images are kept.
        seed: of the projection.
        options: of `ContinualMethod`; the optimiser finds nothing to do.

    Raises:
        ValueError: an unknown value, a gate over the only head, a joint task.
    """

    readouts: tuple[str, ...] = ("latest", "oracle")
    training_images = TrainingImages("none")

    def __init__(
        self,
        features: str = "stages",
        heads: str = "per_task",
        projection: int = 0,
        gate: Callable[..., Gate] | None = None,
        cache: str = "disk",
        cache_dir: str | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if heads not in HEADS:
            raise ValueError(f"method.heads={heads!r}: choose one of {HEADS}")
        if self.backbone.features == "stages" and features == "last":
            raise ValueError("method.features=last needs backbone.features=last")
        self.backbone.requires_grad_(False)
        self.features, self.pooled = features, heads == "pooled"
        width = self.backbone.width if features == "last" else self.backbone.statistics_width
        self.projection = RandomProjection(width, projection, seed)
        if self.pooled:
            self.readouts = ("single",)
        self.independent_tasks = not self.pooled and projection == 0
        count, width = 1 if self.pooled else len(self.tasks), self.projection.width
        # trainable only so that an optimiser, and DDP, find a parameter
        self.weight = nn.Parameter(torch.zeros(count, width, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(count, dtype=torch.float64), requires_grad=False)
        # of each task: number of images and log of its penalty
        self.penalties = nn.Parameter(
            torch.zeros(len(self.tasks), 2, dtype=torch.float64), requires_grad=False
        )
        self.statistics = RidgeStatistics(width) if self.pooled else None
        if gate is not None:
            if self.pooled:
                raise ValueError("method.heads=pooled has one head: set method.gate=null")
            self.gate = gate(self.backbone, len(self.tasks))
            self.readouts = (*self.readouts, "gated")
        self.caches = {
            kind: FeatureCache(self.backbone, kind, cache, cache_dir)
            for kind in ("last", "stages", "gate_last")
        }

    def read(self, image: Images, kind: str) -> Float[Tensor, "batch width"]:
        """Features of a kind, computed once an image: `last`, `stages`, or `gate_last`, the last
        two stages in one.
        """
        ways: dict[str, Callable[[Images], Tensor]] = {
            "last": self.backbone,
            "stages": self.backbone.statistics,
            "gate_last": lambda one: torch.cat(self.backbone.stages(one), dim=1),
        }
        return self.caches[kind](image, ways[kind])

    def feature(self, image: Images) -> Float[Tensor, "batch width"]:
        """What the heads read, in float64."""
        return self.projection(self.read(image, self.features))  # type: ignore[no-any-return]  # modules are untyped

    def gate_stages(self, image: Images) -> Stages:
        """What the gate reads."""
        assert self.gate is not None
        if self.gate.features == "stages":
            return [self.read(image, "stages")]
        return list(torch.split(self.read(image, "gate_last"), self.backbone.stage_widths, dim=1))

    def read_all(self, image: Images) -> list[Float[Tensor, "batch width"]]:
        """What the heads read, before the projection, and what the gate reads."""
        gate = [] if self.gate is None else self.gate_stages(image)
        return [self.read(image, self.features), *gate]

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score of the newest head."""
        return self.scores(image)[:, -1]

    def scores(self, image: Images) -> Float[Tensor, "batch heads"]:
        """Scores of all heads so far; each by itself: its bits do not depend on the others."""
        feature = self.feature(image)
        heads = range(1 if self.pooled else self.seen)
        columns = [feature @ self.weight[k] + self.bias[k] for k in heads]
        return torch.stack(columns, dim=1).float()

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """Scores of all heads so far, and their weights if there is a gate."""
        return self.weigh_heads(self.scores(image), image, known)

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Read the training images, and solve."""
        super().on_task_start(task, images)
        if len(task.datasets) > 1:
            raise ValueError(
                f"method=ridge cannot pool the scales of {task.datasets}: make each a task of its "
                "own; method.heads=pooled learns them with one head"
            )
        mos, (read, *stages) = self.collect_rated(images, self.read_all)
        if self.gate is not None:
            self.gate.fit(task.t, stages)
        if self.projection.count and task.t == 1:
            self.projection.fit(read)
        target = z_scored(mos.cpu().double().numpy())
        self.solve(task.t, self.projection(read).cpu().numpy(), target)

    @torch.no_grad()
    def solve(self, t: int, x: Float[np.ndarray, "images width"], y: np.ndarray) -> None:
        """The head of task t, or the one head of all tasks so far."""
        fit, head = fit_ridge(x, y), t - 1
        self.penalties[t - 1] = torch.tensor([len(y), np.log(fit.alpha)], dtype=torch.float64)
        if self.statistics is not None:
            self.statistics.add(x, y)
            count, penalty = self.penalties[:t].detach().cpu().T
            fit = self.statistics.solve(float(((count * penalty).sum() / count.sum()).exp()))
            head = 0
        self.weight[head] = torch.from_numpy(fit.weight).to(self.weight)
        self.bias[head] = fit.bias

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Nothing to learn: the one step of a task changes no weight."""
        return (0.0 * self.weight.sum()).float()

    def body_parameters(self) -> list[nn.Parameter]:
        """None."""
        return []

    def head_parameters(self) -> list[nn.Parameter]:
        """The heads, which hooks alone change."""
        return [self.weight]

    def added_parameters(self) -> int:
        """A task adds a head, or nothing."""
        return 0 if self.pooled else self.weight.shape[1] + 1
