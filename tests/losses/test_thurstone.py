"""UNIQUE's preference and hinge: golden values and gradients."""

import math

import pytest
import torch

from iqa_lightning.losses.fidelity import fidelity
from iqa_lightning.losses.thurstone import deviation_hinge, thurstone

PAIR = torch.tensor([[0, 1]])


def test_golden_preference_and_fidelity() -> None:
    p = thurstone(torch.tensor([1.0, 0.4]), torch.tensor([0.3, 0.4]), PAIR)
    assert p.item() == pytest.approx(0.8849303251178264, abs=1e-6)
    assert fidelity(p.double(), torch.tensor([0.8]).double()).item() == pytest.approx(
        0.006902281083506989, abs=1e-6
    )


def test_golden_hinge() -> None:
    sigma = torch.tensor([0.30, 0.29])
    for std, expected in (
        ([2.0, 1.0], 0.015),
        ([1.0, 2.0], 0.035),
        ([1.0, 1.0], 0.025),
        ([math.nan, 1.0], 0.0),
    ):
        assert deviation_hinge(sigma, torch.tensor(std), PAIR).item() == pytest.approx(
            expected, abs=1e-6
        )
    assert deviation_hinge(torch.tensor([0.4, 0.3]), torch.tensor([2.0, 1.0]), PAIR).item() == 0


def test_each_output_has_its_own_teacher() -> None:
    mean, sigma = (
        torch.tensor([1.0, 0.4], requires_grad=True),
        torch.tensor([0.3, 0.29], requires_grad=True),
    )
    thurstone(mean, sigma, PAIR).sum().backward()
    assert sigma.grad is None
    assert mean.grad is not None
    assert mean.grad[0] > 0
    deviation_hinge(sigma, torch.tensor([2.0, 1.0]), PAIR).sum().backward()
    assert sigma.grad.tolist() == [-1.0, 1.0]
    sigma.grad = None
    for std in ([1.0, 1.0], [math.nan, 1.0]):
        deviation_hinge(sigma, torch.tensor(std), PAIR).sum().backward()
        assert sigma.grad.tolist() == [0.0, 0.0]
        sigma.grad = None
