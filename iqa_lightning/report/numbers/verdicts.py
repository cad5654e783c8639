"""Results of runs -> what a table says: means with intervals, verdicts, tests between methods,
variances.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from iqa_lightning.report.numbers.results import COST, RUN, Results
from iqa_lightning.report.numbers.statistics import (
    holm,
    paired_permutation,
    runs_interval,
    variance_components,
)
from iqa_lightning.report.text.terminal import MEASURES

PUBLISHED = ["method", "readout", "dataset", "metric", "value", "source", "certainty"]


UNCERTAIN = ("not certified", "doubtful")


TESTED = ("msrcc", "mpi", "msi", "mpsi")


HONEST = (
    "gated",
    "single",
    "latest",
)  # readouts that are not told the data set, see `used_readout`


SIGNIFICANT = 0.05  # methods differ if p, corrected, is not above


TOLERANCE = 0.01
"""A mean this close to the published number is called reproduced: one in the second decimal that
papers compare by.
"""


class Summary(NamedTuple):
    """What a table is printed from."""

    lines: pd.DataFrame
    """One row per number: method, readout, measure, mean, low, high, n, where the interval is from,
    verdict.
    """
    tests: pd.DataFrame
    """One row per measure and pair of methods."""
    variance: pd.DataFrame
    """One row per measure and method."""


def summarise(results: Results, published: pd.DataFrame) -> Summary:
    """Everything that a table says about the runs in `results`."""
    costs = results.runs.melt(RUN, COST, "measure", "value")
    readouts = results.measures[["method", "readout"]].drop_duplicates()
    values = pd.concat([results.measures, readouts.merge(costs, on="method")], ignore_index=True)
    lines = []
    for (method, readout), rows in values.groupby(["method", "readout"], sort=False):
        for measure, group in rows.groupby("measure", sort=False):
            lines.append(
                {"method": method, "readout": readout, "measure": measure} | estimate(group)
            )
    table = judged(pd.DataFrame(lines), published)
    table["synthetic"] = bool(results.runs["synthetic"].any())
    chosen = chosen_readouts(results.measures)
    return Summary(table, tests(chosen), variances(chosen))


def estimate(group: pd.DataFrame) -> dict[str, Any]:
    """Mean over runs with its interval; of a single run the interval of image sampling, where there
    is one.
    """
    mean, low, high, n = runs_interval(group["value"], group[["order", "split"]])
    one = group[group["value"].notna()].iloc[:1]
    if n == 1 and one["low"].notna().all():
        return {
            "mean": mean,
            "low": one["low"].item(),
            "high": one["high"].item(),
            "n": n,
            "interval": "images",
        }
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "n": n,
        "interval": "" if math.isnan(low) else "runs",
    }


def read_published(file: Path) -> pd.DataFrame:
    """Published numbers: `measure` as in a summary, `value` NaN where no trustworthy number is
    known.

    Raises:
        ValueError: The file is missing, has other columns, or a row holds a metric or a value that
            cannot be read.
    """
    if not file.is_file():
        raise ValueError(
            f"{file} is missing: give it the header {','.join(PUBLISHED)}, and rows where there "
            "are any"
        )
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if list(table.columns) != PUBLISHED:
        raise ValueError(
            f"{file}: the columns are {','.join(table.columns)}, expected {','.join(PUBLISHED)}"
        )
    known = {label.lower(): key for key, label in MEASURES.items()}
    measures, values = [], []
    for row, (dataset, metric, value) in enumerate(
        zip(table["dataset"], table["metric"], table["value"], strict=True)
    ):
        if metric.lower() != "srcc" and metric.lower() not in known:
            raise ValueError(
                f"{file}, row {row + 1}: metric '{metric}' is not SRCC, "
                f"{', '.join(MEASURES.values())}"
            )
        measures.append(f"srcc/{dataset}" if metric.lower() == "srcc" else known[metric.lower()])
        try:
            values.append(float(value) if value.strip() else math.nan)
        except ValueError:
            raise ValueError(
                f"{file}, row {row + 1}: value '{value}' is not a number; empty where unknown"
            ) from None
    table = table.assign(measure=measures, value=values)
    table.loc[table["certainty"].str.startswith(UNCERTAIN), "value"] = math.nan
    if (twice := table.duplicated(["method", "readout", "measure"])).any():
        raise ValueError(
            f"{file}, row {int(twice.to_numpy().argmax()) + 1}: this number is there twice; keep "
            "one row"
        )
    return table


def judged(lines: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Lines with the published number beside them and a verdict; published rows that nobody ran
    come last.
    """
    keys = ["method", "readout", "measure"]
    theirs = published[[*keys, "value", "source", "certainty"]].rename(
        columns={"value": "published"}
    )
    table = lines.merge(theirs, on=keys, how="outer", sort=False)
    order = {key: i for i, key in enumerate(lines[keys].itertuples(index=False, name=None))}
    place = [order.get(key, len(order)) for key in table[keys].itertuples(index=False, name=None)]
    table = table.iloc[pd.Series(place).sort_values(kind="stable").index].reset_index(drop=True)
    table["n"] = table["n"].fillna(0).astype(int)
    table[["source", "certainty", "interval"]] = table[["source", "certainty", "interval"]].fillna(
        ""
    )
    table["verdict"] = [
        verdict(*row) for row in table[["mean", "low", "high", "published"]].to_numpy(float)
    ]
    return table


def verdict(mean: float, low: float, high: float, published: float) -> str:
    """How our mean and its interval relate to a published number (NaN where none is certified)."""
    if math.isnan(published):
        return "no certified number"
    if math.isnan(mean):
        return "not attempted"
    if abs(mean - published) <= TOLERANCE + 1e-9:
        return "reproduced"
    return "within interval" if low <= published <= high else "differs"


def used_readout(readouts: Iterable[str]) -> str:
    """The readout by which a method that has these is used: `gated`, else `single`, else `latest`,
    else the first.
    """
    there = list(readouts)
    return next((name for name in HONEST if name in there), there[0])


def chosen_readouts(measures: pd.DataFrame) -> pd.DataFrame:
    """Measures of each method in the readout it is used with."""
    kept = []
    for _, rows in measures.groupby("method", sort=False):
        kept.append(rows[rows["readout"] == used_readout(rows["readout"])])
    return pd.concat(kept, ignore_index=True)


def tests(measures: pd.DataFrame) -> pd.DataFrame:
    """Permutation tests of all pairs of methods, blocked by order and split; Holm within a measure."""
    methods, found = list(dict.fromkeys(measures["method"])), []
    for measure in TESTED:
        values = measures[(measures["measure"] == measure) & measures["value"].notna()]
        blocks: dict[str, dict[Any, list[float]]] = {method: {} for method in methods}
        for row in values.itertuples():
            blocks[str(row.method)].setdefault((row.order, row.split), []).append(float(row.value))  # type: ignore[arg-type]
        family = []
        for one, other in combinations(methods, 2):
            difference, p, n = paired_permutation(blocks[one], blocks[other])
            names = {"measure": measure, "first": one, "second": other}
            family.append(names | {"difference": difference, "blocks": n, "p": p})
        adjusted = holm([test["p"] for test in family])
        found += [test | {"p_holm": p} for test, p in zip(family, adjusted, strict=True)]
    return pd.DataFrame(
        found, columns=["measure", "first", "second", "difference", "blocks", "p", "p_holm"]
    )


def variances(measures: pd.DataFrame) -> pd.DataFrame:
    """Variance of each measure over order, split and the rest (seeds), and the mean one of image
    sampling.
    """
    found = []
    for (method, measure), rows in measures.groupby(["method", "measure"], sort=False):
        if measure in TESTED:
            rows = rows[rows["value"].notna()]  # noqa: PLW2901
            parts = variance_components(rows["value"], rows[["order", "split"]])
            found.append(
                {"method": method, "measure": measure, "n": len(rows)}
                | parts
                | {"images": rows["image_variance"].mean()}
            )
    return pd.DataFrame(
        found, columns=["method", "measure", "n", "order", "split", "rest", "images"]
    )


def datasets_of(lines: pd.DataFrame) -> list[str]:
    """Names of the data sets in a summary, in the order of the first run."""
    return list(dict.fromkeys(name[5:] for name in lines["measure"] if name.startswith("srcc/")))


def missing_runs(planned: Sequence[dict[str, Any]], runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The planned runs of which there are no results."""
    there = set(runs[RUN].itertuples(index=False, name=None))
    return [run for run in planned if tuple(run[key] for key in RUN) not in there]
