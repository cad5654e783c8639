"""TSN-IQA: task-specific normalisation with a K-means gate.

Zhang et al., "Task-specific normalization for continual learning of blind image quality models",
IEEE TIP 33, 2024, https://arxiv.org/abs/2107.13429. The published command does not run; this
follows what its code intends.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.finetune import start_head
from iqa_lightning.methods.gated import GatedHeads
from iqa_lightning.methods.readouts import HeadScores, Known
from iqa_lightning.models.backbones import Images, Stages
from iqa_lightning.models.frozen import freeze_convolutions
from iqa_lightning.models.gating import Gate, KMeansGate
from iqa_lightning.models.heads import CosineHeads
from iqa_lightning.models.low_rank import LowRankSets
from iqa_lightning.models.normalization import NormSets, chunks
from iqa_lightning.stream.schedule import Task

INITS = ("pretrained", "previous", "nearest")
TRAINS = ("norms", "head")


class TSNIQA(GatedHeads):
    """Frozen convolutions; each task has its own norms (affine and running statistics) and its own
    head.

    Norm set 0 is the pretrained one: with it the network is the fixed feature extractor of the
    gate. At test time set k gives score k, and the gate weighs the scores by how near the image
    lies to the training images of each task.

    Which norms the authors' gate network held (a file `distortion_bn`) is not known; the pretrained
    ones are used.

    Args:
        gate: a class of `models.gating`, as a partial.
        init: where the norms and the head of a new task start: `pretrained` (the paper: no task
            learns from another), `previous` (the task before) or `nearest` (the earlier task to
            whose centroids the new images lie nearest). The two latter go beyond the paper; they
            forget nothing either, since the earlier sets are only read; `nearest` needs a gate that
            measures distances.
        trains: `norms`, norms and head of a task, or the `head` alone, all norms as pretrained (the
            ablation of the official code).
        normalize_heads: whether heads have unit norm at test time.
        head_init: how heads start, see `CosineHeads`; `ridge` goes before `init`.
        options: see `ContinualMethod`.

    Raises:
        ValueError: an unknown `init` or `trains`, a backbone without norms.
    """

    readouts = ("latest", "oracle", "gated")
    heads_read_features = True

    def __init__(
        self,
        gate: Callable[..., Gate] = KMeansGate,
        init: str = "pretrained",
        trains: str = "norms",
        normalize_heads: bool = True,
        head_init: str = "linear",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if init not in INITS:
            raise ValueError(f"method.init={init!r}: choose one of {INITS}")
        if trains not in TRAINS:
            raise ValueError(f"method.trains={trains!r}: choose one of {TRAINS}")
        self.trains = trains
        self.init, self.independent_tasks = init, init == "pretrained"
        self.backbone.requires_grad_(False)
        freeze_convolutions(self.backbone.network)
        self.sets = self.make_sets(1 + len(self.tasks))
        for t in range(1, 1 + len(self.tasks)):
            for parameter in self.sets.parameters(t):
                parameter.requires_grad_(True)
        self.heads = CosineHeads(self.backbone.width, len(self.tasks), normalize_heads, head_init)
        self.gate = gate(self.backbone, len(self.tasks))

    def make_sets(self, count: int) -> NormSets | LowRankSets:
        """What tasks have of their own in the backbone, `count` sets; set 0 is as it starts."""
        return NormSets(self.backbone.network, count)

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score by the current task's norms and head."""
        return self.score_of(image, self.seen)

    def feature(self, image: Images) -> Float[Tensor, "batch width"]:
        """The backbone's feature with the current task's norms."""
        self.sets.use(self.seen)
        return self.backbone(image)  # type: ignore[no-any-return]  # modules are untyped

    def score_feature(self, feature: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """Score by the current task's head."""
        return self.heads(feature, self.seen - 1)  # type: ignore[no-any-return]

    def selection_score(self, image: Images, known: Known) -> Float[Tensor, " batch"]:
        """Score by the current task's norms and head."""
        return self.score_of(image, self.seen, known.frozen_output)

    def score_of(
        self, image: Images, t: int, fixed: Tensor | None = None
    ) -> Float[Tensor, " batch"]:
        """Score by the norms and head of task t."""
        self.sets.use(t)
        return self.heads(self.backbone(image, fixed), t - 1)  # type: ignore[no-any-return]  # modules are untyped

    def scores_of(
        self, image: Images, tasks: Sequence[int], fixed: Tensor | None = None
    ) -> list[Float[Tensor, " batch"]]:
        """Scores by several tasks, as many at once as pays; equal to `score_of` but for rounding.
        Without gradients.
        """
        scores: list[Tensor] = []
        for some in chunks(tasks, image, self.sets.can_branch):
            if len(some) == 1:
                scores.append(self.score_of(image, some[0], fixed))
                continue
            with self.sets.branches(some):
                features = self.backbone(image, fixed).chunk(len(some))
            self.backbone.images_forwarded += (len(some) - 1) * len(image)
            scores += [
                self.heads(feature, t - 1) for feature, t in zip(features, some, strict=True)
            ]
        return scores

    def gate_stages(self, image: Images) -> Stages:
        """Features of the fixed pretrained network."""
        self.sets.use(0)
        assert self.gate is not None
        return self.backbone.gate_stages(image, self.gate.features)

    def final_heads(self) -> list[str]:
        """Every earlier task: its norms and its head are never touched again."""
        return self.tasks[: self.seen - 1]

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """Scores of all heads so far and the gate's weights; one head needs no gate.

        Before the first task all norms are the pretrained ones: one pass gives the score and what
        the gate reads.
        """
        if self.gate is not None and self.task == 0:
            self.sets.use(0)
            feature, stages = self.backbone.with_stages(
                image, known.frozen_output, self.gate.features
            )
            return self.weigh_heads(self.heads(feature, 0)[:, None], image, known, stages)
        final = known.final_scores
        tasks = dict(enumerate(self.tasks[: self.seen], start=1))
        missing = [t for t, task in tasks.items() if task not in final]
        computed = self.scores_of(image, missing, known.frozen_output)
        found = dict(zip(missing, computed, strict=True))
        columns = [final[task] if task in final else found[t] for t, task in tasks.items()]
        return self.weigh_heads(torch.stack(columns, dim=1), image, known)

    def body_parameters(self) -> list[nn.Parameter]:
        """Norms of the current task, unless heads alone are trained."""
        return self.sets.parameters(self.seen) if self.trains == "norms" else []

    def head_parameters(self) -> list[nn.Parameter]:
        """Head of the current task."""
        return [self.heads.weight[self.seen - 1]]

    def added_parameters(self) -> int:
        """A task adds a set of norms and a head."""
        norms = self.sets.parameters(1) if self.trains == "norms" else []
        return sum(p.numel() for p in [*norms, self.heads.weight[0]])

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Fit the gate of the new task, then start its norms and head.

        The gate reads the fixed network only, so that it can be fitted before the training;
        `nearest` needs it there.
        """
        super().on_task_start(task, images)
        stages = self.collect(images, self.gate_stages)
        assert self.gate is not None
        self.gate.fit(task.t, stages)
        source = self.start_from(task.t, stages)
        self.sets.copy(source, task.t)
        if source > 0:
            self.heads.weight[task.t - 1].data.copy_(self.heads.weight[source - 1].data)
        start_head(self, self.heads, task.t - 1, task, images)

    def start_from(self, t: int, stages: Stages) -> int:
        """The norm set that task t starts from."""
        if self.init == "pretrained" or t == 1:
            return 0
        if self.init == "previous":
            return t - 1
        assert self.gate is not None
        return 1 + int(self.gate.distances(stages, t - 1).mean(dim=(0, 1)).argmin())


class LoRA(TSNIQA):
    """TSN-IQA with low-rank updates in the place of norms: the network stays as it starts; each
    task has its own update of every linear layer and every convolution of one pixel, and its own
    head.

    A row for comparison; no paper has it for this field. LoRA: https://arxiv.org/abs/2106.09685.

    Args:
        rank: of an update.
        alpha: scale of an update, divided by the rank.
        options: see `TSNIQA`.
    """

    def __init__(self, rank: int = 4, alpha: float = 4.0, **options: Any) -> None:
        self.rank, self.alpha = rank, alpha
        super().__init__(**options)

    def make_sets(self, count: int) -> LowRankSets:
        """Low-rank updates."""
        return LowRankSets(self.backbone.network, count, self.rank, self.alpha)
