"""The logistic curves that map predictions onto the scale of the ratings before PLCC and RMSE are taken.

Fitted by least squares (Levenberg-Marquardt, MINPACK) from the start values of the published code. Where a fit does not
converge, or ends in a constant or in numbers that are not finite, the least-squares straight line takes its place: the
5-parameter family contains it and the 4-parameter family approaches it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import leastsq
from scipy.special import expit

Vector = NDArray[np.float64]
CONVERGED = (1, 2, 3, 4)  # MINPACK's codes of success


def logistic4(x: Vector, b: Vector) -> Vector:
    """4-parameter logistic b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|)); `b` is (4,). LIQE, arXiv 2303.14968."""
    return np.asarray(b[1] + (b[0] - b[1]) * expit((x - b[2]) / np.abs(b[3])))


def logistic5(x: Vector, b: Vector) -> Vector:
    """5-parameter b1 (0.5 - 1 / (1 + exp(b2 (x - b3)))) + b4 x + b5; `b` is (5,). UNIQUE, arXiv 2005.13983."""
    return np.asarray(b[0] * (0.5 - expit(-b[1] * (x - b[2]))) + b[3] * x + b[4])


def map_logistic4(pred: ArrayLike, mos: ArrayLike) -> Vector:
    """Predictions mapped onto the scale of `mos` by the fitted 4-parameter logistic; all NaN where no fit exists.

    Start: b1 = max mos, b2 = min mos, b3 = mean prediction, b4 = standard deviation of the predictions.
    """
    return _map(logistic4, pred, mos, lambda x, y: (y.max(), y.min(), x.mean(), x.std()))


def map_logistic5(pred: ArrayLike, mos: ArrayLike) -> Vector:
    """Predictions mapped onto the scale of `mos` by the fitted 5-parameter logistic; all NaN where no fit exists.

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
        raise ValueError(f"{len(x)} predictions cannot be fitted to {len(y)} ratings: one of each per image is needed")
    if not len(x) or not np.isfinite([x, y]).all() or not np.ptp(x) or not np.ptp(y):
        return np.full(len(x), np.nan)
    first = np.array(start(x, y), np.float64)
    if len(x) <= len(first):  # as many parameters as images: every such fit is perfect and says nothing
        return np.full(len(x), np.nan)
    with np.errstate(all="ignore"):  # steps that overflow are tried on the way and rejected
        # with full_output MINPACK reports failure in its code, not as a warning
        best, *_, status = leastsq(lambda b: curve(x, b) - y, first, maxfev=200 * (len(first) + 1), full_output=True)
        mapped = curve(x, best)
    if status in CONVERGED and np.isfinite(mapped).all() and np.ptp(mapped) > 1e-9 * np.ptp(y):
        return mapped
    return _straight_line(x, y)


def _straight_line(x: Vector, y: Vector) -> Vector:
    centred = (x - x.mean()) / np.ptp(x)
    return np.asarray(y.mean() + centred * (np.dot(centred, y - y.mean()) / np.dot(centred, centred)))
