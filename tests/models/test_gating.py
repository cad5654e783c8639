"""Gates against naive loops."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from iqa_lightning.models.gating import (
    ExpertGate,
    Gate,
    KMeansGate,
    LDAGate,
    MeanFeatureGate,
    UniformGate,
)

WIDTHS = [6, 9]


def levels(images: int, seed: int, centre: float = 0.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(images, width, generator=generator) + centre * torch.eye(width)[0]
        for width in WIDTHS
    ]


def fitted(*images: int, **options: object) -> KMeansGate:
    gate = KMeansGate(WIDTHS, len(images) + 1, **{"clusters": 8, "restarts": 2} | options)  # type: ignore[arg-type]
    for t, count in enumerate(images, start=1):
        gate.fit(t, levels(count, t))
    return gate


def unit(rows: torch.Tensor) -> np.ndarray:
    rows = rows.double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_golden_weights() -> None:
    weights = Gate([4], 3).weigh(-32 * torch.tensor([[[0.1, 0.2, 0.15]]], dtype=torch.float64))
    expected = [[0.8047261748682356, 0.03280241248670941, 0.162471412645055]]
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-12)


def test_golden_size_for_a_resnet18() -> None:
    assert sum(level.numel() for level in KMeansGate([256, 512], 1).centroids) == 98_304
    assert (
        sum(level.numel() for level in KMeansGate([64, 128, 256, 512], 1, stages=4).centroids)
        == 122_880
    )


def test_distances_equal_a_naive_loop() -> None:
    gate, x = fitted(40, 20, 60), levels(7, seed=9)
    found = gate.distances(x, 3)
    assert found.shape == (2, 7, 3)
    for level, rows in enumerate(map(unit, x)):
        for i, row in enumerate(rows):
            for t in range(3):
                centres = gate.centroids[level][t, : gate.counts[t]].double().numpy()
                expected = min(np.sqrt(((row - centre) ** 2).sum()) for centre in centres)
                assert found[level, i, t].item() == pytest.approx(expected, abs=1e-6)


def test_a_gate_of_the_last_level_alone() -> None:
    both, last, x = fitted(40, 20), fitted(40, 20, stages=1), levels(7, seed=9)
    np.testing.assert_allclose(last.distances(x, 2)[0], both.distances(x, 2)[1], atol=1e-6)
    assert last.distances(x, 2).shape == (1, 7, 2)
    with pytest.raises(ValueError, match="stages=0"):
        fitted(40, stages=0)


def test_weights_are_the_mean_of_the_levels_softmins() -> None:
    gate, x = fitted(40, 20, 60), levels(7, seed=9)
    scale = np.exp(-32 * gate.distances(x, 3).double().numpy())
    np.testing.assert_allclose(
        gate(x, 3), (scale / scale.sum(axis=2, keepdims=True)).mean(axis=0), atol=1e-5
    )


@pytest.mark.parametrize("hard", [False, True])
def test_weights_sum_to_one_and_one_task_takes_all(hard: bool) -> None:
    gate, x = fitted(40, 20, 60, hard=hard), levels(50, seed=9)
    for seen in (1, 2, 3):
        weights = gate(x, seen)
        assert weights.shape == (50, seen)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(50))
    assert torch.equal(gate(x, 1), torch.ones(50, 1))


def test_a_hard_gate_takes_the_heaviest_task() -> None:
    gate, x = fitted(40, 20, 60), levels(50, seed=9)
    soft = gate(x, 3)
    gate.hard = True
    assert torch.equal(gate(x, 3), torch.nn.functional.one_hot(soft.argmax(dim=1), 3).float())


def test_images_of_a_task_are_given_to_it() -> None:
    gate = KMeansGate(WIDTHS, 2, clusters=8, restarts=2)
    for t, centre in ((1, 10.0), (2, -10.0)):
        gate.fit(t, levels(80, t, centre))
    assert gate(levels(30, 5, 10.0), 2)[:, 0].min() > 0.99
    assert gate(levels(30, 6, -10.0), 2)[:, 1].min() > 0.99


@pytest.mark.parametrize(
    ("images", "per_cluster", "expected"),
    [(40, 4, 8), (31, 4, 7), (20, 4, 5), (3, 4, 1), (6, 1, 6), (9, 1, 8)],
)
def test_k_is_capped_for_small_sets(images: int, per_cluster: int, expected: int) -> None:
    gate = fitted(images, images_per_cluster=per_cluster)
    assert gate.counts.tolist() == [expected, 0]
    assert torch.count_nonzero(gate.centroids[0][0].abs().sum(dim=1)) == expected


def test_places_without_a_centroid_are_never_used() -> None:
    gate, x = fitted(20, 12), levels(30, seed=9)
    expected = gate.distances(x, 2)
    with torch.no_grad():
        for level in gate.centroids:
            level[0, 5:] = level[1, 3:] = level[2] = torch.nan
    assert torch.equal(gate.distances(x, 2), expected)


def test_a_fit_is_deterministic_and_touches_its_task_only() -> None:
    gate, again = fitted(40, 20), fitted(40, 20)
    assert all(
        torch.equal(one, two) for one, two in zip(gate.centroids, again.centroids, strict=True)
    )
    before = [level[0].clone() for level in gate.centroids]
    gate.fit(2, levels(60, seed=3))
    assert all(
        torch.equal(level[0], old) for level, old in zip(gate.centroids, before, strict=True)
    )
    assert not torch.equal(gate.centroids[0][1], again.centroids[0][1])


def test_centroids_are_means_of_their_nearest_images() -> None:
    gate, x = fitted(40), levels(40, seed=1)
    for level, rows in zip(gate.centroids, map(unit, x), strict=True):
        centres = level[0].double().numpy()
        owner = np.linalg.norm(rows[:, None] - centres[None], axis=2).argmin(axis=1)
        expected = np.stack([rows[owner == k].mean(axis=0) for k in range(8)])
        np.testing.assert_allclose(centres, expected, atol=1e-6)


def test_the_gate_is_saved_and_never_trained() -> None:
    gate, x = fitted(40, 20), levels(7, seed=9)
    assert not any(parameter.requires_grad for parameter in gate.parameters())
    other = KMeansGate(WIDTHS, 3, clusters=8)
    other.load_state_dict(gate.state_dict())
    assert torch.equal(other(x, 2), gate(x, 2))


def test_the_length_of_a_feature_does_not_matter() -> None:
    gate, x = fitted(40, 20), levels(7, seed=9)
    torch.testing.assert_close(gate([1000 * level for level in x], 2), gate(x, 2))


ALL = [KMeansGate, ExpertGate, LDAGate, MeanFeatureGate, UniformGate]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("hard", [False, True])
def test_what_every_gate_does(kind: type[Gate], hard: bool) -> None:
    gate = kind(WIDTHS, 3)
    gate.hard = hard
    for t in (1, 2):
        gate.fit(t, levels(40, t, 3.0 * t))
    weights = gate(levels(30, seed=9), 2)
    assert weights.shape == (30, 2)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(30))
    assert torch.equal(gate(levels(30, seed=9), 1), torch.ones(30, 1))
    assert not hard or set(weights.unique().tolist()) <= {0.0, 1.0}
    assert not any(parameter.requires_grad for parameter in gate.parameters())
    again = kind(WIDTHS, 3)
    again.load_state_dict(gate.state_dict())
    again.hard = hard
    assert torch.equal(again(levels(30, seed=9), 2), weights)


@pytest.mark.parametrize("kind", [ExpertGate, MeanFeatureGate])
def test_gates_know_their_tasks(kind: type[Gate]) -> None:
    gate = kind([32], 2)
    sides = torch.eye(32)[0] * 6, torch.eye(32)[1] * 6
    for t, side in enumerate(sides, start=1):
        generator = torch.Generator().manual_seed(t)
        gate.fit(t, [torch.rand(200, 32, generator=generator) + side])
    x = torch.rand(50, 32, generator=torch.Generator().manual_seed(3))
    assert gate([x + sides[0]], 2)[:, 0].min() > 0.5
    assert gate([x + sides[1]], 2)[:, 1].min() > 0.5


def test_mean_features_by_hand() -> None:
    gate = MeanFeatureGate([2], 2)
    gate.fit(
        1, [torch.tensor([[2.0, 0.0], [0.0, 5.0]])]
    )  # unit rows (1, 0), (0, 1): mean at 45 degrees
    gate.fit(2, [torch.tensor([[1.0, 0.0]])])
    found = gate.distances([torch.tensor([[3.0, 0.0]])], 2)[0, 0]
    root = 0.5**0.5
    np.testing.assert_allclose(found, [((1 - root) ** 2 + root**2) / 2, 0.0], atol=1e-6)
    difference = ((1 - root) ** 2 + root**2) / 2
    expected = np.exp(-32 * difference) / (1 + np.exp(-32 * difference))
    assert gate([torch.tensor([[3.0, 0.0]])], 2)[0, 0].item() == pytest.approx(expected, rel=1e-4)


def test_an_expert_equals_its_formula_and_draws_nothing_from_the_global_generator() -> None:
    gate, x = ExpertGate([6], 1, hidden=3), levels(7, seed=9)[:1]
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    gate.fit(1, levels(40, 1)[:1])
    assert torch.equal(torch.rand(1), expected_next)
    state = {
        key: tensor.double().numpy() for key, tensor in gate.experts[0][0].state_dict().items()
    }
    for i, row in enumerate(unit(x[0])):
        code = np.maximum(state["0.weight"] @ row + state["0.bias"], 0)
        out = np.maximum(state["2.weight"] @ code + state["2.bias"], 0)
        error = np.mean((out / max(np.linalg.norm(out), 1e-12) - row) ** 2)
        assert gate.distances(x, 1)[0, i, 0].item() == pytest.approx(error, rel=1e-4, abs=1e-7)


def test_an_expert_learns_its_task() -> None:
    points = [
        torch.rand(200, 32, generator=torch.Generator().manual_seed(1)) + torch.eye(32)[0] * 6
    ]
    gate = ExpertGate([32], 2)
    start = gate.distances(points, 1).mean()
    gate.fit(1, points)
    assert gate.distances(points, 1).mean() < start / 5


def test_a_uniform_gate_shares_equally() -> None:
    assert torch.equal(UniformGate(WIDTHS, 4)(levels(5, 0), 4), torch.full((5, 4), 0.25))


def naive_lda(parts: list[np.ndarray], x: np.ndarray, shrinkage: float, t: float) -> np.ndarray:
    """The formula of the specification, image by image."""
    whole = np.concatenate(parts)
    mean, deviation = whole.mean(axis=0), whole.std(axis=0)
    parts, x = [(part - mean) / deviation for part in parts], (x - mean) / deviation
    means = [part.mean(axis=0) for part in parts]
    scatter = sum(
        (row - m)[:, None] * (row - m) for p, m in zip(parts, means, strict=True) for row in p
    )
    s = scatter / len(whole)
    c = (1 - shrinkage) * s + shrinkage * np.linalg.eigvalsh(s).mean() * np.eye(len(s))
    inverse = np.linalg.inv(c)
    d = np.array([[z @ inverse @ m - m @ inverse @ m / 2 for m in means] for z in x])
    return softmax(d / t, axis=1)


@pytest.mark.parametrize(("shrinkage", "temperature"), [(0.9, 16.0), (0.3, 1.0), (1.0, 4.0)])
def test_lda_is_its_formula(shrinkage: float, temperature: float) -> None:
    gate = LDAGate(WIDTHS, 4, shrinkage=shrinkage, temperature=temperature)
    parts = [levels(count, count, centre) for count, centre in ((40, 0.0), (25, 1.0), (33, 3.0))]
    for t, part in enumerate(parts, start=1):
        gate.fit(t, part)
    x = levels(9, seed=9)
    joined = [torch.cat(part, dim=1).double().numpy() for part in [*parts, x]]
    expected = naive_lda(joined[:3], joined[3], shrinkage, temperature)
    np.testing.assert_allclose(gate(x, 3), expected, atol=1e-6)


def test_lda_without_shrinkage_is_that_of_scikit_learn() -> None:
    parts = [levels(50, t, 1.5 * t) for t in (1, 2, 3)]
    gate = LDAGate(WIDTHS, 3, shrinkage=0.0, temperature=1.0)
    for t, part in enumerate(parts, start=1):
        gate.fit(t, part)
    x = levels(20, seed=9, centre=3.0)
    model = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3)
    model.fit(
        np.concatenate([torch.cat(p, dim=1).numpy() for p in parts]), np.repeat([1, 2, 3], 50)
    )
    expected = model.predict_proba(torch.cat(x, dim=1).numpy())
    np.testing.assert_allclose(gate(x, 3), expected, atol=2e-2)  # n against n - tasks


def test_lda_in_any_order_of_the_tasks() -> None:
    parts, x = [levels(30 + t, t, float(t)) for t in range(3)], levels(20, seed=9)
    found = []
    for order in permutations(range(3)):
        gate = LDAGate(WIDTHS, 3)
        for t, k in enumerate(order, start=1):
            gate.fit(t, parts[k])
        found.append(gate(x, 3)[:, np.argsort(order)])
    for weights in found[1:]:
        torch.testing.assert_close(weights, found[0], rtol=0, atol=1e-7)


def test_lda_knows_a_loaded_state_and_a_constant_feature() -> None:
    gate, other = LDAGate([3], 2), LDAGate([3], 2)
    for t in (1, 2):
        points = torch.randn(30, 3, generator=torch.Generator().manual_seed(t)) + 4.0 * t
        points[:, 2] = 7.0
        gate.fit(t, [points])
        other.fit(t, [points.flip(1)])
    x = [torch.randn(5, 3)]
    expected = gate(x, 2)
    assert torch.isfinite(expected).all()
    assert not torch.equal(other(x, 2), expected)
    other.load_state_dict(gate.state_dict())
    assert torch.equal(other(x, 2), expected)


def test_lda_refuses_what_is_no_shrinkage_or_temperature() -> None:
    with pytest.raises(ValueError, match=r"shrinkage=1\.5"):
        LDAGate(WIDTHS, 2, shrinkage=1.5)
    with pytest.raises(ValueError, match="temperature=0"):
        LDAGate(WIDTHS, 2, temperature=0)
