"""The bootstrap of test images by content, and the one interval of a cell of a matrix.

Images of one content (one reference photograph) are not independent, so contents are drawn, never
images of a content. All draws are fixed by a seed. Shown to be right by simulation in
tests/report/numbers/test_statistics.py.
"""

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from iqa_lightning.metrics.correlation import interval

Array = NDArray[np.float64]


Counts = NDArray[np.uint8]


FEWEST = 5
"""Contents that a bootstrap needs: fewer give at most 10 different resamples, and no interval that
means anything.
"""


RESAMPLES = 1000


BLOCK = 256  # resamples at a time, which stay in the processor's cache


ROOTS = np.sqrt(np.arange(256.0))  # of how often an image occurs in a resample


def contents_of(frame: pd.DataFrame, name: str) -> NDArray[Any]:
    """The content of each test image of a data set: its reference where the records hold one, else
    the image.
    """
    rows = frame[(frame["dataset"] == name) & (frame["split"] == "test")]
    if "image/reference" not in frame:
        return rows["image"].to_numpy()
    known = rows["image/reference"] != ""
    return rows["image/reference"].where(known, "image " + rows["image"]).to_numpy()


def dataset_seed(name: str) -> int:
    """Seed of the resamples of a data set: all runs on the same test images share them."""
    return zlib.crc32(name.encode())


def content_weights(contents: ArrayLike, resamples: int, seed: int = 0) -> Counts:
    """How often each image occurs in each resample: (images, 1 + resamples), column 0 is the sample
    itself.

    A resample draws as many contents as there are, with replacement, and takes all images of each.
    """
    code = np.unique(np.asarray(contents), return_inverse=True)[1]
    return drawn_contents(int(code.max()) + 1, resamples, seed)[code]


@lru_cache(maxsize=16)
def drawn_contents(count: int, resamples: int, seed: int) -> Counts:
    """How often each of `count` contents is drawn: (count, 1 + resamples), ones first; not to be
    changed.
    """
    drawn = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=resamples
    )
    counts = np.concatenate([np.ones((1, count), np.int64), drawn]).T
    # no content is drawn 256 times, of however many
    return np.ascontiguousarray(counts.astype(np.uint8))


def unit_ranks(values: ArrayLike, weights: Counts) -> Array:
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
    below, up_to = (np.searchsorted(x[order], x[order], side) for side in ("left", "right"))
    ranks = np.empty(weights.shape)
    for first in range(0, weights.shape[1], BLOCK):
        columns = slice(first, first + BLOCK)
        ranks[order, columns] = _ranks_of_sorted(weights[order, columns], below, up_to)
    return ranks


def _ranks_of_sorted(
    counts: Counts, below: NDArray[np.intp], up_to: NDArray[np.intp]
) -> Float[np.ndarray, "images resamples"]:
    # images up to each place of the sorted sample; row by row, which is far faster than np.cumsum
    total = np.zeros((len(counts) + 1, counts.shape[1]))
    for place, row in enumerate(counts):
        np.add(total[place], row, out=total[place + 1])
    total -= total[-1] / 2  # twice the rank minus its mean is then the sum of the two ends of a tie
    ranks: Array = (total[below] + total[up_to]) * ROOTS[counts]
    norm = np.sqrt(np.einsum("ib,ib->b", ranks, ranks))
    ranks /= np.where(norm > 0, norm, math.nan)
    return ranks


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


def cell_interval(draws: Array, images: int, contents: int) -> tuple[float, float]:
    """The 95 % interval (low, high) of the SRCC of one cell, in a run's `cells.csv` and in tables.

    Bonett and Wright's where each image is a content of its own, the bootstrap by content where
    images share one: there the formula holds the truth in .61 to .95 instead of .95.

    Args:
        draws: (1 + resamples,) the SRCC of the sample, then of each resample; one number is enough
            where no images share a content.
        images: test images.
        contents: contents among them.
    """
    if contents == images:
        return interval(float(draws[0]), images)
    low, high = bootstrap_interval(draws[1:], contents)
    return float(low), float(high)


class Resampler:
    """SRCC of the test images of one data set in the sample and in each resample.

    Args:
        contents: (images,) the content of each.
        name: The data set, which fixes the draws.
        resamples: How many.
    """

    def __init__(self, contents: Sequence[Any], name: str, resamples: int = RESAMPLES) -> None:
        self.images, self.contents = len(contents), len(set(contents))
        # where no interval is read from them, the sample itself is enough
        useful = FEWEST <= self.contents < self.images
        self.weights = content_weights(contents, resamples * useful, dataset_seed(name))

    def ranks(self, values: ArrayLike) -> Array:
        """`unit_ranks` of scores or ratings in each resample."""
        return unit_ranks(values, self.weights)

    def interval(self, srcc: float, pred: Array, mos: Array) -> tuple[float, float]:
        """The interval of a cell.

        Args:
            srcc: Of the sample.
            pred: `ranks` of the predictions.
            mos: `ranks` of the ratings.
        """
        draws = correlation(pred, mos) if self.contents < self.images else np.array([srcc])
        low, high = cell_interval(draws, self.images, self.contents)
        return round(low, 6), round(high, 6)  # sums may differ in their last digits elsewhere
