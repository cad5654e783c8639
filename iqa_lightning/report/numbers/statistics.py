"""What a number in a table is worth: intervals over splits, tests between methods, sources of
variance.

The split is the unit. Runs that share a split share its images, so orders and seeds are averaged
within a split first; splits of the same data overlap, so the variance of a mean over K of them is
(1/K + rho) s^2 and not s^2 / K, with rho the test images for each training image (C. Nadeau and Y.
Bengio, "Inference for the Generalization Error", Machine Learning 52 (2003),
https://doi.org/10.1023/A:1024068626366). Shown to be right by simulation in
tests/report/numbers/test_inference.py.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from iqa_lightning.metrics.splits import FEWEST_SPLITS, scale_of_mean

Array = NDArray[np.float64]


ROPE = 0.01
"""Methods that differ by less are practically equal: one in the second decimal that papers compare
by.
"""


POWER = 0.8


class Comparison(NamedTuple):
    """What splits say about the difference of two methods, first minus second, in a measure."""

    splits: int
    difference: float
    low: float
    high: float
    p: float
    """Of the corrected resampled t-test, two-sided, not yet corrected for other pairs."""
    below: float
    """Posterior probability that the difference is below `-ROPE`."""
    equal: float
    above: float
    detectable: float
    """The smallest difference that the test finds in 80 % of cases, with these splits and this
    spread.
    """


class Components(NamedTuple):
    """Variances that sources add to a run; NaN where the runs cannot tell, negative if below
    nothing.
    """

    split: float
    order: float
    seed: float
    rest: float
    """All between runs alike in split and order; the seed and nothing else where seeds are
    repeated.
    """


def split_means(values: ArrayLike, splits: Sequence[object]) -> Array:
    """Means over the runs of each split, in the order of the splits; NaN does not count."""
    x = pd.Series(np.asarray(values, np.float64))
    means = x.groupby(pd.Series(list(splits)), sort=False).mean()
    return np.asarray(means.dropna(), np.float64)


def image_interval(values: pd.DataFrame, rho: float) -> tuple[float, float]:
    """95 % interval of image sampling of the mean over the splits at hand.

    The intervals of the runs, bootstrapped by content, are combined by the method of variance
    estimates recovery (G. Zou and A. Donner, Statistics in Medicine 27 (2008),
    https://doi.org/10.1002/sim.3095), which keeps them asymmetric and within what the measure can
    be: runs of a split share all images, and two splits share test images with the expected
    correlation rho / (1 + rho).

    Args:
        values: Columns `split`, `value`, `low`, `high`, a row a run.
        rho: Test images for each training image.

    Returns:
        NaN, NaN where a run has no interval.
    """
    if values.empty or not np.isfinite(values[["value", "low", "high"]].to_numpy(np.float64)).all():
        return math.nan, math.nan
    means = values.groupby("split", sort=False)[["value", "low", "high"]].mean()
    mean, shared = float(means["value"].mean()), rho / (1 + rho)

    def distance(gaps: Array) -> float:
        squares, total = float((gaps**2).sum()), float(gaps.sum())
        return math.sqrt((1 - shared) * squares + shared * total**2) / len(gaps)

    # a bootstrap may miss its value by a little, which is a distance of none
    below = (means["value"] - means["low"]).to_numpy(np.float64).clip(0)
    above = (means["high"] - means["value"]).to_numpy(np.float64).clip(0)
    return mean - distance(below), mean + distance(above)


def mean_of_sets(cells: pd.DataFrame) -> tuple[float, float, float, float]:
    """Mean SRCC over data sets, its 95 % interval of image sampling, and its variance.

    Data sets share no images, so their distances to the bounds add up in squares (as in
    `image_interval`).

    Args:
        cells: Columns `value`, `low`, `high`, `image_variance`, a row a data set.
    """
    columns = ("value", "low", "high", "image_variance")
    value, low, high, variance = (cells[name].to_numpy(np.float64) for name in columns)
    if not len(value):
        return (math.nan,) * 4
    mean, count = float(value.mean()), len(value)
    gaps = ((value - low).clip(0), (high - value).clip(0))
    below, above = (math.sqrt(float((gap**2).sum())) / count for gap in gaps)
    return mean, mean - below, mean + above, float(variance.sum()) / count**2


def compare(differences: ArrayLike, rho: float) -> Comparison:
    """Corrected resampled t-test and Bayesian correlated t-test of the differences of two methods.

    The posterior of the mean difference is Student's t with location the mean, scale sqrt((1/K +
    rho) s^2) and K - 1 degrees of freedom: A. Benavoli et al., "Time for a Change: a Tutorial for
    Comparing Multiple Classifiers Through Bayesian Analysis", JMLR 18 (2017),
    https://jmlr.org/papers/v18/16-305.html

    Args:
        differences: (K,) of the two methods in each split, orders and seeds averaged.
        rho: Test images for each training image.

    Returns:
        All but the difference NaN below `FEWEST_SPLITS` splits.
    """
    d = np.asarray(differences, np.float64)
    mean = float(d.mean()) if len(d) else math.nan
    if len(d) < FEWEST_SPLITS:
        return Comparison(len(d), mean, *(math.nan,) * 7)
    scale, freedom = scale_of_mean(d, rho), len(d) - 1
    if scale == 0:
        sides = (float(mean < -ROPE), float(abs(mean) <= ROPE), float(mean > ROPE))
        return Comparison(len(d), mean, mean, mean, float(mean == 0), *sides, 0.0)
    half = float(stats.t.ppf(0.975, freedom)) * scale
    p = float(2 * stats.t.sf(abs(mean) / scale, freedom))
    below = float(stats.t.cdf((-ROPE - mean) / scale, freedom))
    above = float(stats.t.sf((ROPE - mean) / scale, freedom))
    bounds = max(mean - half, -2.0), min(mean + half, 2.0)
    equal = max(0.0, 1 - below - above)
    return Comparison(
        len(d), mean, *bounds, p, below, equal, above, detectable_effect(len(d)) * scale
    )


@lru_cache
def detectable_effect(splits: int) -> float:
    """The true difference, in standard errors, that a two-sided t-test at 5 % finds with power
    .8.
    """
    freedom = splits - 1
    critical = float(stats.t.ppf(0.975, freedom))

    def missing(effect: float) -> float:
        found = stats.nct.sf(critical, freedom, effect) + stats.nct.cdf(-critical, freedom, effect)
        return float(found) - POWER

    return float(optimize.brentq(missing, 0.1, critical + 3))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of a family of p-values, in their order; NaN (no test) stays and
    does not count.

    S. Holm, Scandinavian Journal of Statistics 6 (1979), https://www.jstor.org/stable/4615733
    """
    tested = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    adjusted, largest = [math.nan] * len(p), 0.0
    for rank, (value, i) in enumerate(tested):
        largest = max(largest, min(1.0, value * (len(tested) - rank)))
        adjusted[i] = largest
    return adjusted


def components(values: ArrayLike, runs: pd.DataFrame) -> Components:
    """Variance that split, order and seed add to a run of one method.

    Half the squared difference of two runs is, in the mean, the sum of the variances of what they
    differ in, plus the rest. The components are fitted to all pairs of runs by least squares; in a
    complete table with one run a cell this is the analysis of variance. None is cut at 0.

    Args:
        values: (runs,).
        runs: Columns `split`, `order`, `seed`, a row a run.
    """
    x = np.asarray(values, np.float64)
    one, other = np.triu_indices(len(x), 1)
    squares = (x[one] - x[other]) ** 2 / 2
    codes = {name: pd.factorize(runs[name])[0] for name in ("split", "order", "seed")}
    differs = {name: code[one] != code[other] for name, code in codes.items()}
    known = [name for name in ("split", "order") if differs[name].any()]
    alike = ~differs["split"] & ~differs["order"]
    seed = float(squares[alike].mean()) if alike.any() else math.nan
    design = np.column_stack([*(differs[name] for name in known), np.ones(len(one))])
    found = {"split": math.nan, "order": math.nan, "seed": seed, "rest": math.nan}
    if len(x) > 1 and np.linalg.matrix_rank(design.astype(np.float64)) == design.shape[1]:
        fitted = np.linalg.lstsq(design.astype(np.float64), squares, rcond=None)[0]
        found |= {name: float(v) for name, v in zip([*known, "rest"], fitted, strict=True)}
    return Components(**found)


def interaction(means: Array, rest: float = 0.0) -> tuple[float, float]:
    """Variances that splits add to all methods alike, and to each method by itself (method x
    split).

    The analysis of variance of a complete table of methods and splits.

    Args:
        means: (splits, methods) the mean of each method in each split.
        rest: Variance that orders and seeds leave in such a mean; it is taken from the second.

    Returns:
        NaN, NaN below two splits or methods.
    """
    if min(means.shape) < 2:
        return math.nan, math.nan
    splits, methods = means.shape
    by_split = means.mean(axis=1, keepdims=True)
    left = means - by_split - means.mean(axis=0) + means.mean()
    own = float((left**2).sum()) / ((splits - 1) * (methods - 1))
    return (methods * float(by_split.var(ddof=1)) - own) / methods, own - rest
