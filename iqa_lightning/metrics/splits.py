"""The interval of a mean over splits of the same data, which share images.

The variance of the mean over K splits is (1/K + rho) s^2 and not s^2 / K, with rho the test images
for each training image: C. Nadeau and Y. Bengio, "Inference for the Generalization Error", Machine
Learning 52 (2003), https://doi.org/10.1023/A:1024068626366. Shown to be right by simulation in
tests/report/numbers/test_inference.py.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


FEWEST_SPLITS = 5
"""Splits that an interval or a test over splits needs: with one degree of freedom half-widths of 1
to 11 standard deviations occur.
"""


RHO = 2 / 7  # test images for each training image where 70 % train and 20 % test


CLIP = 1 - 1e-6  # of what is mapped by atanh


LIMITS = {"bwt": 2.0, "fwt_gem": 2.0, "forgetting": 2.0, "fwt": 1.0}
"""The largest absolute value of measures that are differences (`fwt` is a mean of SRCC, but
has a baseline of 0); all others live in [-1, 1].
"""


def scale_of_mean(values: Array, rho: float) -> float:
    """Standard error sqrt((1/K + rho) s^2) of the mean over K splits of the same data."""
    return float(math.sqrt(1 / len(values) + rho) * values.std(ddof=1))


def split_interval(values: ArrayLike, rho: float, measure: str = "msrcc") -> tuple[float, float]:
    """95 % interval of the mean over splits: Student's t on z = atanh(x) with K - 1 degrees of
    freedom.

    Measures that are differences (`LIMITS`) are left as they are, and cut where they end. The
    interval always holds the mean, which it may miss by a little where values are next to 1.

    Args:
        values: (K,) one value a split.
        rho: Test images for each training image.
        measure: Its name, which says what it can be.

    Returns:
        NaN, NaN below `FEWEST_SPLITS` splits.
    """
    x = np.asarray(values, np.float64)
    if len(x) < FEWEST_SPLITS:
        return math.nan, math.nan
    mean = float(x.mean())
    if np.ptp(x) == 0:
        return mean, mean
    quantile = float(stats.t.ppf(0.975, len(x) - 1))
    if (limit := LIMITS.get(measure)) is not None:
        half = quantile * scale_of_mean(x, rho)
        return max(mean - half, -limit), min(mean + half, limit)
    z = np.arctanh(np.clip(x, -CLIP, CLIP))
    half = quantile * scale_of_mean(z, rho)
    low, high = math.tanh(float(z.mean()) - half), math.tanh(float(z.mean()) + half)
    return min(low, mean), max(high, mean)
