"""Ranks over independent streams: the worked example of Demsar (2006), tables of q."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from iqa_lightning.report.numbers.streams import (
    critical_distance,
    friedman,
    rank_streams,
    sign_test,
)

NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
# ranks of four classifiers on 14 data sets: https://jmlr.org/papers/v7/demsar06a.html, table 6
RANKS = np.array([
    [4, 3, 2, 1], [1, 2, 3, 4], [4, 1, 2, 3], [4, 1, 3, 2], [4, 2, 3, 1], [1, 2.5, 4, 2.5], [3, 2, 4, 1],
    [2.5, 2.5, 4, 1], [4, 3, 2, 1], [2.5, 2.5, 2.5, 2.5], [4, 2.5, 1, 2.5], [3, 2, 4, 1], [4, 1, 2, 3], [3, 1, 4, 2],
])  # fmt: skip


def test_the_worked_example_of_demsar() -> None:
    found = rank_streams(pd.DataFrame(RANKS, columns=NAMES), lower=True)
    by = found.ranks.set_index("method")["rank"]
    assert [round(by[name], 3) for name in NAMES] == [3.143, 2.000, 2.893, 1.964]
    assert list(found.ranks["method"]) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    assert found.distance == pytest.approx(1.25, abs=0.005)  # published
    assert critical_distance(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)  # published
    higher = rank_streams(pd.DataFrame(-RANKS, columns=NAMES))
    pd.testing.assert_frame_equal(higher.ranks, found.ranks)


def test_friedman_is_the_published_statistic_corrected_for_its_ties() -> None:
    """9.28 is published; ties (three pairs, one four) take 78 of 14 * 60 from its denominator."""
    statistic = 12 * 14 / (4 * 5) * ((RANKS.mean(axis=0) ** 2).sum() - 4 * 25 / 4)
    assert statistic == pytest.approx(9.28, abs=0.005)
    expected = stats.chi2.sf(statistic / (1 - (3 * 6 + 60) / (14 * 60)), 3)
    assert friedman(RANKS) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (7, 2.949), (10, 3.164)]
)
def test_the_published_table_of_q(methods: int, q: float) -> None:
    assert critical_distance(methods, 6) == pytest.approx(
        q * math.sqrt(methods * (methods + 1) / 36), abs=1e-3
    )


def test_two_methods_are_compared_by_the_exact_sign_test() -> None:
    wins = pd.DataFrame({"a": [0.6] * 6, "b": [0.5] * 6})
    found = rank_streams(wins)
    assert found.p == 2 / 2**6
    assert math.isnan(found.distance)
    assert sign_test(np.array([1, 1, 0, -1])) == 1.0  # two of three
    assert sign_test(np.zeros(7)) == 1.0


def test_splits_are_no_streams() -> None:
    with pytest.raises(ValueError, match="5 streams and 2 methods"):
        rank_streams(pd.DataFrame(np.ones((5, 2))))


def test_equal_methods_are_told_apart_in_one_of_twenty() -> None:
    """Nemenyi bounds the chance that any two of equal methods are said to differ."""
    rng, found = np.random.default_rng(1), []
    distance = critical_distance(4, 12)
    for _ in range(4000):
        ranks = np.argsort(np.argsort(rng.normal(size=(12, 4)), axis=1), axis=1).mean(axis=0)
        found.append(np.ptp(ranks) >= distance)
    assert 0.03 <= np.mean(found) <= 0.06
