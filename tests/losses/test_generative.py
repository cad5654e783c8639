"""Losses of generator and critic: by hand, and the gradient penalty against finite differences."""

import numpy as np
import pytest
import torch

from iqa_lightning.losses.generative import (
    critic_loss,
    generator_distillation,
    generator_loss,
    gradient_penalty,
)
from iqa_lightning.models.generator import Critic


def test_by_hand() -> None:
    real, fake = torch.tensor([3.0, 1.0]), torch.tensor([0.5, -1.5, 1.0, 0.0])
    assert critic_loss(real, fake).item() == 0.0 - 2.0
    assert generator_loss(fake).item() == 0.0
    assert generator_loss(fake + 2).item() == -2.0


def test_distillation_by_hand() -> None:
    new = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    old = torch.tensor([[0.0, 0.0], [0.0, 3.0]], requires_grad=True)
    loss = generator_distillation(new, old)
    assert loss.item() == (1 + 4 + 9) / 2
    loss.backward()
    assert new.grad.tolist() == [[1.0, 2.0], [0.0, -3.0]]
    assert old.grad is None


def test_penalty_of_a_linear_critic_is_that_of_its_slope() -> None:
    slope = torch.tensor([3.0, 4.0])
    mix = torch.tensor([[0.2], [0.9], [0.0]])
    assert gradient_penalty(
        lambda x: x @ slope, torch.rand(3, 2), torch.rand(3, 2), mix
    ).item() == pytest.approx(16)


def finite_differences(critic: Critic, slot: torch.Tensor, between: np.ndarray) -> float:
    """Mean of (|gradient| - 1)^2 with each derivative by central differences, in double precision."""
    step, total = 1e-5, 0.0
    for row, own in zip(between, slot, strict=True):
        slope = []
        for i in range(len(row)):
            ends = np.stack([row, row])
            ends[:, i] += (step, -step)
            with torch.no_grad():
                high, low = critic(torch.from_numpy(ends), own.repeat(2)).tolist()
            slope.append((high - low) / (2 * step))
        total += (np.linalg.norm(slope) - 1) ** 2
    return total / len(between)


def test_penalty_and_its_gradient_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    critic = Critic(4, 3, hidden=6).double()
    for parameter in critic.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    slot, mix = torch.tensor([0, 2, 1, 1, 0]), torch.rand(5, 1).double()
    real, fake = torch.randn(2, 5, 4).double()
    between = (mix * real + (1 - mix) * fake).numpy()

    penalty = gradient_penalty(lambda x: critic(x, slot), real, fake, mix)
    assert penalty.item() == pytest.approx(finite_differences(critic, slot, between), rel=1e-6)
    penalty.backward()
    for name, parameter in critic.named_parameters():
        if parameter.grad is None:
            assert name == "score.bias"
            continue
        flat = parameter.data.view(-1)
        i = int(parameter.grad.abs().argmax())
        values = []
        for sign in (1, -1):
            flat[i] += sign * 1e-4
            values.append(finite_differences(critic, slot, between))
            flat[i] -= sign * 1e-4
        assert parameter.grad.view(-1)[i].item() == pytest.approx(
            (values[0] - values[1]) / 2e-4, rel=1e-3, abs=1e-6
        )
