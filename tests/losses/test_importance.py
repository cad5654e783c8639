"""Importances and penalties against numbers worked by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from iqa_lightning.losses import importance


def test_penalty_by_hand() -> None:
    one, two = (
        torch.tensor([1.0, 2.0], requires_grad=True),
        torch.tensor([[3.0]], requires_grad=True),
    )
    anchors, weights = (
        [torch.tensor([0.0, 4.0]), torch.tensor([[1.0]])],
        [torch.tensor([2.0, 0.5]), torch.tensor([[10.0]])],
    )
    found = importance.penalty([one, two], anchors, weights, ["one", "two"])
    assert found.item() == 2 * 1 + 0.5 * 4 + 10 * 4  # no factor 1/2
    found.backward()
    assert one.grad is not None
    assert one.grad.tolist() == [2 * 2 * 1.0, 2 * 0.5 * -2.0]


def test_a_penalty_that_is_no_number_names_the_parameter() -> None:
    good, bad = torch.ones(2), torch.tensor([1.0, math.nan])
    with pytest.raises(ValueError, match=r"'conv\.weight' is not a finite number"):
        importance.penalty([good, good], [good, good], [good, bad], ["stem.weight", "conv.weight"])
    with pytest.raises(ValueError, match=r"importance of 'conv\.weight'"):
        importance.check_finite([good, bad], ["stem.weight", "conv.weight"])


def test_slopes_equal_the_formulas() -> None:
    delta, target = np.array([0.4, -1.0, 0.0]), np.array([0.8, 0.0, 0.5])
    p, density = norm.cdf(delta), norm.pdf(delta)
    by_p = -target / (2 * np.sqrt(p * target + 1e-8)) + (1 - target) / (
        2 * np.sqrt((1 - p) * (1 - target) + 1e-8)
    )
    both = torch.tensor(delta), torch.tensor(target)
    np.testing.assert_allclose(importance.ewc_slopes(*both), by_p * density, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(importance.mas_slopes(both[0]), 2 * p * density, rtol=1e-9)


def test_sums_over_pairs_by_hand() -> None:
    gradients = {
        "w": torch.tensor([[[1.0], [2.0]], [[4.0], [0.0]], [[0.0], [5.0]]])
    }  # three images, shape (2, 1)
    pairs, slope = torch.tensor([[0, 1], [2, 0]]), torch.tensor([2.0, -3.0])
    # pair gradients: 2 * (-3, 2) = (-6, 4); -3 * (-1, 3) = (3, -9)
    assert importance.sum_over_pairs(gradients, slope, pairs, 2)["w"].tolist() == [
        [36 + 9],
        [16 + 81],
    ]
    assert importance.sum_over_pairs(gradients, slope, pairs, 1)["w"].tolist() == [[6 + 3], [4 + 9]]


def test_si_by_hand() -> None:
    found = importance.si_importance(
        torch.tensor([0.3, -0.2]), torch.tensor([0.2, 0.0]), damping=0.1
    )
    torch.testing.assert_close(found, torch.tensor([0.3 / 0.14, -2.0]))
