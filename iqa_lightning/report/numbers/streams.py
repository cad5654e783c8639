"""Methods over independent streams: ranks, Friedman's test, Nemenyi's distance, the exact sign
test.

Blocks of these tests have to be independent: streams of different data sets. Splits and orders of
one stream share their images and are no such blocks; with them Friedman's test rejects equal
methods in 23 to 61 % of cases instead of 5 %.

J. Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006),
https://jmlr.org/papers/v7/demsar06a.html.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

FEWEST_STREAMS = 6


class StreamRanks(NamedTuple):
    """Methods by their average rank over independent streams."""

    ranks: pd.DataFrame
    """`method`, `rank` (1 is the best), best first."""
    p: float
    """Of no difference: Friedman's test, the exact sign test for two methods."""
    distance: float
    """Nemenyi's critical distance at 5 %; NaN for two methods."""


def rank_streams(values: pd.DataFrame, lower: bool = False) -> StreamRanks:
    """Rank methods over independent streams; ties share their mean rank.

    Args:
        values: A row a stream, a column a method.
        lower: Whether less is better.

    Raises:
        ValueError: There are fewer than six streams, or fewer than two methods.
    """
    if len(values) < FEWEST_STREAMS or values.shape[1] < 2:
        raise ValueError(
            f"{len(values)} streams and {values.shape[1]} methods: ranks over independent streams "
            f"need {FEWEST_STREAMS} streams and two methods; splits and orders are no streams"
        )
    x = values.to_numpy(np.float64)
    within = stats.rankdata((x if lower else -x).round(9), axis=1)
    table = pd.DataFrame({"method": list(values.columns), "rank": within.mean(axis=0)})
    table = table.sort_values("rank", kind="stable", ignore_index=True)
    if values.shape[1] == 2:
        return StreamRanks(table, sign_test(within[:, 0] - within[:, 1]), math.nan)
    return StreamRanks(table, friedman(within), critical_distance(x.shape[1], len(x)))


def sign_test(differences: np.ndarray) -> float:
    """Exact two-sided sign test that neither side is more frequent; ties do not count."""
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def critical_distance(methods: int, blocks: int, level: float = 0.05) -> float:
    """Nemenyi's q sqrt(k (k + 1) / 6N), q the quantile of the studentised range over sqrt 2."""
    q = float(stats.studentized_range.ppf(1 - level, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))


def friedman(ranks: np.ndarray) -> float:
    """Probability by Friedman's test, corrected for ties; 1 if all is tied.

    Args:
        ranks: (blocks, methods), three methods at least.
    """
    if bool((np.ptp(ranks, axis=1) == 0).all()):
        return 1.0
    return float(stats.friedmanchisquare(*ranks.T).pvalue)
