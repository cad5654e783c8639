"""LPF's losses at their edges."""

import math

import pytest
import torch

from iqa_lightning.losses.comparison import (
    categories,
    category_bounds,
    comparable_pairs,
    comparison_loss,
    score_loss,
)
from iqa_lightning.models.lpf_heads import ComparisonHead, QualityRegression


def test_categories_at_their_bounds() -> None:
    y = torch.tensor([0.0, 0.249, 0.25, 0.5, 0.75, 1.0])
    assert categories(y, category_bounds(y, "width")).tolist() == [0, 0, 1, 2, 3, 3]
    assert [min(3, math.floor(4 * v)) for v in y.tolist()] == [0, 0, 1, 2, 3, 3]


def test_quartiles_leave_no_category_empty() -> None:
    y = torch.rand(40, generator=torch.Generator().manual_seed(0)) ** 4
    found = categories(y, category_bounds(y)).bincount()
    assert found.tolist() == [10, 10, 10, 10]


def test_ties_are_left_out() -> None:
    y, pairs = torch.tensor([0.1, 0.5, 0.5, 0.6]), torch.combinations(torch.arange(4), 2)
    assert comparable_pairs(y, pairs).tolist() == [[0, 1], [0, 2], [0, 3], [1, 3], [2, 3]]
    assert comparable_pairs(y, pairs, 0.2).tolist() == [[0, 1], [0, 2], [0, 3]]
    assert comparable_pairs(torch.full((4,), 0.3), pairs).shape == (0, 2)


def test_comparison_is_the_binary_cross_entropy() -> None:
    y, pairs = torch.tensor([0.2, 0.6]), torch.tensor([[0, 1], [1, 0]])
    logits = torch.tensor([0.3, -1.2])
    hard = (math.log1p(math.exp(0.3)) + math.log1p(math.exp(1.2))) / 2
    assert float(comparison_loss(logits, y, pairs)) == pytest.approx(hard, abs=1e-6)
    p = 0.5 * math.erfc(0.4 / (math.sqrt(2) * 0.5) / math.sqrt(2))  # Phi(-0.4 / (sqrt 2 * 0.5))
    soft = [
        -(w * math.log(1 / (1 + math.exp(-z))) + (1 - w) * math.log(1 / (1 + math.exp(z))))
        for z, w in ((0.3, p), (-1.2, 1 - p))
    ]
    found = float(comparison_loss(logits, y, pairs, spread=0.5))
    assert found == pytest.approx(sum(soft) / 2, abs=1e-6)


def test_no_pair_is_zero_with_a_gradient() -> None:
    logits = torch.zeros(0, requires_grad=True)
    loss = comparison_loss(logits, torch.tensor([0.5]), torch.zeros(0, 2, dtype=torch.long))
    loss.backward()
    assert float(loss.detach()) == 0


def test_the_difference_head_is_antisymmetric() -> None:
    head, latent = ComparisonHead(8, "difference"), torch.randn(4, 8)
    pairs = torch.combinations(torch.arange(4), 2)
    both = head(latent, pairs) + head(latent, pairs.flip(1))
    assert torch.allclose(both, torch.zeros(6), atol=1e-6)


def test_the_score_is_a_weighted_mean_of_component_scores() -> None:
    torch.manual_seed(0)
    net, latent = QualityRegression(8, components=3), torch.randn(5, 8)
    w, s = net.weights(latent).exp(), 1 / (1 + (-net.scores(latent)).exp())
    expected = (w * s).sum(dim=1) / w.sum(dim=1)
    assert torch.allclose(net(latent), expected, atol=1e-6)
    assert ((net(100 * latent) >= 0) & (net(100 * latent) <= 1)).all()
    product = QualityRegression(8, components=1, gate="sigmoid")
    w, s = product.weights(latent)[:, 0], product.scores(latent)[:, 0]
    assert torch.allclose(product(latent), w.sigmoid() * s.sigmoid(), atol=1e-6)


def test_unknown_words_are_named() -> None:
    with pytest.raises(ValueError, match=r"method\.bins='log'"):
        category_bounds(torch.rand(4), "log")
    with pytest.raises(ValueError, match=r"method\.score_loss='l3'"):
        score_loss(torch.rand(4), torch.rand(4), "l3")
    with pytest.raises(ValueError, match=r"method\.component_weights='tanh'"):
        QualityRegression(gate="tanh")
