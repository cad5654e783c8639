"""Correlations against scipy, counting by hand, and the values worked out for the specification."""

import csv
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from iqa_lightning.metrics import correlation
from iqa_lightning.metrics.correlation import interval, krcc, plcc, rmse, srcc

CORRELATIONS = [srcc, plcc, krcc, correlation.plcc_logistic4, correlation.plcc_logistic5]
# few distinct values, so that ties are frequent
PAIRS = arrays.arrays(
    np.float64, st.tuples(st.just(2), st.integers(2, 30)), elements=st.integers(-5, 5).map(float)
)
RELAXED = settings(deadline=None, max_examples=50)


def tau_b(x: np.ndarray, y: np.ndarray) -> float:
    pairs = [
        (np.sign(x[i] - x[j]), np.sign(y[i] - y[j]))
        for i, j in itertools.combinations(range(len(x)), 2)
    ]
    agreement = sum(a * b for a, b in pairs)
    free_x, free_y = sum(a != 0 for a, _ in pairs), sum(b != 0 for _, b in pairs)
    return agreement / math.sqrt(free_x * free_y)


def varied(pair: np.ndarray) -> bool:
    return bool(np.ptp(pair[0]) > 0 and np.ptp(pair[1]) > 0)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3, 4, 5], [1, 3, 2, 4, 5], 0.9),
        ([1, 2, 2, 3], [1, 2, 3, 4], 0.9486832981),
        ([1, 2], [5, 4], -1.0),
    ],
)
def test_srcc_golden(x: list[float], y: list[float], expected: float) -> None:
    assert srcc(x, y) == pytest.approx(expected, abs=1e-9)


@RELAXED
@given(PAIRS)
def test_equal_scipy_and_counting(pair: np.ndarray) -> None:
    x, y = pair
    if not varied(pair):
        assert math.isnan(srcc(x, y))
        assert math.isnan(plcc(x, y))
        assert math.isnan(krcc(x, y))
        return
    assert srcc(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert plcc(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert krcc(x, y) == pytest.approx(tau_b(x, y), abs=1e-12)


def test_real_ratings_equal_scipy(shared_data) -> None:
    with (shared_data / "ttl" / "ratings.csv").open() as file:
        rows = [(float(row["mos"]), float(row["mos_std"])) for row in csv.DictReader(file)]
    mos, spread = np.array(rows).T
    assert len(np.unique(mos)) < len(mos)  # ties are what is tested
    assert srcc(mos, spread) == pytest.approx(stats.spearmanr(mos, spread).statistic, abs=1e-12)
    assert krcc(mos, spread) == pytest.approx(stats.kendalltau(mos, spread).statistic, abs=1e-12)


@RELAXED
@given(PAIRS, st.randoms(use_true_random=False))
def test_order_of_the_images_does_not_matter(pair: np.ndarray, random) -> None:
    order = list(range(pair.shape[1]))
    random.shuffle(order)
    for measure in (srcc, plcc, krcc, rmse):
        assert measure(*pair[:, order]) == pytest.approx(measure(*pair), abs=1e-12, nan_ok=True)


@RELAXED
@given(PAIRS)
def test_rank_correlations_ignore_monotone_maps_and_turn_with_direction(pair: np.ndarray) -> None:
    x, y = pair
    for measure in (srcc, krcc):
        assert measure(np.exp(x / 2) * 3 - 7, y) == pytest.approx(
            measure(x, y), abs=1e-12, nan_ok=True
        )
        assert measure(-x, y) == pytest.approx(-measure(x, y), abs=1e-12, nan_ok=True)
        assert measure(y, x) == pytest.approx(measure(x, y), abs=1e-12, nan_ok=True)


@RELAXED
@given(PAIRS, st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_plcc_ignores_scale_and_shift(pair: np.ndarray, scale: float, shift: float) -> None:
    assert plcc(scale * pair[0] + shift, pair[1]) == pytest.approx(
        plcc(*pair), abs=1e-6, nan_ok=True
    )


@pytest.mark.parametrize("scale", [1e-200, 1e-12, 1e12, 1e200])
def test_plcc_of_extreme_scales(scale: float) -> None:
    assert plcc(np.array([1.0, 2.0, 4.0]) * scale, [1, 2, 4]) == pytest.approx(1.0)


@pytest.mark.parametrize("measure", CORRELATIONS)
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([], []),
        ([1.0], [2.0]),
        ([3.0] * 9, range(9)),
        (range(9), [3.0] * 9),
        ([math.nan, *range(8)], range(9)),
        ([math.inf, *range(8)], range(9)),
        (range(9), [math.nan, *range(8)]),
    ],
)
def test_what_does_not_exist_is_nan(measure, x, y) -> None:
    assert math.isnan(measure(list(x), list(y)))


@pytest.mark.parametrize("measure", [*CORRELATIONS, rmse])
def test_lengths_must_match(measure) -> None:
    with pytest.raises(ValueError, match=r"3 predictions .* 2 ratings"):
        measure([1, 2, 3], [1, 2])


def test_rmse() -> None:
    assert rmse([1, 2, 3], [1, 2, 7]) == pytest.approx(math.sqrt(16 / 3))
    assert rmse([2, 2], [2, 2]) == 0.0
    assert math.isnan(rmse([], []))
    assert math.isnan(rmse([1, math.nan], [1, 2]))


def test_float32_scores_keep_their_order() -> None:
    scores = np.array([1, 1, 2], np.float32)
    scores[1] = np.nextafter(scores[0], scores[2])
    assert srcc(scores, [1, 2, 3]) == 1.0


@pytest.mark.parametrize(
    ("n", "r", "low", "high"),
    [
        (160, 0.96, 0.9422, 0.9724),
        (172, 0.90, 0.8600, 0.9290),
        (117, 0.85, 0.7787, 0.8996),
        (233, 0.82, 0.7647, 0.8633),
        (2015, 0.88, 0.8678, 0.8911),
        (2000, 0.85, 0.8352, 0.8636),
    ],
)
def test_interval_golden(n: int, r: float, low: float, high: float) -> None:
    assert interval(r, n) == pytest.approx((low, high), abs=5e-5)


@RELAXED
@given(st.floats(-0.999, 0.999), st.integers(4, 5000))
def test_interval_holds_r_and_narrows(r: float, n: int) -> None:
    low, high = interval(r, n)
    assert -1 <= low <= r <= high <= 1
    assert high - low >= (wider := interval(r, 4 * n))[1] - wider[0]
    assert interval(-r, n) == pytest.approx((-high, -low))


def test_interval_at_the_edges() -> None:
    assert interval(1.0, 10) == (1.0, 1.0)
    assert all(math.isnan(x) for x in interval(0.5, 3))
    assert all(math.isnan(x) for x in interval(math.nan, 100))
