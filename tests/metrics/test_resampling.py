"""The bootstrap by content: against scipy, and right on simulated data."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iqa_lightning.metrics.resampling import (
    bootstrap_interval,
    content_weights,
    correlation,
    unit_ranks,
)
from iqa_lightning.report.numbers.difference import cell_differences

NAN = math.nan


def resampled(x, y, weights) -> np.ndarray:
    return correlation(unit_ranks(x, weights), unit_ranks(y, weights))


# --- bootstrap


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(8, 40), st.sampled_from([3, 1000]))
def test_srcc_of_every_resample_is_that_of_the_repeated_images(
    seed: int, count: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(levels, size=count) / 7, rng.integers(levels, size=count) - 1e6
    weights = content_weights(rng.integers(count // 3, size=count), 12, seed)
    found = resampled(x, y, weights)
    assert (weights[:, 0] == 1).all()
    for b in range(weights.shape[1]):
        again = np.repeat(np.arange(count), weights[:, b])
        if np.ptp(x[again]) > 0 and np.ptp(y[again]) > 0:
            assert found[b] == pytest.approx(
                stats.spearmanr(x[again], y[again]).statistic, abs=1e-12
            )
        else:
            assert math.isnan(found[b])


def test_constant_or_missing_scores_have_no_correlation() -> None:
    weights = content_weights(np.arange(10), 5)
    for scores in (np.ones(10), np.array([NAN, *range(9)]), np.full(10, np.inf)):
        assert np.isnan(resampled(scores, np.arange(10), weights)).all()


def test_a_resample_takes_whole_contents() -> None:
    contents = np.array(["b", "a", "b", "c", "a", "d"])
    weights = content_weights(contents, 500, seed=3)
    for content in "abcd":
        assert (np.ptp(weights[contents == content], axis=0) == 0).all()
    firsts = weights[[0, 1, 3, 5]]
    assert (firsts.sum(axis=0) == 4).all()
    # a content is absent with probability (3/4)^4 = 0.316; three standard errors of 2,000 draws are
    # 0.03
    assert abs((firsts[:, 1:] == 0).mean() - 0.75**4) < 0.03
    assert not np.array_equal(weights, content_weights(contents, 500, seed=4))


def test_few_contents_have_no_interval_and_many_have_the_percentiles() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 3))
    assert np.isnan(bootstrap_interval(draws, 4)).all()
    low, high = bootstrap_interval(draws, 10**6)
    np.testing.assert_allclose(low, np.quantile(draws, 0.025, axis=0), atol=1e-3)
    np.testing.assert_allclose(high, np.quantile(draws, 0.975, axis=0), atol=1e-3)
    wider = bootstrap_interval(draws, 6)
    assert (wider[0] < low).all()
    assert (wider[1] > high).all()


@pytest.mark.parametrize(
    ("contents", "each", "rho", "simulations"),
    [(80, 1, 0.85, 800), (25, 4, 0.8, 800)],
    ids=["images", "contents"],
)
def test_the_interval_covers_the_truth(
    contents: int, each: int, rho: float, simulations: int
) -> None:
    """Of normal pairs the population's Spearman correlation is 6/pi asin(rho/2)."""
    rng, truth = np.random.default_rng(1), 6 / math.pi * math.asin(rho / 2)
    root, group = np.linalg.cholesky([[1, rho], [rho, 1]]), np.repeat(np.arange(contents), each)
    hits, naive = 0, 0
    for simulation in range(simulations):
        shared, own = (
            rng.normal(size=(contents, 2)) @ root.T,
            rng.normal(size=(contents * each, 2)) @ root.T,
        )
        x, y = (math.sqrt(0.85) * shared[group] + math.sqrt(0.15) * own).T
        low, high = bootstrap_interval(
            resampled(x, y, content_weights(group, 200, simulation))[1:], contents
        )
        hits += low <= truth <= high
        if each > 1 and simulation < 200:
            weights = content_weights(np.arange(len(x)), 200, simulation)
            low, high = bootstrap_interval(resampled(x, y, weights)[1:], len(x))
            naive += low <= truth <= high
    assert 0.93 <= hits / simulations <= 0.97
    assert naive / 200 < 0.90  # which is why contents are drawn


def test_cells_of_two_runs_that_differ_by_seed_only_are_not_distinguishable() -> None:
    """The paired bootstrap of `diff`: of one quality with other noise, one cell in twenty is said
    to differ.

    With 100 resamples instead of 1,000 it would be one in thirteen.
    """
    rng, said = np.random.default_rng(12), []
    for _ in range(100):
        base = pd.DataFrame(
            {
                "dataset": np.repeat(list("abcdefgh"), 60),
                "split": "test",
                "mos": rng.normal(size=480),
            }
        )
        base["image"] = [str(i) for i in range(480)]
        runs = [{"start": base.assign(single=base["mos"] + rng.normal(size=480))} for _ in range(2)]
        said += list(cell_differences(*runs)["at 5 %"])
    assert set(said) == {"differ", "not distinguishable"}
    assert np.mean(np.array(said) == "differ") == pytest.approx(0.05, abs=0.01)
    worse = {"start": base.assign(single=base["mos"] + 4 * rng.normal(size=480))}
    assert (cell_differences(runs[0], worse)["at 5 %"] == "differ").all()
