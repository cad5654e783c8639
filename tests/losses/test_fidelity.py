"""The fidelity loss against values computed from its formula, and where it must stay finite."""

import math

import pytest
import torch
from scipy.stats import norm

from iqa_lightning.losses.fidelity import fidelity, pair_loss, preference

PAIR = torch.tensor([[0, 1]])


@pytest.mark.parametrize(
    ("p", "y", "expected"),
    [
        (0.5, 1, 0.2927932117423847),
        (1, 1, -0.00010000499999996962),
        (0.5, 0.5, -1.999999987845058e-08),
        (0.3, 0.7, 0.08348483918704325),
    ],
)
def test_golden_preferences(p: float, y: float, expected: float) -> None:
    loss = fidelity(torch.tensor([p], dtype=torch.float64), torch.tensor([y], dtype=torch.float64))
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("delta", "expected"), [(1.0, 0.08265152980855671), (-1.0, 0.60158446687148)]
)
def test_golden_differences(delta: float, expected: float) -> None:
    assert pair_loss(torch.tensor([delta, 0.0]), PAIR, torch.tensor([1.0])).item() == pytest.approx(
        expected, abs=1e-6
    )


@pytest.mark.parametrize(
    ("scores", "mos", "expected"),
    [
        ([3.2, 2.1, 4.0, 1.5], [60, 40, 80, 20], 0.06168844902377688),
        ([3.2, 2.1, 4.0, 1.5], [20, 40, 80, 60], 0.337678582626364),
        ([3.0, 3.0], [1, 1], -1.999999987845058e-08),
        ([3.0, 3.0], [1, 2], 0.2927932117423847),
    ],
)
def test_golden_batches(scores: list[float], mos: list[float], expected: float) -> None:
    pairs = torch.combinations(torch.arange(len(mos)), 2)
    target = torch.tensor(
        [0.5 + 0.5 * math.copysign(mos[i] != mos[j], mos[i] - mos[j]) for i, j in pairs.tolist()]
    )
    assert pair_loss(torch.tensor(scores), pairs, target).item() == pytest.approx(
        expected, abs=1e-6
    )


def test_links_are_normal_distributions() -> None:
    delta = torch.linspace(-4, 4, 33, dtype=torch.float64)
    torch.testing.assert_close(preference(delta), torch.from_numpy(norm.cdf(delta)))
    torch.testing.assert_close(
        preference(delta, "phi_unit"), torch.from_numpy(norm.cdf(delta / math.sqrt(2)))
    )
    assert preference(torch.tensor([1.0])).item() == pytest.approx(0.8413447460685429, abs=1e-6)


def test_an_unknown_link_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'probit'.*phi_unit"):
        preference(torch.zeros(1), "probit")


@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("delta", [-80.0, -6.0, 0.0, 6.0, 80.0])
def test_gradients_stay_finite(delta: float, target: float) -> None:
    scores = torch.tensor([delta, 0.0], requires_grad=True)
    pair_loss(scores, PAIR, torch.tensor([target])).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_a_step_downhill_puts_the_better_image_first() -> None:
    scores = torch.zeros(2, requires_grad=True)
    pair_loss(scores, PAIR, torch.tensor([1.0])).backward()
    assert scores.grad is not None
    assert scores.grad[0] < 0 < scores.grad[1]


def test_half_precision_scores_are_compared_in_single_precision() -> None:
    scores = torch.tensor([0.30078125, 0.296875], dtype=torch.bfloat16)
    loss = pair_loss(scores, PAIR, torch.tensor([1], dtype=torch.long))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1 - math.sqrt(norm.cdf(0.00390625) + 1e-8) - 1e-4, abs=1e-6)


def test_no_pair_is_no_loss() -> None:
    scores = torch.zeros(2, requires_grad=True)
    loss = pair_loss(scores, torch.zeros(0, 2, dtype=torch.long), torch.zeros(0))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert scores.grad.tolist() == [0, 0]
