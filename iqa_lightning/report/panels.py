"""What the charts of the dashboard draw, as plain values for JSON: from results of runs and, where there, predictions.

Everything but the gate and the images comes from the stored results. NaN becomes null.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from iqa_lightning.metrics.audits import gate_rows
from iqa_lightning.metrics.matrices import learnt_by
from iqa_lightning.report.paper import COLUMNS, COST_LABELS
from iqa_lightning.report.sweep import COST, RUN, Results
from iqa_lightning.report.tables import MEASURES
from iqa_lightning.report.verdicts import TESTED, Summary, chosen_readouts, datasets_of

SIGNIFICANT = 0.05
LOWER = ("forgetting", *COST)
"""Measures of which less is better; of all others more is."""
Predictions = dict[str, pd.DataFrame]
Key = tuple[Any, ...]  # the values of RUN


def payload(results: Results, summary: Summary, predictions: Mapping[Key, Predictions]) -> dict[str, Any]:
    """Everything that the charts of the page draw.

    Args:
        results: the tables of all runs.
        summary: what `verdicts.summarise` made of them.
        predictions: those that are at hand, by run.
    """
    chosen = chosen_readouts(results.measures)
    return {
        "measures": measures(summary.lines),
        "tested": list(TESTED),
        "readouts": dict(chosen[["method", "readout"]].drop_duplicates().itertuples(index=False, name=None)),
        "lines": lines(summary.lines),
        "values": values(chosen),
        "runs": runs(results.cells, predictions),
        "ranks": {measure: found for measure in TESTED if (found := average_ranks(chosen, summary.tests, measure))},
    }


def measures(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Label and direction of each measure by its key, in the order in which they are shown."""
    labels = {key: MEASURES[key] for key in COLUMNS}
    labels |= {f"srcc/{name}": f"SRCC on {name}" for name in datasets_of(table)} | COST_LABELS
    return {key: {"label": label, "lower": key in LOWER, "cost": key in COST} for key, label in labels.items()}


def lines(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each number of the table that was measured, with its interval."""
    names = ["method", "readout", "measure"]
    return [
        {name: row[name] for name in names}
        | {key: plain(row[key]) for key in ("mean", "low", "high")}
        | {"n": int(row["n"]), "interval": row["interval"]}
        for row in table[table["n"] > 0].to_dict("records")
    ]


def values(chosen: pd.DataFrame) -> list[dict[str, Any]]:
    """Each measure of each run in the readout its method is used with."""
    kept = chosen[chosen["value"].notna()]
    return [
        {**dict(zip(RUN, key, strict=True)), **{str(m): plain(v) for m, v in zip(rows["measure"], rows["value"])}}  # noqa: B905
        for key, rows in kept.groupby(RUN, sort=False)
    ]


def runs(cells: pd.DataFrame, predictions: Mapping[Key, Predictions]) -> list[dict[str, Any]]:
    """The matrices of each run, and the weights of its gate where its predictions are at hand."""
    found = []
    for key, rows in cells.groupby(RUN, sort=False):
        after, names = (list(dict.fromkeys(rows[column])) for column in ("after", "dataset"))
        readouts = {
            str(readout): {
                kind: matrix(part, kind, after, names)
                for kind in ("srcc", "srcc_low", "srcc_high", "stability", "stability_low", "stability_high")
            }
            for readout, part in rows.groupby("readout", sort=False)
        }
        run = dict(zip(RUN, key, strict=True)) | {"after": after, "datasets": names, "readouts": readouts}
        run["learnt"] = learnt_by(after, names).tolist()
        if (gate := gate_weights(predictions.get(tuple(key), {}))) is not None:
            run["gate"] = gate
        found.append(run)
    return found


def matrix(rows: pd.DataFrame, kind: str, after: list[str], names: list[str]) -> list[list[float | None]]:
    """One matrix of a run: a row per state, a column per data set."""
    table = rows.pivot(index="after", columns="dataset", values=kind).reindex(index=after, columns=names)
    return [[plain(value) for value in row] for row in table.to_numpy(np.float64)]


def gate_weights(predictions: Predictions) -> list[list[list[float | None]]] | None:
    """Mean weight of each head (last axis) on each data set (second axis) after each task; None without a gate."""
    if not any(str(column).startswith("gate/") for frame in predictions.values() for column in frame):
        return None
    table = pd.DataFrame(gate_rows(predictions, {}))
    weights = [column for column in table if str(column).startswith("weight/")]
    return [
        [[plain(value) for value in row] for row in rows[weights].to_numpy(np.float64)]
        for _, rows in table.groupby("after", sort=False)
    ]


def average_ranks(chosen: pd.DataFrame, tests: pd.DataFrame, measure: str) -> dict[str, Any] | None:
    """Average rank of each method (1 is best) over the blocks (order, split) that hold all of them, best first.

    A method that shares no block with any other, as joint learning, is left out.

    `groups` are the first and the last of methods in a row of which no two differ at 5 % in the corrected tests, as in
    a critical-difference diagram: J. Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7
    (2006), https://www.jmlr.org/papers/v7/demsar06a.html.

    Args:
        chosen: measures of runs, one readout for each method, higher is better.
        tests: one row per measure and pair of methods; a pair without a test counts as not told apart.
        measure: which.

    Returns:
        `methods`, `ranks`, `groups`, `blocks`; None if there are not two methods, or no block that holds them all.
    """
    rows = chosen[(chosen["measure"] == measure) & chosen["value"].notna()]
    table = rows.pivot_table(index=["order", "split"], columns="method", values="value", sort=False)
    shared = table[table.notna().sum(axis=1) > 1]
    table = table.loc[:, shared.notna().any()].dropna()
    if table.shape[1] < 2 or table.empty:
        return None
    ranks = pd.Series(stats.rankdata(-table.to_numpy(), axis=1).mean(axis=0), table.columns).sort_values(kind="stable")
    pairs = tests[(tests["measure"] == measure) & (tests["p_holm"] <= SIGNIFICANT)]
    differ = {frozenset(pair) for pair in pairs[["first", "second"]].itertuples(index=False, name=None)}
    names = [str(name) for name in ranks.index]
    shown = [plain(rank) for rank in ranks]
    return {"methods": names, "ranks": shown, "groups": alike(names, differ), "blocks": len(table)}


def alike(names: Sequence[str], differ: Iterable[frozenset[str]]) -> list[tuple[int, int]]:
    """First and last index of each longest stretch of at least two names of which no two are a pair in `differ`."""
    pairs = set(differ)
    found: list[tuple[int, int]] = []
    for first in range(len(names)):
        last = first
        while last + 1 < len(names) and not any(
            frozenset((names[i], names[last + 1])) in pairs for i in range(first, last + 1)
        ):
            last += 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def plain(value: Any) -> float | None:
    """A number for JSON: four decimals show all that a chart can, null where there is none."""
    number = float(value)
    return round(number, 4) if math.isfinite(number) else None
