"""The three losses of LIQE and the ways to weigh them against one another.

Source: Zhang et al., CVPR 2023 (https://arxiv.org/abs/2303.14968) and its official code. Losses are
fidelity losses (see `losses/fidelity.py`): lower is better, 0 up to 1e-8 under each root at the
best.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from iqa_lightning.losses.fidelity import EPS, fidelity, preference

PerTask = Float[Tensor, " tasks"]


SMALL = 1e-16  # under the root of each of some hundred classes, where EPS would add up


KINDS = ("fidelity", "kl")


def quality_loss(
    scores: Float[Tensor, " images"],
    pairs: Int[Tensor, "pairs 2"],
    target: Float[Tensor, " pairs"],
    dataset_index: Int[Tensor, " images"],
    link: str = "phi",
) -> Float[Tensor, ""]:
    """Fidelity of the preferences, averaged over the pairs of each data set (`dataset_index`) and
    then over the data sets.

    Pairs lie within one data set; 0 without pairs. A data set without pairs does not count.
    """
    scores = scores.float()
    losses = fidelity(preference(scores[pairs[:, 0]] - scores[pairs[:, 1]], link), target.float())
    own = dataset_index[pairs[:, 0]]
    means = [losses[own == dataset].mean() for dataset in sorted(set(own.tolist()))]
    return torch.stack(means).mean() if means else scores.sum() * 0.0


def scene_loss(
    probability: Float[Tensor, "images scenes"], target: Float[Tensor, "images scenes"]
) -> Float[Tensor, ""]:
    """Binary fidelity averaged over the scenes and over the images that have a scene; 0 without
    such images.
    """
    labelled = target.sum(dim=1) > 0
    losses = fidelity(probability.float(), target.float()).mean(dim=1)
    return masked_mean(losses, labelled)


def distortion_loss(
    probability: Float[Tensor, "images distortions"], target: Int[Tensor, " images"]
) -> Float[Tensor, ""]:
    """1 - sum over classes of sqrt(g p + 1e-8), averaged over the images with a class (target from
    0); else 0.

    The zero classes make its floor -1e-4 for each of them.
    """
    labelled = target >= 0
    g = nn.functional.one_hot(target.clamp_min(0), probability.shape[1]).float()
    return masked_mean(1.0 - torch.sqrt(g * probability.float() + EPS).sum(dim=1), labelled)


def masked_mean(
    losses: Float[Tensor, " images"], mask: Bool[Tensor, " images"]
) -> Float[Tensor, ""]:
    """Mean where the mask is true, 0 where it never is."""
    return (losses * mask).sum() / mask.sum().clamp_min(1)


def joint_distillation(
    student: Float[Tensor, "images classes"],
    teacher: Float[Tensor, "images classes"],
    kind: str = "fidelity",
) -> Float[Tensor, ""]:
    """How far a joint distribution is from a teacher's, averaged over the images; 0 where they are
    the same.

    `fidelity`: 1 - sum sqrt(p_old p_new). `kl`: sum p_old log(p_old / p_new). The teacher gets no
    gradient.

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"method.distils={kind!r}: choose one of {KINDS}")
    p, q = teacher.detach().float(), student.float()
    if kind == "kl":
        floor = torch.finfo(torch.float32).tiny
        gain: Tensor = p * (p.clamp_min(floor).log() - q.clamp_min(floor).log())
        return gain.sum(dim=1).mean()
    likeness: Tensor = torch.sqrt(p * q + SMALL) - SMALL**0.5
    return (1.0 - likeness.sum(dim=1)).mean()


def dwa_weights(last: PerTask, before: PerTask, temperature: float = 2.0) -> PerTask:
    """Dynamic weight averaging: K exp(r / T) / sum exp(r / T) with r = last / before, the mean
    losses of two epochs.

    Tasks whose `last` is 0 had no labels: they do not count among the K, and their weight is 1.
    Where `before` is 0, r is 1. Source: Liu et al., CVPR 2019, https://arxiv.org/abs/1803.10704.
    """
    known = last != 0
    ratio = torch.where(before != 0, last / before, torch.ones_like(last))
    shares = (ratio / temperature).masked_fill(~known, -torch.inf).softmax(dim=0)
    return torch.where(known, known.sum() * shares, torch.ones_like(last))


class Weighting(nn.Module):
    """Adds up the losses of `tasks` tasks, each with weight 1 (`equal`); what has no labels in a
    batch does not count.

    Learnt weights start anew at each task of a stream: ratios across a change of the data mean
    nothing.
    """

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.tasks = tasks

    def forward(
        self,
        losses: PerTask,
        present: Float[Tensor, " tasks"],
        shared: Tensor,  # for those who need it
    ) -> Float[Tensor, ""]:
        """The total; `present` is 1 where a loss has labels, `shared` a weight that all losses
        depend on.
        """
        return (losses * present).sum()

    def reset(self) -> None:
        """A task of the stream begins."""

    def observe(self, losses: PerTask, present: Float[Tensor, " tasks"]) -> None:
        """Losses of a training step, those that count, and how often each does, both as means over
        the ranks.
        """

    def end_epoch(self) -> None:
        """An epoch of training is over; without a step since the last one, nothing happens."""


class DynamicWeightAverage(Weighting):
    """Weights from how fast each loss fell between the last two epochs; all 1 in the first two
    epochs of a task.
    """

    def __init__(self, tasks: int, temperature: float = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        for name, shape in (
            ("weights", (tasks,)),
            ("history", (2, tasks)),
            ("total", (tasks,)),
            ("count", (tasks,)),
        ):
            self.register_buffer(name, torch.zeros(shape))
        self.weights: Tensor
        self.history: Tensor  # mean losses of the last epoch and of the one before
        self.total: Tensor
        self.count: Tensor
        self.reset()

    def forward(
        self, losses: PerTask, present: Float[Tensor, " tasks"], shared: Tensor
    ) -> Float[Tensor, ""]:
        """Weighted sum."""
        return super().forward(losses * self.weights, present, shared)

    def reset(self) -> None:
        """Forget all epochs."""
        self.weights.fill_(1.0)
        self.history.zero_()
        self.total.zero_()
        self.count.zero_()

    def observe(self, losses: PerTask, present: Float[Tensor, " tasks"]) -> None:
        """Add to the means of the epoch."""
        self.total += losses
        self.count += present

    def end_epoch(self) -> None:
        """Weights of the next epoch; a mean of 0 stands for an epoch that was not, or had no
        labels.
        """
        if not self.count.any():
            return
        mean = torch.where(self.count > 0, self.total / self.count, torch.zeros_like(self.total))
        if self.history[0].any():
            self.weights.copy_(dwa_weights(mean, self.history[0], self.temperature))
        self.history.copy_(torch.stack([mean, self.history[0]]))
        self.total.zero_()
        self.count.zero_()


class Uncertainty(Weighting):
    """Sum of exp(-s) l / 2 + s / 2 with a learnt log variance s for each task
    (https://arxiv.org/abs/1705.07115).
    """

    def __init__(self, tasks: int) -> None:
        super().__init__(tasks)
        self.log_variance = nn.Parameter(torch.zeros(tasks))

    def forward(
        self, losses: PerTask, present: Float[Tensor, " tasks"], shared: Tensor
    ) -> Float[Tensor, ""]:
        """Total of the labelled tasks."""
        weighted = 0.5 * (losses * torch.exp(-self.log_variance) + self.log_variance)
        return super().forward(weighted, present, shared)

    def reset(self) -> None:
        """All variances are 1."""
        with torch.no_grad():
            self.log_variance.zero_()


class GradNorm(Weighting):
    """Learnt weights that bring the gradients of all tasks to sizes that suit their pace of
    training.

    The size of a task's gradient at `shared`, times its weight, is drawn to the mean size times
    (the task's loss relative to its first, over the mean of that) to the power `alpha`. Source:
    Chen et al., ICML 2018, https://arxiv.org/abs/1711.02257.
    """

    def __init__(self, tasks: int, alpha: float = 1.5) -> None:
        super().__init__(tasks)
        self.alpha = alpha
        self.weights = nn.Parameter(torch.ones(tasks))
        self.first: Tensor
        self.register_buffer("first", torch.zeros(tasks))

    def forward(
        self, losses: PerTask, present: Float[Tensor, " tasks"], shared: Tensor
    ) -> Float[Tensor, ""]:
        """Weighted sum plus what draws the weights; weights get gradient from the latter alone."""
        with torch.no_grad():
            positive = self.weights.clamp_min(1e-3)
            self.weights.copy_(positive * self.tasks / positive.sum())
            unknown = (self.first == 0) & (present > 0)
            self.first.copy_(torch.where(unknown, losses.clamp_min(1e-6), self.first))
        total = super().forward(losses * self.weights.detach(), present, shared)
        active = present.nonzero()[:, 0].tolist()
        if not torch.is_grad_enabled() or not shared.requires_grad or len(active) < 2:
            return total + 0.0 * self.weights.sum()
        slopes = [
            torch.autograd.grad(losses[k], shared, retain_graph=True)[0].float().norm()
            for k in active
        ]
        sizes = self.weights[active] * torch.stack(slopes)
        pace = losses.detach()[active].clamp_min(1e-6) / self.first[active]
        wanted = sizes.detach().mean() * (pace / pace.mean()) ** self.alpha
        return total + (sizes - wanted).abs().sum()

    def reset(self) -> None:
        """All weights are 1, and the next losses the first."""
        with torch.no_grad():
            self.weights.fill_(1.0)
            self.first.zero_()
