"""The fitted logistic curves against scipy's curve_fit, planted curves, and the cases where no fit
converges.
"""

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit

from iqa_lightning.metrics import correlation as logistic
from iqa_lightning.metrics.correlation import (
    plcc,
    plcc_logistic4,
    plcc_logistic5,
    rmse_logistic4,
    rmse_logistic5,
)


def four(x, b1, b2, b3, b4):
    return b2 + (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4)))


def five(x, b1, b2, b3, b4, b5):
    return b1 * (0.5 - 1 / (1 + np.exp(b2 * (x - b3)))) + b4 * x + b5


def sample(n: int = 200, noise: float = 5.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.uniform(-3, 3, n)
    return x, four(x, 90, 10, 0.4, 0.7) + random.normal(0, noise, n)


def test_curves_are_the_published_formulas() -> None:
    x = np.linspace(-3, 3, 31)
    b = np.array([80.0, 20.0, 0.3, -0.6, 4.0])
    np.testing.assert_allclose(logistic.logistic4(x, b[:4]), four(x, *b[:4]), rtol=1e-12)
    np.testing.assert_allclose(logistic.logistic5(x, b), five(x, *b), rtol=1e-12)


def test_equal_curve_fit_from_the_published_start() -> None:
    x, y = sample()
    best, _ = curve_fit(four, x, y, p0=(y.max(), y.min(), x.mean(), x.std()))
    np.testing.assert_allclose(logistic.map_logistic4(x, y), four(x, *best), rtol=1e-5)
    best, _ = curve_fit(five, x, y, p0=(10, 0, x.mean(), 0.1, 0.1))
    np.testing.assert_allclose(logistic.map_logistic5(x, y), five(x, *best), rtol=1e-5)
    assert plcc_logistic5(x, y) == pytest.approx(np.corrcoef(five(x, *best), y)[0, 1], abs=1e-6)


def test_planted_curves_are_found() -> None:
    x, y = sample(noise=0.0)
    assert plcc(x, y) < 0.98
    assert plcc_logistic4(x, y) == pytest.approx(1.0, abs=1e-6)
    assert rmse_logistic4(x, y) == pytest.approx(0.0, abs=1e-3)
    # the 5-parameter family contains every 4-parameter curve
    assert plcc_logistic5(x, y) == pytest.approx(1.0, abs=1e-4)
    assert rmse_logistic5(x, y) < 0.5


def test_a_wrong_direction_is_turned_round() -> None:
    x, y = sample()
    assert plcc(-x, y) < -0.9
    assert plcc_logistic4(-x, y) > 0.9
    assert plcc_logistic5(-x, y) > 0.9


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_noise_of_any_scale_gives_a_number_and_no_warning(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(0, scale, 31).astype(np.float32), random.normal(50, 15, 31)
    for measure in (plcc_logistic4, plcc_logistic5):
        assert -1e-9 <= measure(x, y) <= 1
    assert 0 < rmse_logistic4(x, y) < 2 * y.std()


def test_a_fit_that_does_not_converge_falls_back_to_the_straight_line(monkeypatch) -> None:
    x, y = sample()
    monkeypatch.setattr(
        logistic, "leastsq", lambda *_, **__: (np.ones(4), None, {}, "too many calls", 5)
    )
    slope, intercept = np.polyfit(x, y, 1)
    np.testing.assert_allclose(logistic.map_logistic4(x, y), slope * x + intercept)
    assert plcc_logistic4(x, y) == pytest.approx(plcc(x, y))


@pytest.mark.parametrize("parameters", [np.full(4, np.nan), np.array([1.0, 1.0, 0.0, 1.0])])
def test_a_fit_that_ends_nowhere_falls_back_to_the_straight_line(monkeypatch, parameters) -> None:
    x, y = sample()
    monkeypatch.setattr(logistic, "leastsq", lambda *_, **__: (parameters, None, {}, "", 1))
    assert plcc_logistic4(x, y) == pytest.approx(plcc(x, y))


def test_more_parameters_than_images_is_no_fit() -> None:
    x, y = sample(5)
    assert not math.isnan(plcc_logistic4(x, y))
    assert math.isnan(plcc_logistic4(x[:4], y[:4]))
    assert math.isnan(plcc_logistic5(x, y))
    assert math.isnan(rmse_logistic5(x, y))
