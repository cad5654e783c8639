"""Sequential fine-tuning: the lower bounds that every continual method is measured against."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.gated import GatedHeads
from iqa_lightning.methods.readouts import HeadScores, HeadsReadFeatures, Known
from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.models.backbones import Encoder, Images, Stages
from iqa_lightning.models.gating import Gate
from iqa_lightning.models.heads import CosineHeads
from iqa_lightning.stream.schedule import Task
from iqa_lightning.stream.training_images import TrainingImages


def start_head(
    method: HeadsReadFeatures, heads: CosineHeads, head: int, task: Task, images: Iterable[Batch]
) -> None:
    """Start a head from the training images of its task, where `head_init` is `ridge`.

    Raises:
        ValueError: a joint task, whose sets have scales of their own.
    """
    if heads.start != "ridge":
        return
    if len(task.datasets) > 1:
        raise ValueError(
            f"method.head_init=ridge cannot pool the scales of {', '.join(task.datasets)}: choose "
            "method.head_init=linear, or make each a task of its own"
        )
    assert isinstance(method, ContinualMethod)
    mos, (feature,) = method.collect_rated(images, lambda image: [method.feature(image)])
    heads.start_by_ridge(head, feature, mos)


class SingleHead(ContinualMethod):
    """One network and one head go from task to task (SH-CL of https://arxiv.org/abs/2102.09717).

    Args:
        normalize_heads: whether heads have unit norm at test time.
        head_init: how heads start, see `CosineHeads`.
        options: see `ContinualMethod`.
    """

    readouts: tuple[str, ...] = ("single",)
    heads_read_features = True

    def __init__(
        self, normalize_heads: bool = True, head_init: str = "kaiming_normal", **options: Any
    ) -> None:
        super().__init__(**options)
        self.heads = CosineHeads(self.backbone.width, self.num_heads(), normalize_heads, head_init)

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Start a head that is new, where it starts from the images."""
        super().on_task_start(task, images)
        if task.t == 1 or self.head() > 0:
            start_head(self, self.heads, self.head(), task, images)

    def num_heads(self) -> int:
        """Heads over the whole stream."""
        return 1

    def head(self) -> int:
        """Index of the head that the current task trains."""
        return 0

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score of the head in training."""
        return self.score_feature(self.feature(image))

    def feature(self, image: Images) -> Float[Tensor, "batch width"]:
        """The backbone's feature."""
        return self.backbone(image)  # type: ignore[no-any-return]  # modules are untyped

    def score_feature(self, feature: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """Score of the head in training."""
        return self.heads(feature, self.head())  # type: ignore[no-any-return]

    def selection_score(self, image: Images, known: Known) -> Float[Tensor, " batch"]:
        """Score of the head in training."""
        return self.score_feature(self.backbone(image, known.frozen_output))

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """Scores of all heads so far, from one pass."""
        return HeadScores(self.all_heads(self.backbone(image, known.frozen_output)))

    def all_heads(self, feature: Float[Tensor, "batch width"]) -> Float[Tensor, "batch heads"]:
        """Scores of all heads so far."""
        return torch.stack([self.heads(feature, k) for k in range(self.head() + 1)], dim=1)

    def body_parameters(self) -> list[nn.Parameter]:
        """The backbone, but for what is never trained of it."""
        return self.backbone.trainable()

    def head_parameters(self) -> list[nn.Parameter]:
        """The head in training."""
        return [self.heads.weight[self.head()]]


class MultiHead(SingleHead, GatedHeads):
    """One network goes from task to task, each task with a head of its own (MH-CL of
    https://arxiv.org/abs/2102.09717).

    Args:
        gate: what weighs the heads at test time, a class of `models.gating` as a partial; null for
            none.
        gate_encoder: the network that the gate reads, which is never trained; null takes what the
            backbone offers: the S-CNN of `dbcnn`, else a copy of the backbone as it starts.
        options: see `SingleHead`.
    """

    readouts: tuple[str, ...] = ("latest", "oracle")

    def __init__(
        self,
        gate: Callable[..., Gate] | None = None,
        gate_encoder: Encoder | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.reads_start = gate is not None and gate_encoder is None
        if gate is not None:
            self.gate_encoder = (gate_encoder or self.backbone.fixed_encoder()).requires_grad_(
                False
            )
            self.gate = gate(self.gate_encoder, len(self.tasks))
            self.readouts = (*self.readouts, "gated")

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Fit the gate of the task, which reads what training does not change."""
        super().on_task_start(task, images)
        if self.gate is not None:
            self.gate.fit(task.t, self.collect(images, self.gate_stages))

    def gate_stages(self, image: Images) -> Stages:
        """Features of the gate's own network."""
        assert self.gate is not None
        return self.gate_encoder.gate_stages(image, self.gate.features)

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """Scores of all heads so far, from one pass, and their weights if there is a gate.

        Before the first task that pass also says what the gate reads, where that is of the network
        as it starts.
        """
        if self.gate is not None and self.reads_start and self.task == 0:
            feature, stages = self.backbone.with_frozen_stages(
                image, known.frozen_output, self.gate.features
            )
            return self.weigh_heads(self.all_heads(feature), image, known, stages)
        feature = self.backbone(image, known.frozen_output)
        return self.weigh_heads(self.all_heads(feature), image, known)

    def num_heads(self) -> int:
        """One head a task."""
        return len(self.tasks)

    def head(self) -> int:
        """Index of the current task's head."""
        return self.seen - 1

    def added_parameters(self) -> int:
        """A task adds a head."""
        return self.backbone.width


class Joint(SingleHead):
    """One network and one head learn all data sets of the stream at once (JL of
    https://arxiv.org/abs/2102.09717).

    It walks the same stream: in the place of the first task it learns the union of all tasks, with
    the schedule of one task, and keeps its best epoch by the mean SRCC over all validation parts.
    The later tasks change nothing (one batch at a learning rate of 0 stands for each), so all rows
    of the matrices but the first (`start`) are equal: mSRCC is the joint model's mean over data
    sets, mPI the same by construction, mSI 1, forgetting and backward transfer 0. Only the last row
    is to be compared with other methods. All images of the stream count as stored.

    The official head has a bias, which no difference of two scores feels and no rank correlation
    sees; it is left out.
    """

    training_images = TrainingImages("all")


class JointSeen(SingleHead):
    """One network and one head go from task to task and learn all tasks so far at each (JL-CL of
    the same paper).

    The best epoch is chosen by the mean SRCC over the validation parts of all tasks so far.
    """

    training_images = TrainingImages("seen")


class JointHeads(MultiHead):
    """One network and as many heads as tasks learn all tasks so far at each task; a gate weighs the
    heads: what several heads with that gate could reach if nothing had to be forgotten.

    Its last row is the upper bound. The loss is the mean over all pairs, each by the head of its
    task. A task ends with its last epoch, since no score of one head could choose the best.

    Args:
        options: see `MultiHead`.
    """

    training_images = TrainingImages("seen")
    selects_best = False

    def head_parameters(self) -> list[nn.Parameter]:
        """The heads of all tasks so far."""
        return list(self.heads.weight)[: self.seen]

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Fidelity loss over the pairs of the batch, each by the head of its task."""
        feature = batch["feature"] if "feature" in batch else self.backbone(batch["image"])
        heads = torch.stack([self.heads(feature, k) for k in range(self.seen)], dim=1)
        score = heads.gather(1, batch["task"][:, None] - 1)[:, 0]
        return pair_loss(score, batch["pairs"], batch["target"], self.link)


class WeightAverage(SingleHead):
    """Sequential fine-tuning whose network and head, after each task, become their mean over the
    ends of all tasks so far; the next task goes on from there.

    After task t: mean + (learnt - mean) / t, running statistics of norms included. Weight averaging
    after Izmailov et al., https://arxiv.org/abs/1803.05407, over tasks in the place of epochs; a
    row for comparison.

    Args:
        options: see `SingleHead`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.mean = Teacher(self.backbone, self.heads)

    def on_task_end(self, task: Task, images: Iterable[Batch], batches: Iterable[Batch]) -> None:
        """Move the mean, and go on from it."""
        super().on_task_end(task, images, batches)
        self.mean.follow(self.backbone, self.heads, 1 - 1 / task.t)
        self.backbone.load_state_dict(self.mean.backbone.state_dict())
        self.heads.load_state_dict(self.mean.heads.state_dict())


class SeparateModels(SingleHead):
    """Each task is learnt from the start weights anew (SL of https://arxiv.org/abs/2102.09717).

    After task t the model of task t rates all data sets. The start weights are kept beside the
    model, as parameters that nothing trains.
    """

    independent_tasks = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.start = nn.ModuleList(
            [copy.deepcopy(self.backbone), copy.deepcopy(self.heads)]
        ).requires_grad_(False)

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Forget everything."""
        super().on_task_start(task, images)
        for module, start in zip((self.backbone, self.heads), self.start, strict=True):
            module.load_state_dict(start.state_dict())
        start_head(self, self.heads, 0, task, images)

    def added_parameters(self) -> int:
        """A task adds a whole model."""
        return sum(p.numel() for p in [*self.body_parameters(), *self.head_parameters()])
