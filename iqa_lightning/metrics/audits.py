"""What the records tell of a gate and of a learnt uncertainty: tables with a row per (after,
dataset), test part only.

Predictions come as tables keyed by the task after which they were made, `start` first, as
`RunFolder.predictions` reads them.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

from iqa_lightning.metrics.correlation import srcc
from iqa_lightning.metrics.liqe_labels import label_tables

Array = NDArray[np.float64]


EPS = 1e-8


BLOCK = 2_000_000  # pairs at a time


def audits(
    predictions: Mapping[str, pd.DataFrame], owner_task: Mapping[str, str]
) -> dict[str, pd.DataFrame]:
    """The tables that the records allow: `gate` where heads are weighed, `uncertainty` where a
    deviation is predicted.

    Where scenes or distortions are predicted also `labels` and `confusion`, see
    `metrics/labels.py`. `owner_task` is the task that learns each data set; a data set that is not
    learnt yet is not in it.
    """
    last = list(predictions.values())[-1]
    tables = {}
    if {"oracle", "gated"} <= set(last.columns) and any(
        column.startswith("gate/") for column in last.columns
    ):
        tables["gate"] = pd.DataFrame(gate_rows(predictions, owner_task))
    if {"sigma", "mos_std"} <= set(last.columns):
        tables["uncertainty"] = pd.DataFrame(uncertainty_rows(predictions))
    return tables | label_tables(tests_of(predictions))


def tests_of(predictions: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(after, data set, its test rows) in the order of the stream."""
    for after, frame in predictions.items():
        for name, rows in frame[frame["split"] == "test"].groupby("dataset", sort=False):
            yield after, str(name), rows


def gate_rows(
    predictions: Mapping[str, pd.DataFrame], owner_task: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Confusion and regret of the gate after each task.

    `weight/<task>`: mean gate weight of the task's head on the data set, in [0, 1], a row sums to
    1; `own`: that of the task that learns the data set; `accuracy`: share of images whose heaviest
    head is that one; `entropy`: of the weights of an image, mean, as a share of that of equal
    weights (0: one head has all, 1: all count the same); `regret`: SRCC of the oracle readout minus
    that of the gated one (what not knowing the data set costs, lower is better);
    `regret_uniform`: the same of the plain mean of all heads, the control that a gate must beat.
    NaN where a head does not exist yet.
    """
    tasks = [after for after in predictions if after != "start"]
    for after, name, rows in tests_of(predictions):
        if after == "start":
            continue
        weights = {task: mean_of(rows, f"gate/{task}") for task in tasks}
        mos = rows["mos"].to_numpy(np.float64)
        oracle, gated = (rows[readout].to_numpy(np.float64) for readout in ("oracle", "gated"))
        known = not np.isnan(oracle).any()
        heads = [task for task in tasks if f"gate/{task}" in rows]
        gate = rows[[f"gate/{task}" for task in heads]].to_numpy(np.float64)
        scored = [f"score/{task}" for task in heads if f"score/{task}" in rows]
        mean = rows[scored].to_numpy(np.float64).mean(axis=1) if scored else None
        owner = owner_task.get(name, "")
        yield {
            "after": after,
            "dataset": name,
            "n": len(rows),
            "own": weights.get(owner, math.nan),
            "accuracy": float(np.mean(gate.argmax(axis=1) == heads.index(owner)))
            if owner in heads
            else math.nan,
            "entropy": entropy(gate),
            "regret": srcc(oracle, mos) - srcc(gated, mos) if known else math.nan,
            "regret_uniform": srcc(oracle, mos) - srcc(mean, mos)
            if known and mean is not None
            else math.nan,
            **{f"weight/{task}": weight for task, weight in weights.items()},
        }


def entropy(weights: Array) -> float:
    """Mean entropy of rows of weights (images, heads), as a share of that of equal weights; NaN of
    one head.
    """
    if weights.shape[1] < 2:
        return math.nan
    parts = np.where(weights > 0, weights * np.log(np.where(weights > 0, weights, 1.0)), 0.0)
    return float(-parts.sum(axis=1).mean() / math.log(weights.shape[1]))


def mean_of(rows: pd.DataFrame, column: str) -> float:
    """Mean of a column, NaN where there is none."""
    return float(rows[column].to_numpy(np.float64).mean()) if column in rows else math.nan


def uncertainty_rows(predictions: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """Test fidelity (mean over all pairs, lower is better) and SRCC of predicted with human
    deviation.
    """
    for after, name, rows in tests_of(predictions):
        mean, sigma, mos, std = (
            rows[c].to_numpy(np.float64) for c in ("single", "sigma", "mos", "mos_std")
        )
        known = not np.isnan(std).any()
        yield {
            "after": after,
            "dataset": name,
            "n": len(rows),
            "fidelity": mean_fidelity(mean, sigma, mos, std),
            "sigma_srcc": srcc(sigma, std) if known else math.nan,
        }


def mean_fidelity(mean: Array, sigma: Array, mos: Array, std: Array) -> float:
    """1 - sqrt(p q) - sqrt((1 - p)(1 - q)), averaged over all unordered pairs; p predicted, q human
    preference.

    Source: the analysis script of UNIQUE, https://github.com/zwx8981/UNIQUE.
    """
    count, total = len(mean), 0.0
    step = max(1, BLOCK // max(count, 1))
    for start in range(0, count, step):
        first, second = np.triu_indices(min(step, count - start), 1 + start, count)
        first = first + start
        p = prefer(mean, np.sqrt(sigma[first] ** 2 + sigma[second] ** 2 + EPS), first, second)
        q = prefer(mos, np.sqrt(std[first] ** 2 + std[second] ** 2), first, second)
        total += float((1 - np.sqrt(p * q) - np.sqrt((1 - p) * (1 - q))).sum())
    return total / (count * (count - 1) / 2) if count > 1 else math.nan


def prefer(value: Array, spread: Array, first: NDArray[np.intp], second: NDArray[np.intp]) -> Array:
    """Phi(difference / spread); without a spread the sign of the difference, 0.5 for a tie."""
    difference = value[first] - value[second]
    certain = np.where(difference > 0, np.inf, np.where(difference < 0, -np.inf, 0.0))
    return np.asarray(ndtr(np.divide(difference, spread, out=certain, where=spread > 0)))
