"""Average ranks and critical distances: the worked example of Demsar (2006), tables of q,
arithmetic by hand.
"""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from iqa_lightning.report.numbers.ranking import alike, critical_distance, friedman, rank_methods

NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
# ranks of four classifiers on 14 data sets: https://jmlr.org/papers/v7/demsar06a.html, table 6
RANKS = np.array([
    [4, 3, 2, 1], [1, 2, 3, 4], [4, 1, 2, 3], [4, 1, 3, 2], [4, 2, 3, 1], [1, 2.5, 4, 2.5], [3, 2, 4, 1],
    [2.5, 2.5, 4, 1], [4, 3, 2, 1], [2.5, 2.5, 2.5, 2.5], [4, 2.5, 1, 2.5], [3, 2, 4, 1], [4, 1, 2, 3], [3, 1, 4, 2],
])  # fmt: skip


def measures(values: np.ndarray, names: list[str], measure: str = "msrcc") -> pd.DataFrame:
    """Values (blocks, methods) as rows of runs: the first half of the blocks is one order, the
    other another.
    """
    return pd.DataFrame(
        {
            "method": name,
            "order": "a>b" if i % 2 else "b>a",
            "split": i // 2,
            "measure": measure,
            "value": row[m],
        }
        for i, row in enumerate(values)
        for m, name in enumerate(names)
    )


def test_the_worked_example_of_demsar() -> None:
    found = rank_methods(measures(-RANKS, NAMES))
    by = found.ranks.set_index("method")["rank"]
    assert [round(by[name], 3) for name in NAMES] == [3.143, 2.000, 2.893, 1.964]
    assert list(found.ranks["method"]) == ["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]
    assert found.blocks == 14
    assert found.distance == pytest.approx(1.25, abs=0.005)  # published
    assert critical_distance(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)  # published
    # no two of the four differ by 1.25: "the post-hoc test is not powerful enough"
    assert found.groups == [["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]]


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


def test_three_methods_by_hand() -> None:
    """x is best in both blocks, y and z tie once: ranks 1, 2.25, 2.75."""
    values = np.array([[0.9, 0.5, 0.5], [0.8, 0.7, 0.2]])
    found = rank_methods(
        measures(values, ["z", "x", "y"]).replace({"method": {"z": "x", "x": "y", "y": "z"}})
    )
    assert list(found.ranks.itertuples(index=False, name=None)) == [
        ("x", 1.0),
        ("y", 2.25),
        ("z", 2.75),
    ]
    worse = rank_methods(
        measures(values, ["x", "y", "z"], "forgetting"), "forgetting"
    )  # less is better
    assert list(worse.ranks["method"]) == ["z", "y", "x"]


def test_seeds_are_averaged_and_incomplete_blocks_left_out() -> None:
    table = measures(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), ["a", "b"])
    again = table.iloc[4:6].assign(value=[9.0, 0.0])  # another seed turns the third block
    once = table.iloc[:2].assign(method="c", value=5.0).iloc[:1]
    found = rank_methods(pd.concat([table, again, once], ignore_index=True))
    assert list(found.ranks["rank"]) == [1.0, 2.0]
    assert (found.blocks, found.left_out) == (4, ["c"])
    gap = rank_methods(table.drop(index=0))
    assert gap.blocks == 3


def test_blocks_of_one_method_alone_push_no_other_out() -> None:
    """Joint learning has an order of its own, with as many splits as the others have."""
    table = measures(np.array([[0.9, 0.5], [0.8, 0.4], [0.7, 0.6]]), ["a", "b"])
    joint = table.iloc[::2].assign(method="joint", order="a+b", split=range(3))
    found = rank_methods(pd.concat([table, joint], ignore_index=True))
    assert list(found.ranks.itertuples(index=False, name=None)) == [("a", 1.0), ("b", 2.0)]
    assert (found.blocks, found.left_out) == (3, ["joint"])


def test_what_cannot_be_ranked_is_not() -> None:
    assert math.isnan(critical_distance(1, 9))
    assert math.isnan(critical_distance(3, 1))
    assert math.isnan(friedman(np.array([[1.0, 2.0]] * 5)))
    assert friedman(np.full((4, 3), 2.0)) == 1.0
    one = rank_methods(measures(np.array([[0.5, 0.6]]), ["a", "b"]))
    assert (one.blocks, one.groups) == (1, [])
    nothing = rank_methods(measures(np.array([[0.5]]), ["a"], "mpi"), "msrcc")
    assert (len(nothing.ranks), nothing.blocks, nothing.left_out) == (0, 0, ["a"])


def test_groups_are_as_large_as_can_be() -> None:
    """Every group spans less than the distance, none is part of another, and each close pair is in
    one: by search.
    """
    rng = np.random.default_rng(0)
    for _ in range(100):
        values, distance = np.sort(rng.uniform(1, 6, 6)), rng.uniform(0.2, 4)
        ranks = pd.DataFrame({"method": list("abcdef"), "rank": values})
        place = dict(zip("abcdef", values, strict=True))
        subsets = [set(c) for k in range(2, 7) for c in itertools.combinations("abcdef", k)]
        close = [s for s in subsets if max(map(place.get, s)) - min(map(place.get, s)) < distance]
        largest = [s for s in close if not any(s < other for other in close)]
        assert sorted(map(sorted, largest)) == sorted(alike(ranks, distance))


def test_equal_methods_are_told_apart_in_one_of_twenty() -> None:
    """Nemenyi bounds the chance that any two of equal methods are said to differ."""
    rng, found = np.random.default_rng(1), []
    distance = critical_distance(4, 12)
    for _ in range(4000):
        ranks = np.argsort(np.argsort(rng.normal(size=(12, 4)), axis=1), axis=1).mean(axis=0)
        found.append(np.ptp(ranks) >= distance)
    assert 0.03 <= np.mean(found) <= 0.06
