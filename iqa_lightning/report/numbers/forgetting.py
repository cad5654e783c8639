"""What averages hide: which pairs of images change places, and which images, distortions and bands
of quality suffer.

Everything compares the predictions of the test images right after their data set was learnt with
later ones. Predictions come as tables keyed by the task after which they were made, `start` first,
as `RunFolder.predictions` reads them. Ranks are fractions from 0 (worst) to 1 (best) within the
test images of one data set, ties averaged.
"""

import math
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import ndtri

from iqa_lightning.metrics.correlation import srcc
from iqa_lightning.metrics.matrices import task_of_dataset
from iqa_lightning.metrics.resampling import bootstrap_interval, content_weights

Array = NDArray[np.float64]


Predictions = Mapping[str, pd.DataFrame]


AGREEMENT = 0.75
"""A pair counts where this share of raters agrees about it, as in the protocol's count of ambiguous
pairs.
"""


BANDS = 5


BLOCK = 4_000_000  # pairs at a time


GROUPS = {"band": "band", "distortion": "image/distortion", "scene": "image/scene"}


FLIPS = [
    "dataset",
    "after",
    "images",
    "noise_known",
    "pairs",
    "right",
    "flipped",
    "repaired",
    "rate",
]


BY = [
    "dataset",
    "by",
    "group",
    "n",
    "contents",
    "error_before",
    "error_after",
    "growth",
    "low",
    "high",
]


BY = [*BY, "srcc_before", "srcc_after"]


def learnt_sets(predictions: Predictions) -> Iterator[tuple[str, str, list[str]]]:
    """Each data set that is learnt, the task that learns it, and the tasks after that."""
    tasks = list(predictions)
    names = list(dict.fromkeys(predictions[tasks[0]]["dataset"]))
    for name, t in zip(names, task_of_dataset(tasks, names), strict=True):
        if t < len(tasks):
            yield str(name), tasks[t], tasks[t + 1 :]


def test_images(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The test images of a data set; the same rows in the same order after every task."""
    return frame[(frame["dataset"] == name) & (frame["split"] == "test")].reset_index(drop=True)


def pair_flips(
    predictions: Predictions, readout: str, agreement: float = AGREEMENT
) -> pd.DataFrame:
    """How many pairs of a data set were ordered right just after it was learnt and are not any
    more.

    A pair counts if the ratings say beyond the raters' noise which image is better: |difference of
    MOS| is at least z sqrt(s1^2 + s2^2), where s is the standard deviation of the image's ratings
    and z the normal quantile of `agreement`: under Thurstone's model so large a share of single
    raters agrees. How many rated an image is not recorded, so this asks for more than a difference
    of the means. Where no deviation is recorded every difference counts, and `noise_known` says so.
    A predicted tie is not right.

    Returns:
        A row per data set and later task: `dataset`, `after`, `images`, `noise_known` (share of
        images with a deviation), `pairs` (that count), `right` (of them, just after learning),
        `flipped` (of those, not right now), `repaired` (not right then, right now), `rate` (flipped
        / right; lower is better, [0, 1], NaN where none was).
    """
    rows = []
    for name, task, later in learnt_sets(predictions):
        images = test_images(predictions[task], name)
        spread = (
            images["mos_std"].to_numpy(np.float64)
            if "mos_std" in images
            else np.full(len(images), math.nan)
        )
        scores = [
            test_images(predictions[after], name)[readout].to_numpy(np.float64)
            for after in (task, *later)
        ]
        known = float(np.isfinite(spread).mean())
        noise = np.where(np.isfinite(spread), spread, 0.0) * float(ndtri(agreement))
        pairs, right, *changes = count_flips(images["mos"].to_numpy(np.float64), noise, scores)
        for after, now, (flipped, repaired) in zip(later, scores[1:], changes, strict=True):
            scored = bool(np.isfinite(scores[0]).all() and np.isfinite(now).all())
            rate = flipped / right if scored and right else math.nan
            rows.append([name, after, len(images), known, pairs, right, flipped, repaired, rate])
    return pd.DataFrame(rows, columns=FLIPS)


def count_flips(
    mos: Array, noise: Array, scores: list[Array]
) -> tuple[int, int, *tuple[tuple[int, int], ...]]:
    """Pairs that count, those that the first scores order right, then (flipped, repaired) for all
    other scores.

    Args:
        mos: (images,) ratings.
        noise: (images,) a pair counts if its ratings differ by at least the root of the summed
            squares of its two.
        scores: (images,) each, the first being those that all others are compared with.
    """
    pairs, first, changes = 0, 0, np.zeros((len(scores) - 1, 2), np.int64)
    step = max(1, BLOCK // max(len(mos), 1))
    for start in range(0, len(mos), step):
        rows = slice(start, start + step)
        better = mos[rows, None] - mos
        counts = (better > 0) & (better >= np.sqrt(noise[rows, None] ** 2 + noise**2))
        right = [counts & (score[rows, None] > score) for score in scores]
        pairs, first = pairs + int(counts.sum()), first + int(right[0].sum())
        changes += [
            [int((right[0] & ~now).sum()), int((now & ~right[0]).sum())] for now in right[1:]
        ] or 0
    return pairs, first, *((int(flipped), int(repaired)) for flipped, repaired in changes)


def image_changes(predictions: Predictions, readout: str) -> pd.DataFrame:
    """What happened to each test image between just after its data set was learnt and the last
    task.

    Returns:
        A row per image of the sets learnt before the last task: `dataset`, `image`, `mos`, `band`
        (fifth of its data set by MOS, 1 the worst), `rank_mos`, `rank_before`, `rank_after`,
        `error_before`, `error_after` (distance of the predicted rank from that of the MOS),
        `growth` (of that error: higher is more forgotten, [-1, 1]), and the labels that are
        recorded (`image/reference`, `image/distortion`, `image/scene`).
    """
    parts = []
    for name, task, later in learnt_sets(predictions):
        if not later:
            continue
        before, after = (test_images(predictions[t], name) for t in (task, later[-1]))
        labels = [str(column) for column in before if str(column).startswith("image/")]
        part = before[["dataset", "image", "mos", *labels]].copy()
        truth, old, new = (unit_rank(x) for x in (before["mos"], before[readout], after[readout]))
        part["band"] = np.minimum(np.floor(truth * BANDS) + 1, BANDS).astype(int)
        part["rank_mos"], part["rank_before"], part["rank_after"] = truth, old, new
        part["error_before"], part["error_after"] = np.abs(old - truth), np.abs(new - truth)
        part["growth"] = part["error_after"] - part["error_before"]
        parts.append(part)
    columns = ["dataset", "image", "mos", "band", "rank_mos", "rank_before", "rank_after"]
    columns += ["error_before", "error_after", "growth"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def unit_rank(values: ArrayLike) -> Array:
    """Average ranks as fractions: (rank - 1/2) / n; NaN where a value is missing."""
    x = np.asarray(values, np.float64)
    ranks: Array = (stats.rankdata(x, nan_policy="omit") - 0.5) / max(len(x), 1)
    return ranks


def worst_forgotten(predictions: Predictions, readout: str, count: int = 50) -> pd.DataFrame:
    """The images whose rank error grew most; rows of `image_changes`, the worst first.

    Images that did not get worse are left out. Ties are in the order of data sets, then of names.
    """
    changes = image_changes(predictions, readout)
    place = {name: i for i, name in enumerate(dict.fromkeys(changes["dataset"]))}
    changes = changes[changes["growth"] > 0]
    # rounded, so that a tie is one on every machine
    keys = changes.assign(growth=-changes["growth"].round(9), dataset=changes["dataset"].map(place))
    order = keys.sort_values(["growth", "dataset", "image"], kind="stable").index[:count]
    return changes.loc[order].reset_index(drop=True)


def forgetting_by(
    predictions: Predictions, readout: str, by: str, resamples: int = 1000
) -> pd.DataFrame:
    """Forgetting of parts of each data set: by MOS `band`, by `distortion` or by `scene`.

    An image with several scenes, joined with `+`, counts in each. Images without a label count
    nowhere.

    Returns:
        `dataset`, `by`, `group`, `n` (images), `contents`, `error_before`, `error_after` (mean rank
        errors), `growth` with its 95 % interval `low`, `high` (bootstrap by content, NaN below five
        contents), `srcc_before` and `srcc_after` within the group (small within a band, whose range
        is narrow). No rows where no label is recorded.

    Raises:
        ValueError: `by` is none of these.
    """
    if by not in GROUPS:
        raise ValueError(f"by='{by}': forgetting is grouped by one of {', '.join(GROUPS)}")
    changes = image_changes(predictions, readout)
    if GROUPS[by] not in changes or changes.empty:
        return pd.DataFrame(columns=BY)
    changes = changes.assign(group=changes[GROUPS[by]].astype(str).str.split("+")).explode("group")
    rows = []
    for (name, group), part in changes[changes["group"] != ""].groupby(
        ["dataset", "group"], sort=False
    ):
        contents = part["image/reference" if "image/reference" in part else "image"].to_numpy()
        seed = zlib.crc32(f"{name} {by} {group}".encode())
        weights = content_weights(contents, resamples, seed)
        draws = part["growth"].to_numpy() @ weights / weights.sum(axis=0)
        low, high = bootstrap_interval(draws[1:], len(set(contents)))
        means = [float(part[column].mean()) for column in ("error_before", "error_after", "growth")]
        agreement = [srcc(part[column], part["mos"]) for column in ("rank_before", "rank_after")]
        counts = [len(part), len(set(contents))]
        rows.append([name, by, group, *counts, *means, float(low), float(high), *agreement])
    table = pd.DataFrame(rows, columns=BY)
    place = {name: i for i, name in enumerate(dict.fromkeys(changes["dataset"]))}
    return table.sort_values(
        ["dataset", "group"], key=lambda c: c.map(place) if c.name == "dataset" else c
    ).reset_index(drop=True)
