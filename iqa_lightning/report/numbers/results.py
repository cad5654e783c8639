"""Run folders -> the three tables of results that everything else in a report is made of.

`runs.csv` (one row per run: what it is, what it cost), `cells.csv` (one row per cell of its
matrices) and `measures.csv` (one row per number of its line in a table). A run is known by
`method`, `order` (its tasks joined with `>`), `split` and `seed`. Intervals come from a bootstrap
of the test images by content; those of measures take the same resample of a data set in all cells.
Nothing but the predictions and the summary of a run is read.
"""

import io
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iqa_lightning.metrics.matrices import readouts_of, task_of_dataset
from iqa_lightning.metrics.transfer import readout_measures
from iqa_lightning.records import RunFolder, write_bytes
from iqa_lightning.report.numbers.statistics import (
    bootstrap_interval,
    content_weights,
    correlation,
    unit_ranks,
)

RUN = ["method", "order", "split", "seed"]


COST = ["train_seconds", "images_seen", "forwards_eval", "parameters_added", "bytes_stored"]


TABLES = ("runs", "cells", "measures")


Array = NDArray[np.float64]


class Results(NamedTuple):
    """The three tables; texts and numbers as they are read from the files, rounded to 6 decimals."""

    runs: pd.DataFrame
    cells: pd.DataFrame
    measures: pd.DataFrame


def collect(folders: Sequence[RunFolder], resamples: int = 1000) -> Results:
    """Results of finished runs.

    Raises:
        ValueError: Two runs are the same, or the same split of the same data sets holds different
            images in two runs.
    """
    rows = [run_row(folder) for folder in folders]
    refuse_mixture(rows)
    both = [run_tables(folder.predictions(), resamples) for folder in folders]
    names = [{key: row[key] for key in RUN} for row in rows]
    cells, measures = (
        [name | entry for name, tables in zip(names, both, strict=True) for entry in tables[i]]
        for i in (0, 1)
    )
    runs = pd.DataFrame(rows).drop(columns=["folder", "datasets"])
    return Results(runs, pd.DataFrame(cells), pd.DataFrame(measures))


def run_row(folder: RunFolder) -> dict[str, Any]:
    """What the summary of a run says it is and cost.

    Raises:
        ValueError: The summary lacks what names a run.
    """
    summary = folder.read_summary()
    if missing := [
        key for key in ("method", "order", "split", "split_hash", "seed") if key not in summary
    ]:
        raise ValueError(
            f"{folder.path}/summary.json lacks '{missing[0]}': is it a run of iqa_lightning.train?"
        )
    order = [task if isinstance(task, str) else "+".join(task) for task in summary["order"]]
    joint = any("+" in task for task in order)
    return {
        "method": f"{summary['method']} (joint)" if joint else summary["method"],
        "order": ">".join(order),
        "split": summary["split"],
        "seed": summary["seed"],
        "split_hash": summary["split_hash"],
        "synthetic": bool(summary.get("synthetic", False)),
        "git": summary.get("git") or "",
        **{key: summary.get("cost", {}).get(key, math.nan) for key in COST},
        "folder": folder.path,
        "datasets": frozenset(name for task in order for name in task.split("+")),
    }


def refuse_mixture(rows: Sequence[dict[str, Any]]) -> None:
    """Refuse runs that no table can hold side by side.

    Raises:
        ValueError: naming the two folders.
    """
    seen: dict[Any, dict[str, Any]] = {}
    for row in rows:
        for key in (tuple(row[name] for name in RUN), (row["datasets"], row["split"])):
            first = seen.setdefault(key, row)
            if len(key) == len(RUN) and first is not row:
                raise ValueError(
                    f"{first['folder']} and {row['folder']} are the same run {key}: leave one out"
                )
            if first["split_hash"] != row["split_hash"]:
                raise ValueError(
                    f"split {row['split']} of {', '.join(sorted(row['datasets']))} holds other "
                    "images in "
                    f"{first['folder']} ({first['split_hash']}) than in {row['folder']} "
                    f"({row['split_hash']}): "
                    "one of them was made from other data; make it again or leave it out"
                )


def run_tables(
    predictions: dict[str, pd.DataFrame], resamples: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `cells` and of `measures` of one run, without the columns that name it."""
    tasks, first = list(predictions), next(iter(predictions.values()))
    names = list(dict.fromkeys(first["dataset"]))
    learnt, cells, measures = task_of_dataset(tasks, names), [], []
    contents = {name: contents_of(first, name) for name in names}
    count = {name: len(set(contents[name])) for name in names}
    for readout in readouts_of(first):
        srcc, stability = resampled_matrices(predictions, readout, contents, learnt, resamples)
        for d, name in enumerate(names):
            size = {"n": len(contents[name]), "contents": count[name]}
            bounds = [
                bootstrap_interval(draws[1:, :, d], count[name]) for draws in (srcc, stability)
            ]
            for t, task in enumerate(tasks):
                cell: dict[str, Any] = {"readout": readout, "after": task, "dataset": name} | size
                for kind, draws, (low, high) in zip(
                    ("srcc", "stability"), (srcc, stability), bounds, strict=True
                ):
                    cell |= {kind: draws[0, t, d], f"{kind}_low": low[t], f"{kind}_high": high[t]}
                cells.append(cell)
        found = pd.DataFrame(
            [readout_measures(s, p, learnt) for s, p in zip(srcc, stability, strict=True)]
        )
        final = pd.DataFrame(srcc[:, -1], columns=[f"srcc/{name}" for name in names])
        for name, column in pd.concat([final, found], axis=1).items():
            used = count[str(name)[5:]] if str(name).startswith("srcc/") else min(count.values())
            measures.append(
                {"readout": readout, "measure": name} | with_interval(column.to_numpy(), used)
            )
    return cells, measures


def with_interval(draws: Array, contents: int) -> dict[str, float]:
    """A statistic, its bootstrap interval and its bootstrap variance; `draws[0]` is the sample
    itself.
    """
    low, high = bootstrap_interval(draws[1:], contents)
    variance = math.nan if math.isnan(float(low)) else float(draws[1:].var(ddof=1))
    return {
        "value": float(draws[0]),
        "low": float(low),
        "high": float(high),
        "image_variance": variance,
    }


def contents_of(frame: pd.DataFrame, name: str) -> NDArray[Any]:
    """The content of each test image of a data set: its reference where the records hold one, else
    the image.
    """
    rows = (frame["dataset"] == name) & (frame["split"] == "test")
    return frame.loc[rows, "image/reference" if "image/reference" in frame else "image"].to_numpy()


def resampled_matrices(
    predictions: dict[str, pd.DataFrame],
    readout: str,
    contents: dict[str, NDArray[Any]],
    learnt: NDArray[np.int64],
    resamples: int,
) -> tuple[Array, Array]:
    """SRCC and stability matrices in each resample, both (1 + resamples, T + 1, D); entry 0 is the
    sample itself.

    The resamples of a data set depend on its name and contents only: all runs on the same split
    share them.
    """
    srcc = np.full((1 + resamples, len(predictions), len(contents)), math.nan)
    stability = srcc.copy()
    for d, (name, groups) in enumerate(contents.items()):
        weights = content_weights(groups, resamples, seed=zlib.crc32(name.encode()))
        rows = [
            frame[(frame["dataset"] == name) & (frame["split"] == "test")]
            for frame in predictions.values()
        ]
        mos, just = unit_ranks(rows[0]["mos"].to_numpy(np.float64), weights), None
        for t, row in enumerate(rows):
            ranks = unit_ranks(row[readout].to_numpy(np.float64), weights)
            srcc[:, t, d] = correlation(ranks, mos)
            if just is not None:
                stability[:, t, d] = correlation(ranks, just)
            just = ranks if t == learnt[d] else just
    return srcc, stability


def write_results(folder: Path, results: Results) -> None:
    """Store the tables as CSV in `folder`."""
    for name, table in zip(TABLES, results, strict=True):
        write_bytes(folder / f"{name}.csv", csv_bytes(table))


def read_results(folder: Path) -> Results:
    """The tables stored in `folder`.

    Raises:
        ValueError: One is missing.
    """
    for name in TABLES:
        if not (folder / f"{name}.csv").is_file():
            raise ValueError(
                f"{folder / name}.csv is missing: make it from the runs, without `from=results`"
            )
    texts = {"method": str, "order": str, "split_hash": str, "git": str}
    tables = [
        pd.read_csv(folder / f"{name}.csv", dtype=texts, keep_default_na=False, na_values=[""])
        for name in TABLES
    ]
    return Results(*tables)


def results_of(
    folder: Path, runs: Sequence[RunFolder], resamples: int = 1000, again: bool = False
) -> Results:
    """The tables stored in `folder`; those of `runs` where there are none, or `again`.

    Raises:
        ValueError: There are neither tables nor runs.
    """
    if not again and (folder / "runs.csv").is_file():
        return read_results(folder)
    if not runs:
        raise ValueError(
            f"there is no {folder}/runs.csv, and no finished run was found: make the table first"
        )
    return collect(runs, resamples)


def csv_bytes(table: pd.DataFrame) -> bytes:
    """CSV with 6 decimals: rounding errors of another machine stay below the last digit, nearly
    always.
    """
    text = io.StringIO()
    table.to_csv(text, index=False, float_format="%.6f", lineterminator="\n")
    return text.getvalue().replace("-0.000000", "0.000000").encode()
