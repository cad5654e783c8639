"""Losses of a generator and a critic that learn a distribution of features against each other.

WGAN-GP: Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017,
https://arxiv.org/abs/1704.00028.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Scores = Float[Tensor, " batch"]


Features = Float[Tensor, "batch width"]


def critic_loss(real: Scores, fake: Scores) -> Float[Tensor, ""]:
    """Mean score of what is generated minus that of what is real: minus the Wasserstein distance,
    from below.
    """
    return fake.mean() - real.mean()


def generator_loss(fake: Scores) -> Float[Tensor, ""]:
    """Minus the mean score of what is generated."""
    return -fake.mean()


def gradient_penalty(
    critic: Callable[[Features], Scores],
    real: Features,
    fake: Features,
    mix: Float[Tensor, "batch 1"],
) -> Float[Tensor, ""]:
    """Mean of (|gradient of the critic| - 1)^2 at mix * real + (1 - mix) * fake, `mix` in [0, 1];
    differentiable.
    """
    between = (mix * real + (1 - mix) * fake).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (torch.linalg.vector_norm(slope, dim=1) - 1).square().mean()
    return penalty


def generator_distillation(new: Features, old: Features) -> Float[Tensor, ""]:
    """Squared distance of what a generator makes of the same noise now and before: summed over
    features, mean.
    """
    return (new - old.detach()).square().sum(dim=1).mean()
