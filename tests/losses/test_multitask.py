"""LIQE's losses and weights against the specification's values and sums by hand in NumPy."""

import math

import numpy as np
import pytest
import torch

from iqa_lightning.losses.multitask import (
    DynamicWeightAverage,
    GradNorm,
    Uncertainty,
    Weighting,
    distortion_loss,
    dwa_weights,
    joint_distillation,
    quality_loss,
    scene_loss,
)

ALL = torch.ones(3)
P_SCENE = [0.4, 0.3, 0.1, 0.05, 0.05, 0.04, 0.03, 0.02, 0.01]
P_DISTORTION = [0.5, 0.2, 0.1, 0.05, 0.05, 0.03, 0.02, 0.02, 0.01, 0.01, 0.01]


def pairs_of(mos: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = torch.combinations(torch.arange(len(mos)), 2)
    values = torch.tensor(mos)
    return pairs, 0.5 * (1 + torch.sign(values[pairs[:, 0]] - values[pairs[:, 1]]))


@pytest.mark.parametrize(
    ("q", "mos", "golden"),  # specs/golden.json, batch_all_pairs
    [
        ([3.2, 2.1, 4.0, 1.5], [60, 40, 80, 20], 0.06168844902377688),
        ([3.2, 2.1, 4.0, 1.5], [20, 40, 80, 60], 0.337678582626364),
        ([3, 3], [1, 1], -1.999999987845058e-08),
        ([3, 3], [1, 2], 0.2927932117423847),
    ],
)
def test_golden_quality_loss(q: list[float], mos: list[float], golden: float) -> None:
    pairs, target = pairs_of([float(x) for x in mos])
    loss = quality_loss(torch.tensor(q), pairs, target, torch.zeros(len(q), dtype=torch.long))
    assert loss.item() == pytest.approx(golden, abs=1e-6)


def test_quality_is_averaged_within_sets_first() -> None:
    """Two sets, one of three pairs and one of one: the mean of the two means, not of the four
    pairs.
    """
    q = torch.tensor([1.0, 2.0, 3.0, 2.0, 2.5], requires_grad=True)
    source = torch.tensor([0, 0, 0, 7, 7])
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2], [3, 4]])
    target = torch.tensor([1.0, 0.0, 0.0, 1.0])

    def one(delta: float, g: float) -> float:
        p = 0.5 * (1 + math.erf(delta / math.sqrt(2)))
        return 1 - math.sqrt(p * g + 1e-8) - math.sqrt((1 - p) * (1 - g) + 1e-8)

    first = (one(-1, 1) + one(-2, 0) + one(-1, 0)) / 3
    loss = quality_loss(q, pairs, target, source)
    assert loss.item() == pytest.approx((first + one(-0.5, 1)) / 2, abs=1e-6)
    loss.backward()
    assert q.grad is not None
    assert quality_loss(q, pairs[:0], target[:0], source).item() == 0.0


def test_golden_scene_loss() -> None:
    target = torch.zeros(2, 9)
    target[0, :2] = 1
    p = torch.tensor([P_SCENE, P_SCENE[::-1]])
    assert scene_loss(p, target).item() == pytest.approx(
        0.10791789806308304, abs=1e-7
    )  # the second has no scene
    assert scene_loss(p, torch.zeros(2, 9)).item() == 0.0


def test_golden_distortion_loss() -> None:
    p = torch.tensor([P_DISTORTION, P_DISTORTION], dtype=torch.float64)
    assert distortion_loss(p, torch.tensor([0, -1])).item() == pytest.approx(
        0.2918932117423848, abs=1e-6
    )
    perfect = torch.eye(11)[3:4]
    assert distortion_loss(perfect, torch.tensor([3])).item() == pytest.approx(
        -0.0010000049999999696, abs=1e-6
    )
    assert distortion_loss(p, torch.tensor([-1, -1])).item() == 0.0


def test_golden_dwa() -> None:
    found = dwa_weights(torch.tensor([0.08, 0.19, 0.33]), torch.tensor([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(
        found, [0.9260064102838327, 0.9981276332625146, 1.0758659564536526], rtol=1e-6
    )


def test_dwa_without_history_or_labels() -> None:
    found = dwa_weights(torch.tensor([0.1, 0.2, 0.0]), torch.tensor([0.0, 0.1, 0.3]))
    e = np.exp(np.array([1.0, 2.0]) / 2)  # before = 0 counts as no change
    np.testing.assert_allclose(found, [*(2 * e / e.sum()), 1.0], rtol=1e-6)


def test_dwa_over_epochs() -> None:
    """Weights are 1 in the first two epochs and again after a reset; from the third on they follow
    the means.
    """
    weighting = DynamicWeightAverage(3)
    steps = [[[0.05, 0.1, 0.2], [0.15, 0.3, 0.4]], [[0.08, 0.19, 0.33]]]
    for k, epoch in enumerate(steps):
        assert weighting.weights.tolist() == [1.0, 1.0, 1.0], k
        for losses in epoch:
            weighting.observe(torch.tensor(losses), ALL)
        weighting.end_epoch()
    golden = [0.9260064102838327, 0.9981276332625146, 1.0758659564536526]
    np.testing.assert_allclose(weighting.weights, golden, rtol=1e-6)
    losses = torch.tensor([1.0, 10.0, 100.0])
    total = weighting(losses, torch.tensor([1.0, 0.0, 1.0]), losses)
    assert total.item() == pytest.approx(golden[0] + 100 * golden[2], rel=1e-6)
    weighting.observe(losses, ALL)
    weighting.reset()
    weighting.observe(losses, ALL)
    weighting.end_epoch()
    weighting.end_epoch()  # no epoch in between
    assert weighting.weights.tolist() == [1.0, 1.0, 1.0]
    assert set(weighting.state_dict()) == {"weights", "history", "total", "count"}, (
        "a resumed run goes on with it"
    )


def test_equal_leaves_out_what_has_no_labels() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0])
    assert Weighting(3)(losses, torch.tensor([1.0, 0.0, 1.0]), losses).item() == 5.0


def test_uncertainty_finds_its_minimum() -> None:
    """exp(-s) l / 2 + s / 2 is least at s = log l."""
    weighting = Uncertainty(3)
    losses = torch.tensor([0.5, 0.1, 0.02])
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        weighting(losses, torch.tensor([1.0, 1.0, 0.0]), losses).backward()
        optimizer.step()
    np.testing.assert_allclose(
        weighting.log_variance.detach(), [math.log(0.5), math.log(0.1), 0.0], atol=0.01
    )
    weighting.reset()
    assert weighting.log_variance.tolist() == [0.0, 0.0, 0.0]


def test_gradnorm_by_hand() -> None:
    """Losses a w^2 / 2 of a shared number have gradients a w: what draws the weights is done with
    pencil and paper.
    """
    shared = torch.tensor([2.0], requires_grad=True)
    slope = torch.tensor([1.0, 3.0])
    weighting = GradNorm(2)
    first = (slope * shared.square() / 2).reshape(2)
    weighting(first, torch.ones(2), shared)
    with torch.no_grad():
        shared.fill_(1.0)
        weighting.weights.copy_(torch.tensor([1.0, 3.0]))  # scaled to a sum of 2: 0.5 and 1.5
    losses = (slope * shared.square() / 2).reshape(2)
    total = weighting(losses, torch.ones(2), shared)
    sizes = np.array(
        [0.5 * 1, 1.5 * 3]
    )  # both losses fell to a quarter: equal pace, both are drawn to the mean
    drawn = np.abs(sizes - sizes.mean()).sum()
    assert total.item() == pytest.approx(0.5 * 0.5 + 1.5 * 1.5 + drawn, rel=1e-6)
    total.backward()
    np.testing.assert_allclose(
        weighting.weights.grad, [-1.0, 3.0], rtol=1e-6
    )  # too small grows, too large shrinks
    np.testing.assert_allclose(
        shared.grad, [0.5 * 1 + 1.5 * 3], rtol=1e-6
    )  # the network feels the weighted sum alone
    with torch.no_grad():
        assert weighting(losses.detach(), torch.ones(2), shared).item() == pytest.approx(
            0.25 + 2.25
        )


def test_joint_distillation() -> None:
    p, q = (torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.2, 0.6]]))
    by_hand = 1 - (math.sqrt(0.1) + math.sqrt(0.06) + math.sqrt(0.12))
    assert joint_distillation(q, p).item() == pytest.approx(by_hand, abs=1e-5)
    kl = 0.5 * math.log(2.5) + 0.3 * math.log(1.5) + 0.2 * math.log(1 / 3)
    assert joint_distillation(q, p, "kl").item() == pytest.approx(kl, abs=1e-6)
    many = torch.softmax(torch.randn(4, 495, generator=torch.Generator().manual_seed(0)) * 8, dim=1)
    for kind in ("fidelity", "kl"):
        assert joint_distillation(many, many, kind).item() == pytest.approx(0.0, abs=1e-5)
    student = many.clone().requires_grad_(True)
    joint_distillation(student, torch.eye(495)[:4]).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    with pytest.raises(ValueError, match=r"method\.distils='l2'"):
        joint_distillation(p, q, "l2")
