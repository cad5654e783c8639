"""How well the predictions for one data set agree with its human ratings: rank, linear and absolute
agreement.

Every function takes two sequences of one number per image, in the same order, and returns a float.
What does not exist is NaN, never 0 and never 1: the correlation of fewer than two images, of a
constant, or of anything that is not finite. Scores of different data sets are never pooled: their
scales have nothing to do with each other.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import leastsq
from scipy.special import expit

Z95 = 1.96  # the normal quantile as it is rounded in the field's tables


def srcc(pred: ArrayLike, mos: ArrayLike) -> float:
    """Spearman's rank correlation with average ranks on ties; higher is better, in [-1, 1].

    Raises:
        ValueError: The two sequences differ in length.
    """
    x, y = paired(pred, mos)
    if not comparable(x, y):
        return math.nan
    return _pearson(stats.rankdata(x), stats.rankdata(y))


def plcc(pred: ArrayLike, mos: ArrayLike) -> float:
    """Pearson's linear correlation of the raw predictions (`plcc_raw` in tables); higher is better,
    in [-1, 1].

    Raises:
        ValueError: The two sequences differ in length.
    """
    x, y = paired(pred, mos)
    return _pearson(x, y) if comparable(x, y) else math.nan


def plcc_logistic4(pred: ArrayLike, mos: ArrayLike) -> float:
    """Pearson's correlation after the 4-parameter logistic of LIQE; higher is better, in [0, 1].

    The fit turns a wrong direction round, so the sign is lost: read it off `srcc`.
    """
    return plcc(map_logistic4(pred, mos), mos)


def plcc_logistic5(pred: ArrayLike, mos: ArrayLike) -> float:
    """Pearson's correlation after the 5-parameter logistic of UNIQUE; higher is better, in [0, 1];
    the sign is lost.
    """
    return plcc(map_logistic5(pred, mos), mos)


def krcc(pred: ArrayLike, mos: ArrayLike) -> float:
    """Kendall's rank correlation tau-b, which corrects for ties; higher is better, in [-1, 1].

    Raises:
        ValueError: The two sequences differ in length.
    """
    x, y = paired(pred, mos)
    if not comparable(x, y):
        return math.nan
    return float(stats.kendalltau(x, y).statistic)


def rmse(pred: ArrayLike, mos: ArrayLike) -> float:
    """Root mean square difference in units of `mos`; lower is better, from 0; NaN without images.

    Raises:
        ValueError: The two sequences differ in length.
    """
    x, y = paired(pred, mos)
    if not len(x) or not np.isfinite(x).all() or not np.isfinite(y).all():
        return math.nan
    return float(np.sqrt(np.mean((x - y) ** 2)))


def rmse_logistic4(pred: ArrayLike, mos: ArrayLike) -> float:
    """Root mean square difference to `mos` after the 4-parameter logistic of LIQE; lower is better,
    from 0.
    """
    return rmse(map_logistic4(pred, mos), mos)


def rmse_logistic5(pred: ArrayLike, mos: ArrayLike) -> float:
    """Root mean square difference to `mos` after the 5-parameter logistic of UNIQUE; lower is
    better, from 0.
    """
    return rmse(map_logistic5(pred, mos), mos)


def interval(r: float, n: int) -> tuple[float, float]:
    """95 % confidence interval (low, high) of a Spearman correlation `r` of `n` images; NaN for n <
    4.

    z = atanh(r) with standard error sqrt((1 + r^2 / 2) / (n - 3)): Bonett and Wright, Psychometrika
    65 (2000), https://doi.org/10.1007/BF02294183
    """
    if n <= 3 or math.isnan(r):
        return math.nan, math.nan
    if abs(r) >= 1:
        return r, r
    z, error = math.atanh(r), math.sqrt((1 + r * r / 2) / (n - 3))
    return math.tanh(z - Z95 * error), math.tanh(z + Z95 * error)


def paired(pred: ArrayLike, mos: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two sequences as float64 vectors of one length.

    Raises:
        ValueError: They differ in length.
    """
    x, y = np.asarray(pred, np.float64).ravel(), np.asarray(mos, np.float64).ravel()
    if len(x) != len(y):
        raise ValueError(
            f"{len(x)} predictions do not pair with {len(y)} ratings: one of each per image is "
            "needed"
        )
    return x, y


def comparable(x: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
    """Whether a correlation of the two exists: two images or more, all finite, neither side
    constant.
    """
    if len(x) < 2 or not np.isfinite(x).all() or not np.isfinite(y).all():
        return False
    return bool(np.ptp(x) > 0 and np.ptp(y) > 0)


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    # scaled first, so that neither huge nor tiny scores overflow or vanish when they are squared
    x, y = (x - x.mean()) / np.ptp(x), (y - y.mean()) / np.ptp(y)
    r = float(np.dot(x, y) / math.sqrt(np.dot(x, x) * np.dot(y, y)))
    return max(-1.0, min(1.0, r))


Vector = NDArray[np.float64]


CONVERGED = (1, 2, 3, 4)  # MINPACK's codes of success


def logistic4(x: Vector, b: Vector) -> Vector:
    """4-parameter logistic b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|)); `b` is (4,). LIQE, arXiv
    2303.14968.
    """
    return np.asarray(b[1] + (b[0] - b[1]) * expit((x - b[2]) / np.abs(b[3])))


def logistic5(x: Vector, b: Vector) -> Vector:
    """5-parameter b1 (0.5 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5; `b` is (5,). UNIQUE, arXiv
    2005.13983.
    """
    return np.asarray(b[0] * (0.5 - expit(-b[1] * (x - b[2]))) + b[3] * x + b[4])


def map_logistic4(pred: ArrayLike, mos: ArrayLike) -> Vector:
    """Predictions mapped onto the scale of `mos` by the fitted 4-parameter logistic; all NaN where
    no fit exists.

    Start: b1 = max mos, b2 = min mos, b3 = mean prediction, b4 = standard deviation of the
    predictions.
    """
    return _map(logistic4, pred, mos, lambda x, y: (y.max(), y.min(), x.mean(), x.std()))


def map_logistic5(pred: ArrayLike, mos: ArrayLike) -> Vector:
    """Predictions mapped onto the scale of `mos` by the fitted 5-parameter logistic; all NaN where
    no fit exists.

    Start: (10, 0, mean prediction, 0.1, 0.1).
    """
    return _map(logistic5, pred, mos, lambda x, _: (10.0, 0.0, x.mean(), 0.1, 0.1))


def _map(
    curve: Callable[[Vector, Vector], Vector],
    pred: ArrayLike,
    mos: ArrayLike,
    start: Callable[[Vector, Vector], tuple[float, ...]],
) -> Vector:
    x, y = np.asarray(pred, np.float64).ravel(), np.asarray(mos, np.float64).ravel()
    if len(x) != len(y):
        raise ValueError(
            f"{len(x)} predictions cannot be fitted to {len(y)} ratings: one of each per image is "
            "needed"
        )
    if not len(x) or not np.isfinite([x, y]).all() or not np.ptp(x) or not np.ptp(y):
        return np.full(len(x), np.nan)
    first = np.array(start(x, y), np.float64)
    if len(x) <= len(
        first
    ):  # as many parameters as images: every such fit is perfect and says nothing
        return np.full(len(x), np.nan)
    with np.errstate(all="ignore"):  # steps that overflow are tried on the way and rejected
        # with full_output MINPACK reports failure in its code, not as a warning
        best, *_, status = leastsq(
            lambda b: curve(x, b) - y, first, maxfev=200 * (len(first) + 1), full_output=True
        )
        mapped = curve(x, best)
    if status in CONVERGED and np.isfinite(mapped).all() and np.ptp(mapped) > 1e-9 * np.ptp(y):
        return mapped
    return _straight_line(x, y)


def _straight_line(x: Vector, y: Vector) -> Vector:
    centred = (x - x.mean()) / np.ptp(x)
    return np.asarray(
        y.mean() + centred * (np.dot(centred, y - y.mean()) / np.dot(centred, centred))
    )
