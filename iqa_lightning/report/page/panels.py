"""What the charts of the dashboard draw, as plain values for JSON: from results of runs and, where
there, predictions.

Everything but the gate and the images comes from the stored results. NaN becomes null.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from iqa_lightning.metrics.audits import gate_rows
from iqa_lightning.metrics.matrices import task_of_dataset
from iqa_lightning.report.numbers import ranking
from iqa_lightning.report.numbers.ranking import Ranking
from iqa_lightning.report.numbers.results import COST, RUN, Results
from iqa_lightning.report.numbers.verdicts import Summary, chosen_readouts, datasets_of
from iqa_lightning.report.text.paper import COLUMNS, COST_LABELS
from iqa_lightning.report.text.terminal import MEASURES

LOWER = (*ranking.LOWER, *COST)
"""Measures of which less is better; of all others more is."""


Predictions = dict[str, pd.DataFrame]


Key = tuple[Any, ...]  # the values of RUN


def payload(
    results: Results, summary: Summary, predictions: Mapping[Key, Predictions]
) -> dict[str, Any]:
    """Everything that the charts of the page draw.

    Args:
        results: the tables of all runs.
        summary: what `verdicts.summarise` made of them.
        predictions: those that are at hand, by run.
    """
    chosen = chosen_readouts(results.measures)
    return {
        "measures": measures(summary.lines),
        "tested": list(summary.rankings),
        "readouts": dict(
            chosen[["method", "readout"]].drop_duplicates().itertuples(index=False, name=None)
        ),
        "lines": lines(summary.lines),
        "values": values(chosen),
        "runs": runs(results.cells, predictions),
        "ranks": {
            measure: found
            for measure, ranking in summary.rankings.items()
            if (found := average_ranks(ranking))
        },
    }


def measures(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Label and direction of each measure by its key, in the order in which they are shown."""
    labels = {key: MEASURES[key] for key in COLUMNS}
    labels |= {f"srcc/{name}": f"SRCC on {name}" for name in datasets_of(table)} | COST_LABELS
    return {
        key: {"label": label, "lower": key in LOWER, "cost": key in COST}
        for key, label in labels.items()
    }


def lines(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each number of the table that was measured, with its interval."""
    names = ["method", "readout", "measure"]
    return [
        {name: row[name] for name in names}
        | {key: plain(row[key]) for key in ("mean", "low", "high")}
        | {"n": int(row["n"]), "splits": int(row["splits"]), "interval": row["interval"]}
        for row in table[table["n"] > 0].to_dict("records")
    ]


def values(chosen: pd.DataFrame) -> list[dict[str, Any]]:
    """Each measure of each run in the readout its method is used with."""
    kept = chosen[chosen["value"].notna()]
    return [
        {
            **dict(zip(RUN, key, strict=True)),
            **{str(m): plain(v) for m, v in zip(rows["measure"], rows["value"], strict=True)},
        }
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
                for kind in (
                    "srcc",
                    "srcc_low",
                    "srcc_high",
                    "stability",
                    "stability_low",
                    "stability_high",
                )
            }
            for readout, part in rows.groupby("readout", sort=False)
        }
        run = dict(zip(RUN, key, strict=True)) | {
            "after": after,
            "datasets": names,
            "readouts": readouts,
        }
        run["learnt"] = task_of_dataset(after, names).tolist()
        if (gate := gate_weights(predictions.get(tuple(key), {}))) is not None:
            run["gate"] = gate
        found.append(run)
    return found


def matrix(
    rows: pd.DataFrame, kind: str, after: list[str], names: list[str]
) -> list[list[float | None]]:
    """One matrix of a run: a row per state, a column per data set."""
    table = rows.pivot(index="after", columns="dataset", values=kind).reindex(
        index=after, columns=names
    )
    return [[plain(value) for value in row] for row in table.to_numpy(np.float64)]


def gate_weights(predictions: Predictions) -> list[list[list[float | None]]] | None:
    """Mean weight of each head (last axis) on each data set (second axis) after each task; None
    without a gate.
    """
    if not any(
        str(column).startswith("gate/") for frame in predictions.values() for column in frame
    ):
        return None
    table = pd.DataFrame(gate_rows(predictions, {}))
    weights = [column for column in table if str(column).startswith("weight/")]
    return [
        [[plain(value) for value in row] for row in rows[weights].to_numpy(np.float64)]
        for _, rows in table.groupby("after", sort=False)
    ]


def average_ranks(found: Ranking) -> dict[str, Any] | None:
    """The ranking of the methods by a measure, as in `ranks.csv`, for a diagram.

    Returns:
        `methods`, best first, their `ranks`, the places of the members of each of the `groups` that
        the tests do not tell apart, and `splits`; None if there are not two methods, or no split
        that holds them all.
    """
    names = [str(name) for name in found.ranks["method"]]
    if len(names) < 2 or not found.splits:
        return None
    return {
        "methods": names,
        "ranks": [plain(rank) for rank in found.ranks["rank"]],
        "groups": [[names.index(name) for name in group] for group in found.groups],
        "splits": found.splits,
    }


def plain(value: Any) -> float | None:
    """A number for JSON: four decimals show all that a chart can, null where there is none."""
    number = float(value)
    return round(number, 4) if math.isfinite(number) else None
