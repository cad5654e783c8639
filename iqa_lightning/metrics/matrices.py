"""What the stored predictions of a run amount to: SRCC and stability matrices, measures, and a
table of all cells.

Predictions come as tables keyed by the task after which they were made, `start` first, as
`RunFolder.predictions` reads them: columns `dataset`, `split`, `mos` and one per readout, the same
rows in each. Only rows of `split` `test` count.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iqa_lightning.metrics import correlation
from iqa_lightning.metrics import correlation as logistic
from iqa_lightning.metrics import transfer as continual
from iqa_lightning.metrics.audits import audits
from iqa_lightning.metrics.resampling import Array, Resampler, contents_of

IDENTITY = ("dataset", "split", "image", "mos")


DEVIATIONS = ("mos_std", "sigma")  # human and predicted


class Derived(TypedDict):
    """Everything that follows from predictions; a readout is the key wherever there is one result
    per readout.
    """

    readouts: dict[str, dict[str, float]]
    """The measures of `transfer.readout_measures`; NaN where undefined."""
    srcc: dict[str, pd.DataFrame]
    """SRCC with the ratings: index `after` (T + 1 rows, `start` first), one column per data set in
    stream order.
    """
    stability: dict[str, pd.DataFrame]
    """SRCC with the predictions made right after the set was learnt; NaN up to that row."""
    cells: pd.DataFrame
    """One row per (after, dataset, readout) that holds predictions, with every correlation and its
    interval.
    """
    audits: dict[str, pd.DataFrame]
    """What else the records allow: `gate`, `uncertainty`, `labels`; a row per (after, dataset); and
    `confusion`.
    """


def derive(predictions: Mapping[str, pd.DataFrame]) -> Derived:
    """Matrices, measures and cells of the predictions after each task; a pure function, nothing is
    written.

    Raises:
        ValueError: A data set of the stream is learnt by a task but has no rows.
    """
    tasks, frames = list(predictions), list(predictions.values())
    names = list(dict.fromkeys(frames[0]["dataset"]))
    learnt = task_of_dataset(tasks, names)
    rows = [
        np.flatnonzero((frames[0]["dataset"] == name) & (frames[0]["split"] == "test"))
        for name in names
    ]
    mos = [frames[0]["mos"].to_numpy(np.float64)[r] for r in rows]
    resamplers = [Resampler(contents_of(frames[0], name).tolist(), name) for name in names]
    truth = [resampler.ranks(y) for resampler, y in zip(resamplers, mos, strict=True)]
    derived = Derived(readouts={}, srcc={}, stability={}, cells=pd.DataFrame(), audits={})
    cells: list[dict[str, Any]] = []
    for readout in readouts_of(frames[0]):
        scores = [[frame[readout].to_numpy(np.float64)[r] for r in rows] for frame in frames]
        srcc, stability = _srcc_matrix(scores, mos), _stability_matrix(scores, learnt)
        derived["readouts"][readout] = continual.readout_measures(srcc, stability, learnt)
        derived["srcc"][readout] = _labelled(srcc, tasks, names)
        derived["stability"][readout] = _labelled(stability, tasks, names)
        cells += _cells(
            readout, tasks, names, scores, list(zip(mos, truth, resamplers, strict=True))
        )
    order = {name: i for i, name in enumerate(tasks)}, {name: i for i, name in enumerate(names)}
    cells.sort(key=lambda cell: (order[0][cell["after"]], order[1][cell["dataset"]]))
    derived["cells"] = pd.DataFrame(cells, columns=CELLS)
    owner_task = {name: tasks[t] for name, t in zip(names, learnt, strict=True) if t < len(tasks)}
    derived["audits"] = audits(predictions, owner_task)
    return derived


def task_of_dataset(tasks: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    """The task, from 1, that learns each data set; len(tasks) where none has so far. Shape
    (len(names),).

    `tasks` starts with `start`; a task that learns several data sets jointly is called by their
    names joined with `+`.

    Raises:
        ValueError: A task learns a data set that is not among `names`.
    """
    learnt = dict.fromkeys(names, len(tasks))
    for t, task in enumerate(tasks[1:], 1):
        for name in task.split("+"):
            if name not in learnt:
                raise ValueError(
                    f"task '{task}' learns '{name}', but the predictions hold only "
                    f"{', '.join(names)}"
                )
            learnt[name] = min(t, learnt[name])
    return np.array([learnt[name] for name in names], np.int64)


def readouts_of(frame: pd.DataFrame) -> list[str]:
    """The readout columns of predictions: neither identity of the image, nor a deviation, nor of
    one head.
    """
    others = {*IDENTITY, *DEVIATIONS}
    return [
        str(column) for column in frame.columns if column not in others and "/" not in str(column)
    ]


Scores = Sequence[Sequence[NDArray[np.float64]]]  # [after][data set] -> (images,)


Target = tuple[Array, Array, Resampler]  # ratings of a data set, and what its intervals come from


CELLS = [
    *("after", "dataset", "readout", "n", "srcc", "srcc_low", "srcc_high"),
    *("plcc_raw", "plcc_logistic4", "plcc_logistic5", "krcc", "rmse_logistic4"),
]


def _srcc_matrix(scores: Scores, mos: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.array(
        [[correlation.srcc(pred, y) for pred, y in zip(row, mos, strict=True)] for row in scores]
    )


def _stability_matrix(scores: Scores, learnt: NDArray[np.int64]) -> NDArray[np.float64]:
    matrix = np.full((len(scores), len(learnt)), math.nan)
    for d, first in enumerate(learnt):
        for t in range(first + 1, len(scores)):
            matrix[t, d] = correlation.srcc(scores[t][d], scores[first][d])
    return matrix


def _labelled(matrix: NDArray[np.float64], tasks: list[str], names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(matrix, index=pd.Index(tasks, name="after"), columns=names)


def _cells(
    readout: str,
    tasks: list[str],
    names: list[str],
    scores: Scores,
    targets: Sequence[Target],
) -> Iterator[dict[str, Any]]:
    for task, row in zip(tasks, scores, strict=True):
        for name, pred, target in zip(names, row, targets, strict=True):
            if not np.isnan(pred).all():  # a head that does not exist yet leaves no cell
                yield {
                    "after": task,
                    "dataset": name,
                    "readout": readout,
                    **_agreement(pred, target),
                }


def _agreement(pred: NDArray[np.float64], target: Target) -> dict[str, float]:
    mos, ranks, resampler = target
    rank = correlation.srcc(pred, mos)
    low, high = resampler.interval(rank, resampler.ranks(pred), ranks)
    mapped = logistic.map_logistic4(pred, mos)
    return {
        "n": len(mos),
        "srcc": rank,
        "srcc_low": low,
        "srcc_high": high,
        "plcc_raw": correlation.plcc(pred, mos),
        # rounded, since the last digits of MINPACK's fits depend on where in memory its arrays lie
        "plcc_logistic4": round(correlation.plcc(mapped, mos), 4),
        "plcc_logistic5": round(correlation.plcc_logistic5(pred, mos), 4),
        "krcc": correlation.krcc(pred, mos),
        "rmse_logistic4": round(correlation.rmse(mapped, mos), 4),
    }
