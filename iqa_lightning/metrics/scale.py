"""One scale for all data sets of a run, from its validation predictions alone; all of it is design.

Heads are trained within sets, so that their scores do not compare across sets. Here each head gets
a monotone map to a common scale from 0 to 100 on which heads agree about the images that they
share; no person compared images of two sets. How wide an interval must be comes from
split-conformal
prediction: Lei et al., "Distribution-free predictive inference for regression", JASA 113, 2018.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]


LEVEL = 0.9
"""Share of images whose interval is to hold their rating."""


ENOUGH = 30
"""Validation images that a head must have most weight for, so that its images have an interval of
their own (Mondrian); else the pooled one. The head is known of a new image, its data set is not.
"""


FOLDS = 5


ROUNDS = 5
FLOOR = 1e-3  # least weight of an image in the map of a head, so that each is defined everywhere


class Knots(NamedTuple):
    """A strictly increasing piecewise linear map; beyond its ends it goes on by its mean slope."""

    x: Array
    y: Array

    def __call__(self, values: Array) -> Array:
        """The map of scores."""
        slope = (self.y[-1] - self.y[0]) / (self.x[-1] - self.x[0])
        below, above = np.minimum(values - self.x[0], 0), np.maximum(values - self.x[-1], 0)
        found: Array = np.interp(values, self.x, self.y) + slope * (below + above)
        return found


class Truth(NamedTuple):
    """Ratings of a data set on the common scale: `centre` + `spread` * (MOS - `mean`) /
    `deviation`.
    """

    mean: float
    deviation: float
    centre: float
    spread: float

    def __call__(self, mos: Array) -> Array:
        """The ratings on the common scale, which ends at 0 and 100."""
        found = self.centre + self.spread * (mos - self.mean) / self.deviation
        return np.clip(found, 0.0, 100.0)


@dataclass(frozen=True)
class Scale:
    """What a run says of scores beyond their rank.

    Args:
        common: map of each head to the common scale, by task (`single` where there is one head).
        native: map of the scores of a data set's own head to its MOS, by data set.
        truth: MOS of each data set on the common scale.
        radius: half the width of an interval on the common scale, by the head that has most weight,
            and of `pooled`.
        native_radius: the same on the scale of a data set's MOS, by data set.
    """

    common: dict[str, Knots]
    native: dict[str, Knots]
    truth: dict[str, Truth]
    radius: dict[str, float]
    native_radius: dict[str, float]

    def score(self, frame: pd.DataFrame) -> Array:
        """Scores from 0 to 100 of rows of predictions."""
        mapped = np.stack([self.common[h](s) for h, s in head_columns(frame, list(self.common))])
        weighted: Array = (gate_of(frame, list(self.common)) * mapped.T).sum(axis=1)
        return np.clip(weighted, 0.0, 100.0)

    def head(self, frame: pd.DataFrame) -> list[str]:
        """The head that has most weight for each row; the first of equals."""
        heads = list(self.common)
        return [heads[k] for k in gate_of(frame, heads).argmax(axis=1)]

    def radius_of(self, heads: Sequence[str]) -> Array:
        """Half the width of the interval of images for which these heads have most weight."""
        return np.array([self.radius.get(head, self.radius["pooled"]) for head in heads])

    def tensors(self) -> dict[str, Array]:
        """All numbers by name, as `scale.safetensors` holds them."""
        found: dict[str, Array] = {}
        for kind, maps in (("common", self.common), ("native", self.native)):
            for name, knots in maps.items():
                found |= {f"{kind}/{name}/x": knots.x, f"{kind}/{name}/y": knots.y}
        found |= {f"truth/{name}": np.array(truth) for name, truth in self.truth.items()}
        for kind, values in (("radius", self.radius), ("native_radius", self.native_radius)):
            found |= {f"{kind}/{name}": np.array(value) for name, value in values.items()}
        return found

    def metadata(self) -> str:
        """Order of heads, and the level of the intervals, as JSON."""
        return json.dumps({"heads": list(self.common), "level": LEVEL})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array], metadata: str) -> "Scale":
        """What `tensors` and `metadata` gave."""

        def knots(kind: str, name: str) -> Knots:
            return Knots(tensors[f"{kind}/{name}/x"], tensors[f"{kind}/{name}/y"])

        def names(kind: str) -> list[str]:
            found = [key.split("/")[1] for key in sorted(tensors) if key.startswith(f"{kind}/")]
            return list(dict.fromkeys(found))

        def numbers(kind: str) -> dict[str, float]:
            return {name: float(tensors[f"{kind}/{name}"].reshape(-1)[0]) for name in names(kind)}

        return cls(
            {name: knots("common", name) for name in json.loads(metadata)["heads"]},
            {name: knots("native", name) for name in names("native")},
            {name: Truth(*map(float, tensors[f"truth/{name}"])) for name in names("truth")},
            numbers("radius"),
            numbers("native_radius"),
        )


def head_columns(frame: pd.DataFrame, heads: list[str]) -> Iterator[tuple[str, Array]]:
    """Scores of each head; `single` is the only one's."""
    for head in heads:
        column = head if head == "single" else f"score/{head}"
        yield head, frame[column].to_numpy(np.float64)


def gate_of(frame: pd.DataFrame, heads: list[str]) -> Array:
    """Weight of each head for each image; without a gate all count the same."""
    if f"gate/{heads[0]}" not in frame:
        return np.full((len(frame), len(heads)), 1 / len(heads))
    return frame[[f"gate/{head}" for head in heads]].to_numpy(np.float64)


def increasing(x: Array, y: Array, weights: Array) -> Knots:
    """The increasing map of x nearest to y: isotonic regression through the middles of its blocks.

    Where x says nothing of y (one block), the line that keeps mean and deviation.
    """
    from scipy.optimize import isotonic_regression  # noqa: PLC0415  # scoring needs no fit

    order = np.argsort(x, kind="stable")
    x, y, weights = x[order], y[order], weights[order]
    fit = isotonic_regression(y, weights=weights)
    edges = fit.blocks
    total = np.add.reduceat(weights, edges[:-1])
    middle = np.add.reduceat(weights * x, edges[:-1]) / total
    height = fit.x[edges[:-1]]
    apart = np.concatenate([[True], np.diff(middle) > 1e-9 * max(float(np.ptp(x)), 1e-12)])
    if apart.sum() < 2:
        mean, level = np.average(x, weights=weights), np.average(y, weights=weights)
        spread = math.sqrt(np.average((x - mean) ** 2, weights=weights)) or 1.0
        height_spread = math.sqrt(np.average((y - level) ** 2, weights=weights)) or 1.0
        return Knots(
            np.array([mean - spread, mean + spread]),
            np.array([level - height_spread, level + height_spread]),
        )
    return Knots(middle[apart], height[apart])


def fit_scale(frame: pd.DataFrame, owner_task: Mapping[str, str]) -> Scale:
    """The scale of a run after a task, from the validation rows of what it has learnt.

    Each head is mapped, image by image weighted by the gate, to the mean of all mapped heads,
    round after round from standardised scores; then the 1st and 99th percentile of the pooled
    scores become 0 and 100.

    Args:
        frame: predictions, as `RunFolder.write_predictions` takes them.
        owner_task: the task that learns each data set; those not learnt yet are not in it.

    Raises:
        ValueError: nothing is learnt yet.
    """
    known = frame["dataset"].isin(list(owner_task)).to_numpy()
    rows = frame[(frame["split"] == "val").to_numpy() & known].reset_index(drop=True)
    if rows.empty:
        raise ValueError("no data set is learnt yet: there is no scale")
    heads = [str(column)[6:] for column in rows if str(column).startswith("score/")]
    heads = ["single"] if "single" in rows or not heads else heads
    gate, scores = gate_of(rows, heads), dict(head_columns(rows, heads))
    weights = {head: gate[:, k] + FLOOR for k, head in enumerate(heads)}
    mapped = np.stack([standard(scores[head], weights[head]) for head in heads], axis=1)
    maps: dict[str, Knots] = {}
    for _ in range(ROUNDS):
        wanted = standard((gate * mapped).sum(axis=1), np.ones(len(rows)))
        maps = {head: increasing(scores[head], wanted, weights[head]) for head in heads}
        mapped = np.stack([maps[head](scores[head]) for head in heads], axis=1)
    low, high = np.percentile((gate * mapped).sum(axis=1), [1, 99])
    width = (high - low) or 1.0
    common = {h: Knots(knots.x, 100 * (knots.y - low) / width) for h, knots in maps.items()}
    found = Scale(common, {}, {}, {}, {})
    values, residuals = found.score(rows), np.zeros(len(rows))
    for name, part in rows.groupby("dataset", sort=False):
        own, mos = values[part.index], part["mos"].to_numpy(np.float64)
        truth = Truth(mos.mean(), mos.std() or 1.0, own.mean(), own.std() or 1.0)
        head = owner_task[str(name)] if heads != ["single"] else "single"
        native = scores[head][part.index]
        found.native[str(name)] = increasing(native, mos, np.ones(len(part)))
        found.truth[str(name)] = truth
        found.native_radius[str(name)] = quantile(held_out(native, mos), whole=float(np.ptp(mos)))
        residuals[part.index] = np.abs(truth(mos) - own)
    first = np.array(found.head(rows))
    for head in heads if heads != ["single"] else ():
        if (first == head).sum() >= ENOUGH:
            found.radius[head] = quantile(residuals[first == head])
    found.radius["pooled"] = quantile(residuals)
    return found


def held_out(x: Array, y: Array) -> Array:
    """Distances of y from increasing maps of x that were fitted without them."""
    fold, found = np.arange(len(x)) % FOLDS, np.full(len(x), np.ptp(y))
    for k in range(FOLDS):
        rest, own = fold != k, fold == k
        if rest.any() and own.any():
            found[own] = np.abs(increasing(x[rest], y[rest], np.ones(rest.sum()))(x[own]) - y[own])
    return found


def standard(values: Array, weights: Array) -> Array:
    """Values with weighted mean 0 and deviation 1."""
    mean = np.average(values, weights=weights)
    deviation = math.sqrt(np.average((values - mean) ** 2, weights=weights)) or 1.0
    return np.asarray((values - mean) / deviation)


def quantile(residuals: Array, level: float = LEVEL, whole: float = 100.0) -> float:
    """The residual of rank ceil((n + 1) level), which holds a new one with at least that
    probability; the `whole` scale where there are too few.
    """
    rank = math.ceil((len(residuals) + 1) * level)
    return float(np.sort(residuals)[rank - 1]) if rank <= len(residuals) else whole


def scale_audit(
    frame: pd.DataFrame, scale: Scale, owner_task: Mapping[str, str]
) -> dict[str, float]:
    """What the scale does to the test rows of what is learnt.

    `pooled_before`, `pooled_after`: SRCC over all sets together with MOS standardised within sets,
    of the recorded readout and on the common scale. `agreement_before`, `agreement_after`: Lin's
    concordance of two heads on all images, mean over pairs of heads, NaN of one head.
    `coverage/<dataset>` and `coverage`: share of images whose interval holds their rating.
    """
    from iqa_lightning.metrics.correlation import srcc  # noqa: PLC0415  # scipy

    known = frame["dataset"].isin(list(owner_task)).to_numpy()
    rows = frame[(frame["split"] == "test").to_numpy() & known].reset_index(drop=True)
    readout = next(r for r in ("gated", "single", "latest") if r in rows)
    values, heads = scale.score(rows), list(scale.common)
    ratings, hit = np.zeros(len(rows)), np.zeros(len(rows))
    radius = scale.radius_of(scale.head(rows))
    found: dict[str, float] = {}
    for key, part in rows.groupby("dataset", sort=False):
        name, mos = str(key), part["mos"].to_numpy(np.float64)
        ratings[part.index] = standard(mos, np.ones(len(mos)))
        error = np.abs(scale.truth[name](mos) - values[part.index])
        hit[part.index] = error <= radius[part.index]
        found[f"coverage/{name}"] = float(hit[part.index].mean())
    scores = dict(head_columns(rows, heads))
    pairs = list(combinations(heads, 2))
    return {
        "pooled_before": srcc(rows[readout].to_numpy(np.float64), ratings),
        "pooled_after": srcc(values, ratings),
        "agreement_before": mean([concordance(scores[a], scores[b]) for a, b in pairs]),
        "agreement_after": mean(
            [concordance(scale.common[a](scores[a]), scale.common[b](scores[b])) for a, b in pairs]
        ),
        "coverage": float(hit.mean()),
        **found,
    }


def mean(values: list[float]) -> float:
    """The mean, NaN of nothing."""
    return float(np.mean(values)) if values else math.nan


def concordance(one: Array, two: Array) -> float:
    """Lin's concordance correlation: 1 where both are the same numbers (Biometrics 45, 1989)."""
    covariance = ((one - one.mean()) * (two - two.mean())).mean()
    total = one.var() + two.var() + (one.mean() - two.mean()) ** 2
    return float(2 * covariance / total) if total > 0 else math.nan


def learnt_sets(predictions: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """The task that has learnt each data set by the last of the predictions; of sets that have
    validation rows.
    """
    first = next(iter(predictions.values()))
    names = set(first.loc[first["split"] == "val", "dataset"])
    tasks = [task for task in predictions if task != "start"]
    return {name: task for task in tasks for name in task.split("+") if name in names}
