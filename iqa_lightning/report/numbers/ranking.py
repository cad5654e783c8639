"""Average ranks of methods over splits, and which of them cannot be told apart.

The ranks describe; whether two methods differ is said by the tests over splits
(`statistics.compare`), and groups follow from these alone.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

LOWER = ("forgetting",)  # measures of which less is better


class Ranking(NamedTuple):
    """Methods by their average rank over the splits that all of them have."""

    ranks: pd.DataFrame
    """`method`, `rank` (1 is the best), best first."""
    splits: int
    groups: list[list[str]]
    """Methods of which no two are told apart by the tests, largest groups only, the best first;
    none where nothing was tested.
    """
    left_out: list[str]
    """Methods that were run in too few splits, or are constant by construction."""


def rank_methods(
    measures: pd.DataFrame, measure: str, tests: pd.DataFrame, constant: Collection[str] = ()
) -> Ranking:
    """Rank methods within splits; orders and seeds are averaged first, ties share their mean rank.

    Splits of one method alone do not count. Methods with no value in half of the others or more
    are left out; of these splits only those count that all methods have.

    Args:
        measures: Columns `method`, `split`, `measure`, `value`; one readout a method.
        measure: Which of them.
        tests: `first`, `second` and `said` of the tests between methods in this measure.
        constant: Methods that the measure says nothing about.
    """
    rows = measures[(measures["measure"] == measure) & measures["value"].notna()]
    methods = list(dict.fromkeys(measures["method"]))
    table = rows.pivot_table(
        index="split", columns="method", values="value", aggfunc="mean", sort=False
    )
    varying = [method for method in methods if method in table and method not in constant]
    table = table[varying]
    table = table[table.notna().sum(axis=1) > 1]
    kept = [method for method in varying if table[method].notna().mean() > 0.5]
    table = table[kept].dropna()
    values = table.to_numpy(np.float64) * (1 if measure in LOWER else -1)
    average = (
        stats.rankdata(values.round(9), axis=1).mean(axis=0)
        if len(table) and kept
        else np.full(len(kept), np.nan)
    )
    ranks = pd.DataFrame({"method": kept, "rank": average})
    ranks = ranks.sort_values("rank", kind="stable", ignore_index=True)
    left_out = [method for method in methods if method not in kept]
    return Ranking(ranks, len(table), alike(list(ranks["method"]), tests), left_out)


def alike(methods: list[str], tests: pd.DataFrame) -> list[list[str]]:
    """The largest groups of methods of which no two were told apart, of two methods at least.

    Args:
        methods: Best first.
        tests: `first`, `second` and `said`; pairs that were not tested join nothing.
    """
    close: dict[str, set[str]] = {method: set() for method in methods}
    for first, second, said in tests[["first", "second", "said"]].itertuples(index=False):
        if said == "not distinguishable" and first in close and second in close:
            close[first].add(second)
            close[second].add(first)
    found: list[set[str]] = []

    def grow(group: set[str], candidates: set[str], done: set[str]) -> None:
        # Bron and Kerbosch: every largest set of methods that are all close to each other
        if not candidates and not done and len(group) > 1:
            found.append(group)
        for method in [name for name in methods if name in candidates]:
            grow(group | {method}, candidates & close[method], done & close[method])
            candidates = candidates - {method}
            done = done | {method}

    grow(set(), set(methods), set())
    place = {method: i for i, method in enumerate(methods)}
    return sorted(
        (sorted(group, key=place.__getitem__) for group in found),
        key=lambda g: [place[m] for m in g],
    )
