"""Ridge regression against scikit-learn, naive leave-one-out and the joint solution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from iqa_lightning.models.ridge import (
    ALPHAS,
    RandomProjection,
    RidgeStatistics,
    decompose,
    fit_ridge,
    z_scored,
)


def drawn(seed: int, images: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of very different scales, one of them constant, and a noisy linear target."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(images, width)) * np.logspace(-3, 3, width) + 5
    x[:, 0] = 2.0
    return x, (x - 5) @ rng.normal(size=width) / np.logspace(-3, 3, width).sum() + rng.normal(
        size=images
    )


@pytest.mark.parametrize(("images", "width"), [(30, 6), (8, 20)])
def test_equals_scikit_learn_and_naive_leave_one_out(images: int, width: int) -> None:
    x, y = drawn(1, images, width)
    found = fit_ridge(x, y, alphas=[0.1, 10.0])
    scaler = StandardScaler().fit(x)
    errors = []
    for alpha in (0.1, 10.0):
        held_out = []
        for i in range(images):
            rest = np.arange(images) != i
            model = SklearnRidge(alpha=alpha).fit(scaler.transform(x[rest]), y[rest])
            held_out.append(y[i] - model.predict(scaler.transform(x[i : i + 1]))[0])
        errors.append(np.mean(np.square(held_out)))
    best = int(np.argmin(errors))
    assert found.alpha == (0.1, 10.0)[best]
    assert found.error == pytest.approx(errors[best], rel=1e-9)
    expected = SklearnRidge(alpha=found.alpha).fit(scaler.transform(x), y)
    new, _ = drawn(2, 5, width)
    np.testing.assert_allclose(
        new @ found.weight + found.bias, expected.predict(scaler.transform(new)), rtol=1e-8
    )


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_decomposition_gives_the_features_again(images: int, width: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(images, width))
    x -= x.mean(axis=0)
    u, s, vt = decompose(x)
    np.testing.assert_allclose((u * s) @ vt, x, atol=1e-5)
    np.testing.assert_allclose(u.T @ u, np.eye(len(s)), atol=1e-6)


def test_a_target_without_signal_gets_the_largest_penalty_and_no_weight() -> None:
    x, _ = drawn(3, 40, 10)
    found = fit_ridge(x, np.random.default_rng(4).normal(size=40))
    assert found.alpha >= 100
    flat = fit_ridge(x, np.full(40, 3.0))
    np.testing.assert_allclose(flat.weight, 0.0, atol=1e-12)
    assert flat.bias == pytest.approx(3.0)


def test_statistics_of_tasks_equal_the_joint_ridge() -> None:
    parts = [drawn(seed, count, 7) for seed, count in ((1, 30), (2, 11), (3, 52))]
    statistics = RidgeStatistics(7)
    for x, y in parts:
        statistics.add(x, y)
    found = statistics.solve(3.0)
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    scaler = StandardScaler().fit(x)
    expected = SklearnRidge(alpha=3.0).fit(scaler.transform(x), y)
    new, _ = drawn(9, 20, 7)
    prediction = expected.predict(scaler.transform(new))
    np.testing.assert_allclose(new @ found.weight + found.bias, prediction, rtol=1e-8, atol=1e-8)
    residual = np.mean((y - expected.predict(scaler.transform(x))) ** 2)
    assert found.error == pytest.approx(residual, rel=1e-8)


def test_scores_of_ratings() -> None:
    assert z_scored(np.array([1.0, 3.0])).tolist() == [-1.0, 1.0]
    assert z_scored(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]


def test_too_few_images_and_broken_features_are_refused() -> None:
    with pytest.raises(ValueError, match="three images or more"):
        fit_ridge(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        fit_ridge(np.full((5, 3), np.nan), np.zeros(5))


def test_a_projection_is_its_formula_and_follows_from_its_seed() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(3, 2, size=(20, 4)))
    one, again, other = (RandomProjection(4, 6, seed) for seed in (1, 1, 2))
    one.fit(x)
    again.load_state_dict(one.state_dict())
    standard = (x.numpy() - x.numpy().mean(axis=0)) / x.numpy().std(axis=0)
    expected = np.maximum(standard @ one.matrix.numpy(), 0)
    np.testing.assert_allclose(one(x), expected, atol=1e-12)
    assert torch.equal(one(x), again(x))
    assert not torch.equal(one.matrix, other.matrix)
    assert torch.equal(RandomProjection(4, 0)(x), x)


def test_the_grid_of_penalties() -> None:
    assert (ALPHAS[0], ALPHAS[-1], len(ALPHAS)) == (1e-2, 1e6, 33)
