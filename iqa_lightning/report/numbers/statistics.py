"""What a number in a table is worth: intervals, tests between methods, and where the variance comes
from.

Images of one content (one reference photograph) are not independent, so a bootstrap draws contents,
never images of a content. Runs of one (order, split) share tasks and test images, so methods are
compared within such blocks. All random draws are fixed by a seed. Every function is shown to be
right by simulation in tests/report/test_statistics.py.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Array = NDArray[np.float64]


FEWEST = 5
"""Contents that a bootstrap needs: fewer give at most 10 different resamples, and no interval that
means anything.
"""


EXACT = 100_000  # arrangements up to which a permutation test counts them all


class Estimate(NamedTuple):
    """A mean over `n` runs with its 95 % interval, NaN where that does not exist."""

    mean: float
    low: float
    high: float
    n: int


class Comparison(NamedTuple):
    """A mean difference over `blocks` blocks and the probability of one as large where there is
    none.
    """

    difference: float
    p: float
    blocks: int


def content_weights(contents: ArrayLike, resamples: int, seed: int = 0) -> NDArray[np.int64]:
    """How often each image occurs in each resample: (images, 1 + resamples), column 0 is the sample
    itself.

    A resample draws as many contents as there are, with replacement, and takes all images of each.
    """
    code = np.unique(np.asarray(contents), return_inverse=True)[1]
    count = int(code.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=resamples
    )
    return np.concatenate([np.ones((1, count), np.int64), drawn]).T[code]


def unit_ranks(values: ArrayLike, weights: NDArray[np.int64]) -> Array:
    """Average ranks in each resample, centred and scaled: the SRCC of two is the sum of their
    product over axis 0.

    Ranks of a resample follow from the sorted sample and cumulated weights, so nothing is sorted
    again.

    Args:
        values: (images,) scores; ties get the mean of their ranks.
        weights: (images, resamples) how often each image occurs.

    Returns:
        (images, resamples); NaN where a resample is constant or `values` are not all finite.
    """
    x = np.asarray(values, np.float64)
    if not np.isfinite(x).all():
        return np.full(weights.shape, math.nan)
    order = np.argsort(x, kind="stable")
    below, up_to = (np.searchsorted(x[order], x, side) for side in ("left", "right"))
    total = np.zeros((len(x) + 1, weights.shape[1]))
    np.cumsum(weights[order], axis=0, out=total[1:])
    ranks = (total[below] + total[up_to] - total[-1]) / 2  # minus the mean rank
    ranks *= np.sqrt(weights)
    norm = np.sqrt(np.einsum("ib,ib->b", ranks, ranks))
    standard: Array = ranks / np.where(norm > 0, norm, math.nan)
    return standard


def correlation(x: Array, y: Array) -> Array:
    """SRCC in each resample of two results of `unit_ranks`; (resamples,), in [-1, 1]."""
    return np.asarray(np.clip(np.einsum("ib,ib->b", x, y), -1, 1), np.float64)


def bootstrap_interval(draws: Array, contents: int) -> tuple[Array, Array]:
    """95 % percentile interval of each statistic, widened as a t-interval of so many contents is.

    T. Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69
    (2015), https://doi.org/10.1080/00031305.2015.1089789, section 5.1 (expanded percentile
    interval).

    Args:
        draws: (resamples, ...) the statistic in each resample.
        contents: how many contents were drawn from.

    Returns:
        Lower and upper bounds (...); NaN below `FEWEST` contents and where a resample had no value.
    """
    if contents < FEWEST:
        nothing = np.full(draws.shape[1:], math.nan)
        return nothing, nothing
    level = stats.norm.cdf(math.sqrt(contents / (contents - 1)) * stats.t.ppf(0.025, contents - 1))
    low, high = np.quantile(draws, [level, 1 - level], axis=0)
    return low, high


def t_interval(values: ArrayLike) -> Estimate:
    """Mean of independent runs with its 95 % t-interval; values that are NaN do not count, one run
    has no interval.
    """
    x = np.asarray(values, np.float64)
    x = x[~np.isnan(x)]
    if len(x) < 2:
        return Estimate(float(x[0]) if len(x) else math.nan, math.nan, math.nan, len(x))
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return Estimate(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))


def runs_interval(values: ArrayLike, factors: pd.DataFrame) -> Estimate:
    """Mean of runs with its 95 % interval where runs share levels of crossed factors, as a sweep's
    orders and splits.

    Such runs are not independent: a plain t-interval of them holds the truth in 55 to 75 % of
    simulations. The variance of the mean is put together from `variance_components`, with
    Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946,
    https://doi.org/10.2307/3002019); it is on the wide side where a factor hardly matters. A factor
    with one level is taken as given. Where the runs cannot tell the factors apart this is
    `t_interval`.

    Args:
        values: (runs,); NaN does not count.
        factors: one column per factor, one row per run.
    """
    x = np.asarray(values, np.float64)
    used, plain = factors[~np.isnan(x)], t_interval(x)
    components = variance_components(x[~np.isnan(x)], used)
    rest = components.pop("rest") / max(plain.n, 1)
    shares = {
        name: value / used[name].nunique()
        for name, value in components.items()
        if not math.isnan(value)
    }
    variance = sum(shares.values()) + rest
    if not shares or variance == 0:
        return plain
    freedom = {name: used[name].nunique() - 1 for name in shares}
    satterthwaite = variance**2 / sum(
        (share + rest) ** 2 / freedom[name] for name, share in shares.items()
    )
    half = float(
        stats.t.ppf(0.975, max(satterthwaite, min(freedom.values()))) * math.sqrt(variance)
    )
    return Estimate(plain.mean, plain.mean - half, plain.mean + half, plain.n)


def paired_permutation(
    first: Mapping[Hashable, Sequence[float]],
    second: Mapping[Hashable, Sequence[float]],
    seed: int = 0,
) -> Comparison:
    """Two-sided permutation test of two methods, blocked: if there is no difference, labels within
    a block are chance.

    With one run of each method in a block (an order and a split) this is the sign-flip test. The
    statistic is the mean over blocks of the difference of means. Up to 100,000 arrangements are
    counted exactly, otherwise so many are drawn.

    Args:
        first: values of one method by block.
        second: values of the other; blocks that only one of them has do not count.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    blocks = [block for block in first if len(first[block]) and len(second.get(block, ()))]
    if not blocks:
        return Comparison(math.nan, math.nan, 0)
    possible = [_arrangements(first[block], second[block], rng) for block in blocks]
    observed = sum(differences[0] for differences in possible)
    exact = math.prod(len(differences) for differences in possible) <= EXACT
    sums = np.zeros(1 if exact else EXACT)
    for differences in possible:
        sums = (
            np.add.outer(sums, differences).ravel()
            if exact
            else sums + rng.choice(differences, EXACT)
        )
    larger = int((np.abs(sums) >= abs(observed) * (1 - 1e-9) - 1e-12).sum())
    p = larger / len(sums) if exact else (larger + 1) / (len(sums) + 1)
    return Comparison(float(observed / len(blocks)), float(p), len(blocks))


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


def variance_components(values: ArrayLike, factors: pd.DataFrame) -> dict[str, float]:
    """Variance that each crossed factor adds to a run, and `rest`: all that is left between runs
    alike in all factors.

    Half the squared difference of two runs is, in the mean, the sum of the variances of the factors
    in which they differ, plus the rest. The components are fitted to all pairs of runs by
    non-negative least squares; with one run a cell and no negative estimate this is the analysis of
    variance. NaN for what the runs cannot tell: a factor with one level, or two factors that always
    change together.

    Args:
        values: (runs,).
        factors: one column per factor, one row per run. The columns `order` and `split` leave seeds
            to the rest.
    """
    x = np.asarray(values, np.float64)
    one, other = np.triu_indices(len(x), 1)
    differs = {
        str(name): (codes := pd.factorize(factors[name])[0])[one] != codes[other]
        for name in factors
    }
    found = dict.fromkeys([*differs, "rest"], math.nan)
    known = [name for name, column in differs.items() if column.any()]
    design = np.column_stack([*(differs[name] for name in known), np.ones(len(one))]).astype(
        np.float64
    )
    if len(x) < 2 or np.linalg.matrix_rank(design) < design.shape[1]:
        return found
    fitted = optimize.nnls(design, (x[one] - x[other]) ** 2 / 2)[0]
    return found | {
        name: float(value) for name, value in zip([*known, "rest"], fitted, strict=True)
    }


def _arrangements(
    first: Sequence[float], second: Sequence[float], rng: np.random.Generator
) -> Array:
    """Differences of means for all ways (or many drawn ones) to label the runs of a block; the
    observed one first.
    """
    pool, k = np.array([*first, *second], np.float64), len(first)
    if math.comb(len(pool), k) <= EXACT:
        chosen = np.array(list(combinations(range(len(pool)), k)))
    else:
        chosen = rng.permuted(np.tile(np.arange(len(pool)), (EXACT, 1)), axis=1)[:, :k]
        chosen[0] = np.arange(k)
    inside = pool[chosen].sum(axis=1)
    return np.asarray(inside / k - (pool.sum() - inside) / (len(pool) - k))
