"""What stands in for the images of earlier tasks: a source of features like theirs, a slot for each
distortion.

One interface, two sources: a conditional generator with a critic, and a Gaussian for each slot.
Neither keeps an image or a feature of one.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.covariance import ledoit_wolf_shrinkage
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from iqa_lightning.losses.generative import (
    critic_loss,
    generator_distillation,
    generator_loss,
    gradient_penalty,
)
from iqa_lightning.models.gating import frozen
from iqa_lightning.models.generator import Critic, Generator

Features = Float[Tensor, "count width"]


Backward = Callable[[Tensor], Any]


class FeatureGenerator(nn.Module):
    """A source of features by slot (from 0), of which all that is carried over tasks is allocated
    at the start.

    `noise` is a generator of random numbers on the CPU: the same numbers on every device and rank.
    """

    trained: bool
    """Whether it learns in steps, in a phase of its own; else by `fit` alone."""

    def sample(self, slot: Int[Tensor, " count"], noise: torch.Generator) -> Features:
        """One feature for each entry of `slot`; no gradient."""
        raise NotImplementedError

    def begin(self) -> None:
        """A task begins: what is replayed now must be kept."""

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Fresh optimisers of what `step` trains."""
        return []

    def step(
        self,
        feature: Features,
        slot: int,
        others: Sequence[int],
        optimizers: Sequence[Any],
        backward: Backward,
        noise: torch.Generator,
    ) -> dict[str, Tensor]:
        """Learn `slot` from a batch of real features while keeping `others`; losses by name."""
        raise NotImplementedError

    def fit(self, feature: Features, slot: int) -> None:
        """Take in all real features of a slot at once, when its task ends."""

    def added_parameters(self) -> int:
        """Numbers that one more slot takes."""
        raise NotImplementedError


class GaussianFeatureGenerator(FeatureGenerator):
    """A Gaussian for each slot: mean and covariance of its features, shrunk, in its `rank` widest
    directions.

    Shrinkage towards a multiple of the identity by Ledoit and Wolf (Journal of Multivariate
    Analysis 88, 2004, https://doi.org/10.1016/S0047-259X(03)00096-4). Of the shrunk covariance the
    widest directions are kept as they are, the variance of all others is spread evenly over them
    (exact if there are no more than `rank` + 1 features).
    """

    trained = False

    def __init__(self, width: int, num_slots: int, rank: int = 64) -> None:
        super().__init__()
        self.rank = min(rank, width - 1)
        self.mean = frozen(num_slots, width)
        self.factor = frozen(num_slots, self.rank, width)
        self.rest = frozen(num_slots)

    @torch.no_grad()
    def sample(self, slot: Int[Tensor, " count"], noise: torch.Generator) -> Features:
        """Mean plus noise along the kept directions plus noise in all directions."""
        shape = (len(slot), self.rank + self.mean.shape[1])
        z = torch.randn(shape, generator=noise).to(self.mean.device)
        inner, outer = z[:, : self.rank], z[:, self.rank :]
        feature = self.mean[slot] + self.rest[slot].sqrt()[:, None] * outer
        for k in sorted(set(slot.tolist())):
            mine = slot == k
            feature[mine] += inner[mine] @ self.factor[k]
        return feature

    @torch.no_grad()
    def fit(self, feature: Features, slot: int) -> None:
        """Mean, directions and the variance of the rest."""
        mean, factor, rest = shrunk_gaussian(feature.cpu().double().numpy(), self.rank)
        self.mean[slot] = torch.from_numpy(mean).to(self.mean)
        self.factor[slot] = torch.from_numpy(factor).to(self.mean)
        self.rest[slot] = rest

    def added_parameters(self) -> int:
        """Mean, factor and one variance."""
        return (1 + self.rank) * self.mean.shape[1] + 1


def shrunk_gaussian(feature: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean (width,), factor (rank, width) and rest of the covariance factor' factor + rest *
    identity.
    """
    count, width = feature.shape
    mean = feature.mean(axis=0)
    with threadpool_limits(limits=1):
        share = float(ledoit_wolf_shrinkage(feature))
        _, roots, directions = np.linalg.svd(feature - mean, full_matrices=False)
    # a direction and its opposite are the same: the largest entry is positive, so that machines
    # agree
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]
    variance = np.zeros(width)
    variance[: len(roots)] = roots**2 / count
    variance = (1 - share) * variance + share * variance.mean()
    rest = float(variance[rank:].mean())
    kept = min(rank, len(roots))
    factor = np.zeros((rank, width))
    factor[:kept] = np.sqrt(np.clip(variance[:kept] - rest, 0, None))[:, None] * directions[:kept]
    return mean, factor, rest


class GANFeatureGenerator(FeatureGenerator):
    """A conditional generator, taught by a projection critic (WGAN-GP), which itself learns without
    forgetting.

    A step makes `steps` updates of the generator, each after `critic_steps` of the critic, on
    `batch_size` features drawn from those given. Kept: `keep_weight` times the number of other
    slots times the squared distance to what the generator made of the same noise when the task
    began. Constants: Adam's betas, `penalty`, `critic_steps`, `noise` of Generative Feature Replay
    (see `models.generator`), whose rate of 1e-4 is for tens of thousands of updates.

    Features are standardised by the mean and deviation of the first batch of the first task
    (design): rates and `penalty` then mean the same for every backbone.
    """

    trained = True

    def __init__(
        self,
        width: int,
        num_slots: int,
        noise: int = 200,
        hidden: int | None = None,
        lr: float = 1e-4,
        betas: Sequence[float] = (0.5, 0.999),
        penalty: float = 10.0,
        critic_steps: int = 5,
        keep_weight: float = 1e-3,
        steps: int = 50,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        self.generator = Generator(width, num_slots, noise, hidden)
        self.critic = Critic(width, num_slots, hidden)
        self.teacher = copy.deepcopy(self.generator).requires_grad_(False)
        self.lr, self.betas, self.penalty, self.critic_steps = (
            lr,
            tuple(betas),
            penalty,
            critic_steps,
        )
        self.keep_weight, self.steps, self.batch_size = keep_weight, steps, batch_size
        self.mean, self.std = frozen(width), frozen(width)

    @torch.no_grad()
    def sample(self, slot: Int[Tensor, " count"], noise: torch.Generator) -> Features:
        """Features as they were before they were standardised."""
        feature: Tensor = self.mean + self.std * self.generator(self.draw(len(slot), noise), slot)
        return feature

    def draw(self, count: int, noise: torch.Generator) -> Float[Tensor, "count noise"]:
        """Standard normal noise."""
        return torch.randn(count, self.generator.noise, generator=noise).to(self.mean.device)

    def begin(self) -> None:
        """The generator as it is now is its own teacher."""
        self.teacher.load_state_dict(self.generator.state_dict())

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Of the generator and of the critic."""
        parts = (self.generator, self.critic)
        return [torch.optim.Adam(part.parameters(), lr=self.lr, betas=self.betas) for part in parts]  # type: ignore[arg-type]  # two betas

    def step(
        self,
        feature: Features,
        slot: int,
        others: Sequence[int],
        optimizers: Sequence[Any],
        backward: Backward,
        noise: torch.Generator,
    ) -> dict[str, Tensor]:
        """`steps` updates of the generator; the losses of the last."""
        if not self.std.any():
            self.standardise(feature)
        real = (feature - self.mean) / self.std
        of_generator, of_critic = optimizers
        for _ in range(self.steps):
            for _ in range(self.critic_steps):
                critic = self.critic_loss(real, slot, noise)
                descend(critic, of_critic, backward)
            generator = self.generator_loss(slot, others, noise)
            descend(generator, of_generator, backward)
        return {"critic": critic.detach(), "generator": generator.detach()}

    @torch.no_grad()
    def standardise(self, feature: Features) -> None:
        """Take mean and deviation; a feature that hardly moves is not blown up beyond ten times the
        others.
        """
        std = feature.std(dim=0)
        self.mean.copy_(feature.mean(dim=0))
        self.std.copy_(std.clamp_min(0.1 * std.mean()))

    def critic_loss(self, real: Features, slot: int, noise: torch.Generator) -> Float[Tensor, ""]:
        """Wasserstein loss and penalty on features drawn from `real` and as many generated ones."""
        count = min(self.batch_size, len(real))
        own = real[torch.randint(len(real), (count,), generator=noise).to(real.device)]
        condition = torch.full((count,), slot, device=real.device)
        with torch.no_grad():
            fake = self.generator(self.draw(count, noise), condition)
        mix = torch.rand(count, 1, generator=noise).to(real)
        scores = self.critic(own, condition), self.critic(fake, condition)
        penalty = gradient_penalty(lambda feature: self.critic(feature, condition), own, fake, mix)
        return critic_loss(*scores) + self.penalty * penalty

    def generator_loss(
        self, slot: int, others: Sequence[int], noise: torch.Generator
    ) -> Float[Tensor, ""]:
        """Loss of new features of `slot`, and what keeps those of the others."""
        z = self.draw(self.batch_size, noise)
        condition = torch.full((len(z),), slot, device=z.device)
        loss = generator_loss(self.critic(self.generator(z, condition), condition))
        if not others or self.keep_weight == 0:
            return loss
        z = self.draw(self.batch_size, noise)
        condition = torch.tensor(others)[torch.randint(len(others), (len(z),), generator=noise)].to(
            z.device
        )
        kept = generator_distillation(self.generator(z, condition), self.teacher(z, condition))
        return loss + self.keep_weight * len(others) * kept

    def added_parameters(self) -> int:
        """A condition row of the generator and one of the critic."""
        return self.generator.row() + self.critic.row()


def descend(loss: Tensor, optimizer: Any, backward: Backward) -> None:
    """One step of an optimiser."""
    optimizer.zero_grad()
    backward(loss)
    optimizer.step()
