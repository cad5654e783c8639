"""Average ranks of methods over blocks, and the distance below which two of them cannot be told
apart.

J. Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006),
https://jmlr.org/papers/v7/demsar06a.html. A block is an order and a split here: within it all
methods see the same tasks and images.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

LOWER = ("forgetting",)  # measures of which less is better


class Ranking(NamedTuple):
    """Methods by their average rank over the blocks that all of them have."""

    ranks: pd.DataFrame
    """`method`, `rank` (1 is the best), best first."""
    blocks: int
    p: float
    """Of Friedman's test that no method differs; NaN below three methods."""
    distance: float
    """Nemenyi's critical distance at 5 %: average ranks that differ by less are not
    distinguishable.
    """
    groups: list[list[str]]
    """Methods that are not distinguishable from each other, largest groups only, the best first."""
    left_out: list[str]
    """Methods that were run in too few blocks."""


def rank_methods(measures: pd.DataFrame, measure: str = "msrcc", level: float = 0.05) -> Ranking:
    """Rank methods within blocks; ties share their mean rank, several seeds of a block are averaged
    first.

    Blocks of one method alone (joint learning has orders of its own) do not count. Methods with no
    value in half of the others or more are left out; of these blocks only those count that all
    methods have.

    Args:
        measures: columns `method`, `order`, `split`, `measure`, `value`; one readout per method.
        measure: which of them; higher is better but for forgetting.
        level: of the critical distance.
    """
    rows = measures[(measures["measure"] == measure) & measures["value"].notna()]
    methods = list(dict.fromkeys(measures["method"]))
    table = rows.pivot_table(
        index=["order", "split"], columns="method", values="value", aggfunc="mean", sort=False
    )
    table = table[table.notna().sum(axis=1) > 1]
    kept = [method for method in methods if method in table and table[method].notna().mean() > 0.5]
    table = table[kept].dropna()
    values = table.to_numpy(np.float64) * (1 if measure in LOWER else -1)
    within = (
        stats.rankdata(values.round(9), axis=1) if len(table) and kept else np.empty((0, len(kept)))
    )
    average = within.mean(axis=0) if len(table) else np.full(len(kept), math.nan)
    ranks = pd.DataFrame({"method": kept, "rank": average}).sort_values(
        "rank", kind="stable", ignore_index=True
    )
    distance = critical_distance(len(kept), len(table), level)
    left_out = [method for method in methods if method not in kept]
    return Ranking(ranks, len(table), friedman(within), distance, alike(ranks, distance), left_out)


def critical_distance(methods: int, blocks: int, level: float = 0.05) -> float:
    """Nemenyi's q sqrt(k (k + 1) / 6N), q the quantile of the studentised range over sqrt 2; NaN
    for one method.
    """
    if methods < 2 or blocks < 2:
        return math.nan
    q = float(stats.studentized_range.ppf(1 - level, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))


def friedman(ranks: np.ndarray) -> float:
    """Probability by Friedman's test, corrected for ties; 1 if all is tied, NaN below three methods
    or two blocks.

    Args:
        ranks: (blocks, methods).
    """
    if ranks.shape[0] < 2 or ranks.shape[1] < 3:
        return math.nan
    if bool((np.ptp(ranks, axis=1) == 0).all()):
        return 1.0
    return float(stats.friedmanchisquare(*ranks.T).pvalue)


def alike(ranks: pd.DataFrame, distance: float) -> list[list[str]]:
    """Runs of methods whose ranks lie less than `distance` apart, none within another, of two
    methods at least.
    """
    names, values = list(ranks["method"]), ranks["rank"].to_numpy(np.float64)
    groups, end = [], 0
    for first in range(len(names)):
        last = max(
            (i for i in range(first, len(names)) if values[i] - values[first] < distance),
            default=first,
        )
        if last > first and last > end:
            groups.append(names[first : last + 1])
            end = last
    return groups
