"""Run folders -> the three tables of results that everything else in a report is made of.

`runs.csv` (one row per run: what it is, what it cost), `cells.csv` (one row per cell of its
matrices) and `measures.csv` (one row per number of its line in a table). A run is known by
`method`, `order` (its tasks joined with `>`), `split` and `seed`. Intervals come from a bootstrap
of the test images by content; those of measures take the same resample of a data set in all cells.
Nothing but the predictions, the summary and the config of a run is read.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iqa_lightning.configs import NAMES_OF_RUN, config_changes, config_hash, read_yaml
from iqa_lightning.files import write_bytes
from iqa_lightning.metrics.matrices import readouts_of, task_of_dataset
from iqa_lightning.metrics.resampling import (
    bootstrap_interval,
    cell_interval,
    content_weights,
    contents_of,
    correlation,
    dataset_seed,
    unit_ranks,
)
from iqa_lightning.metrics.transfer import readout_measures
from iqa_lightning.records import RunFolder

RUN = ["method", "order", "split", "seed"]


COST = ["train_seconds", "images_seen", "forwards_eval", "parameters_added", "bytes_stored"]


TABLES = ("runs", "cells", "measures")


Array = NDArray[np.float64]


class Results(NamedTuple):
    """The three tables; texts and numbers as read from the files, rounded to 6 decimals."""

    runs: pd.DataFrame
    cells: pd.DataFrame
    measures: pd.DataFrame


def collect(folders: Sequence[RunFolder], resamples: int = 1000) -> Results:
    """Results of finished runs.

    Raises:
        ValueError: Two runs are the same, runs of one method have other configs, or the same split
            of the same data sets holds different images in two runs.
    """
    rows = [run_row(folder) for folder in folders]
    refuse_mixture(rows)
    both = [run_tables(folder.predictions(), resamples) for folder in folders]
    names = [{key: row[key] for key in RUN} for row in rows]
    cells, measures = (
        [name | entry for name, tables in zip(names, both, strict=True) for entry in tables[i]]
        for i in (0, 1)
    )
    runs = pd.DataFrame(rows).drop(columns=["folder", "datasets", "config"])
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
    config = read_config(folder.path)
    return {
        "method": f"{summary['method']} (joint)" if joint else summary["method"],
        "order": ">".join(order),
        "split": summary["split"],
        "seed": summary["seed"],
        "split_hash": summary["split_hash"],
        "synthetic": bool(summary.get("synthetic", False)),
        "git": summary.get("git") or "",
        "config_hash": config_hash(config) if config else summary.get("config_hash") or "",
        "test_per_train": test_per_train(summary.get("images") or {}),
        **{key: summary.get("cost", {}).get(key, math.nan) for key in COST},
        "folder": folder.path,
        "config": config,
        "datasets": frozenset(name for task in order for name in task.split("+")),
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The config that a run was made with; empty where it is not there."""
    file = folder / "config.yaml"
    return dict(read_yaml(file)) if file.is_file() else {}


def test_per_train(images: Mapping[str, Mapping[str, int]]) -> float:
    """Test images for each training image, mean over data sets; NaN where it was not recorded.

    Args:
        images: Of each data set, how many are in `train` and in `test`.
    """
    shares = [parts["test"] / parts["train"] for parts in images.values()]
    return float(np.mean(shares)) if shares else math.nan


def refuse_mixture(rows: Sequence[dict[str, Any]]) -> None:
    """Refuse runs that no table can hold side by side.

    Raises:
        ValueError: naming the two folders.
    """
    seen: dict[Any, dict[str, Any]] = {}
    for row in rows:
        refuse_other_config(seen.setdefault((row["method"], "config"), row), row)
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


def refuse_other_config(first: dict[str, Any], row: dict[str, Any]) -> None:
    """Refuse two runs of one row of a table whose configs differ.

    Raises:
        ValueError: naming the two folders and the keys.
    """
    if first["config_hash"] == row["config_hash"]:
        return
    both = first["config"] and row["config"]
    changed = config_changes(first["config"], row["config"], NAMES_OF_RUN) if both else {}
    keys = "\n".join(f"  {key}: {old} in the first, {new}" for key, (old, new) in changed.items())
    raise ValueError(
        f"{first['folder']} and {row['folder']} would share the row of {row['method']}, but are of "
        f"two configs ({first['config_hash'] or 'not recorded'}, "
        f"{row['config_hash'] or 'not recorded'})"
        + (f":\n{keys}" if keys else "")
        + "\nmake one of them again, or give it a name of its own with variant=<name>"
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
            for t, task in enumerate(tasks):
                cell: dict[str, Any] = {"readout": readout, "after": task, "dataset": name} | size
                for kind, draws in (("srcc", srcc), ("stability", stability)):
                    low, high = cell_interval(draws[:, t, d], size["n"], count[name])
                    cell |= {kind: draws[0, t, d], f"{kind}_low": low, f"{kind}_high": high}
                cells.append(cell)
        found = measures_of_draws(srcc, stability, learnt)
        final = pd.DataFrame(srcc[:, -1], columns=[f"srcc/{name}" for name in names])
        for name, column in pd.concat([final, found], axis=1).items():
            dataset = str(name)[5:] if str(name).startswith("srcc/") else None
            used = min(count.values()) if dataset is None else count[dataset]
            row = {"readout": readout, "measure": name} | with_interval(column.to_numpy(), used)
            if dataset is not None:  # a cell, with the interval of cells
                images = len(contents[dataset])
                bounds = cell_interval(column.to_numpy(), images, used)
                row |= dict(zip(("low", "high"), bounds, strict=True))
            measures.append(row)
    return cells, measures


def measures_of_draws(srcc: Array, stability: Array, learnt: NDArray[np.int64]) -> pd.DataFrame:
    """`readout_measures` of each resample, a row each.

    All measures but forgetting are sums of cells, so what each cell weighs is found once, by
    matrices that are 1 in that cell alone.

    Args:
        srcc: (1 + resamples, T + 1, D).
        stability: (1 + resamples, T + 1, D).
        learnt: (D,) the task that learns each data set.
    """
    shape, cells = srcc.shape[1:], srcc[0].size
    units = np.eye(cells).reshape(cells, *shape)
    nothing = np.zeros(shape)
    base = pd.Series(readout_measures(nothing, nothing, learnt))
    weights = [
        pd.DataFrame([readout_measures(one, other, learnt) for one, other in pairs]) - base
        for pairs in ([(unit, nothing) for unit in units], [(nothing, unit) for unit in units])
    ]
    found = {}
    for name in base.index:
        found[name] = np.full(len(srcc), base[name])
        for part, draws in zip(weights, (srcc, stability), strict=True):
            used = (part[name] != 0).to_numpy()
            chosen = draws.reshape(len(draws), cells)[:, used]
            found[name] = found[name] + chosen @ part[name].to_numpy()[used]
    last = len(srcc[0]) - 1
    lost = [
        srcc[:, t:last, d].max(axis=1) - srcc[:, last, d] for d, t in enumerate(learnt) if t < last
    ]
    found["forgetting"] = np.mean(lost, axis=0) if lost else np.full(len(srcc), math.nan)
    return pd.DataFrame(found)


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
        weights = content_weights(groups, resamples, seed=dataset_seed(name))
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
        ValueError: One is missing, or was written by a version that knew fewer columns.
    """
    for name in TABLES:
        if not (folder / f"{name}.csv").is_file():
            raise ValueError(
                f"{folder / name}.csv is missing: make it from the runs, without `from=results`"
            )
    texts = dict.fromkeys(
        ("method", "order", "split_hash", "git", "config_hash", "readout", "after", "dataset"), str
    )
    results = Results(*(read_csv(folder / f"{name}.csv", texts) for name in TABLES))
    if missing := [key for key in ("config_hash", "test_per_train") if key not in results.runs]:
        raise ValueError(
            f"{folder}/runs.csv lacks the column '{missing[0]}': it is of an older version; make "
            "it again from the runs, with `from=records`"
        )
    return results


def read_csv(file: Path, texts: Mapping[str, type]) -> pd.DataFrame:
    """A table that `csv_bytes` wrote; `texts` names its columns of text."""
    table = pd.read_csv(file, dtype=dict(texts), keep_default_na=False, na_values=[""])
    for name in texts.keys() & set(table.columns):
        table[name] = table[name].str.replace(r"^'(?=[=+\-@\t\r])", "", regex=True)
    return table


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

    Texts that a spreadsheet would take for a formula get an apostrophe before them.
    """
    safe = table.copy()
    for name in safe.columns:
        if pd.api.types.is_object_dtype(safe[name]) or pd.api.types.is_string_dtype(safe[name]):
            safe[name] = safe[name].map(without_formula)
    text = io.StringIO()
    safe.to_csv(text, index=False, float_format="%.6f", lineterminator="\n")
    return text.getvalue().replace("-0.000000", "0.000000").encode()


def without_formula(value: Any) -> Any:
    """A text with an apostrophe before it if a spreadsheet would calculate it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
