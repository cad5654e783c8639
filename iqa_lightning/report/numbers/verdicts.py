"""Results of runs -> what a table says: means with intervals, verdicts, tests between methods,
variances.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from iqa_lightning.metrics.splits import FEWEST_SPLITS, RHO, split_interval
from iqa_lightning.report.numbers.published import OTHER_PROTOCOL
from iqa_lightning.report.numbers.ranking import LOWER, Ranking, rank_methods
from iqa_lightning.report.numbers.results import COST, RUN, Results
from iqa_lightning.report.numbers.statistics import (
    compare,
    components,
    holm,
    image_interval,
    interaction,
    mean_of_sets,
    split_means,
)

TESTED = ("msrcc", "msrcc60", "area", "mpi", "msi", "mpsi", "forgetting")


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


SMALL_IMAGES, SMALL_CONTENTS = 60, 10
"""A data set whose test part has fewer is marked, and takes no part in mSRCC60."""


CONSTANT = {"msi": 1.0, "forgetting": 0.0}
"""What a measure is where it is constant by construction: nothing that was learnt can change."""


ALL_METHODS = "all methods"


TESTS = [
    *("measure", "first", "second", "splits", "difference", "low", "high", "p", "p_holm"),
    *("worse", "equal", "better", "detectable", "said"),
]


VARIANCE = [
    *("method", "measure", "n", "split", "order", "seed", "rest", "method_x_split", "images"),
]


class Summary(NamedTuple):
    """What a table is printed from."""

    lines: pd.DataFrame
    """One row per number: method, readout, measure, mean, low, high, n (runs), splits, where the
    interval is from, config hash, verdict.
    """
    tests: pd.DataFrame
    """One row per measure and pair of methods."""
    variance: pd.DataFrame
    """One row per measure and method, and one per measure for all methods."""
    rankings: dict[str, Ranking]
    """Average ranks and groups by measure."""
    small: dict[str, tuple[int, int]]
    """Images and contents in the smallest test part of each data set that is marked."""
    rho: float
    rho_recorded: bool


def summarise(results: Results, published: pd.DataFrame) -> Summary:
    """Everything that a table says about the runs in `results`."""
    small = small_sets(results.cells)
    measures = with_msrcc60(results.measures, small)
    rho, recorded = overlap(results.runs)
    values = pd.concat([measures, costs_of(results.runs, measures)], ignore_index=True)
    recorded_hashes = results.runs["config_hash"].fillna("")
    configs = dict(zip(results.runs["method"], recorded_hashes, strict=True))
    lines = []
    for (method, readout), rows in values.groupby(["method", "readout"], sort=False):
        for measure, group in rows.groupby("measure", sort=False):
            names = {"method": method, "readout": readout, "measure": measure}
            found = estimate(str(measure), group, rho)
            lines.append(names | found | {"config_hash": configs[method]})
    table = judged(pd.DataFrame(lines), published)
    table["synthetic"] = bool(results.runs["synthetic"].any())
    chosen = chosen_readouts(measures)
    found_tests = pair_tests(chosen, rho, bool(small))
    rankings = {
        measure: rank_methods(
            chosen,
            measure,
            found_tests[found_tests["measure"] == measure],
            constant_methods(chosen, measure),
        )
        for measure in TESTED
        if small or measure != "msrcc60"
    }
    return Summary(table, found_tests, variances(chosen), rankings, small, rho, recorded)


def small_sets(cells: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Data sets whose test part is too small to say much, with its fewest images and contents."""
    least = cells.groupby("dataset", sort=False)[["n", "contents"]].min()
    few = least[(least["n"] < SMALL_IMAGES) | (least["contents"] < SMALL_CONTENTS)]
    return {str(row.Index): (int(row.n), int(row.contents)) for row in few.itertuples()}  # type: ignore[arg-type]


def with_msrcc60(measures: pd.DataFrame, small: Iterable[str]) -> pd.DataFrame:
    """The measures of runs with `msrcc60` after `msrcc`: the mean over data sets that are not
    marked.
    """
    left = [f"srcc/{name}" for name in small]
    finals = measures[measures["measure"].str.startswith("srcc/")]
    finals = finals[~finals["measure"].isin(left)]
    rows = []
    for key, cells in finals.groupby([*RUN, "readout"], sort=False):
        value, low, high, variance = mean_of_sets(cells)
        found = {"value": value, "low": low, "high": high, "image_variance": variance}
        rows.append(dict(zip([*RUN, "readout"], key, strict=True)) | {"measure": "msrcc60"} | found)
    return pd.concat([measures, pd.DataFrame(rows, columns=measures.columns)], ignore_index=True)


def overlap(runs: pd.DataFrame) -> tuple[float, bool]:
    """Test images for each training image of the runs, and whether it was recorded; else that of
    70/10/20.
    """
    known = runs["test_per_train"].dropna()
    return (float(known.mean()), True) if len(known) else (RHO, False)


def costs_of(runs: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """What the runs cost, as rows of each readout of their method."""
    costs = runs.melt(RUN, COST, "measure", "value")
    return measures[["method", "readout"]].drop_duplicates().merge(costs, on="method")


def estimate(measure: str, group: pd.DataFrame, rho: float) -> dict[str, Any]:
    """Mean over splits with its interval: over splits, else of image sampling; the range of a
    cost.
    """
    known = group[group["value"].notna()]
    means = split_means(known["value"], known["split"].tolist())
    found: dict[str, Any] = {"n": len(known), "splits": len(means), "interval": ""}
    found |= {"mean": float(means.mean()) if len(means) else math.nan}
    low, high = math.nan, math.nan
    if measure in COST:
        if len(known) > 1:
            low, high = float(known["value"].min()), float(known["value"].max())
            found["interval"] = "range"
    elif len(means) >= FEWEST_SPLITS:
        low, high = split_interval(means, rho, measure)
        found["interval"] = "splits"
    elif len(means):
        low, high = image_interval(known, rho)
        found["interval"] = "" if math.isnan(low) else "images"
    return found | {"low": low, "high": high}


def judged(lines: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Lines with the published number of the same protocol beside them and a verdict; published
    rows that nobody ran come last.
    """
    keys = ["method", "readout", "measure"]
    same = published[published["protocol"] == ""]
    theirs = same[[*keys, "value", "source", "certainty"]].rename(columns={"value": "published"})
    table = lines.merge(theirs, on=keys, how="outer", sort=False)
    order = {key: i for i, key in enumerate(lines[keys].itertuples(index=False, name=None))}
    place = [order.get(key, len(order)) for key in table[keys].itertuples(index=False, name=None)]
    table = table.iloc[pd.Series(place).sort_values(kind="stable").index].reset_index(drop=True)
    table[["n", "splits"]] = table[["n", "splits"]].fillna(0).astype(int)
    texts = ["source", "certainty", "interval", "config_hash"]
    table[texts] = table[texts].fillna("")
    table["verdict"] = [
        verdict(*row) for row in table[["mean", "low", "high", "published"]].to_numpy(float)
    ]
    others = published[published["protocol"] != ""].rename(columns={"value": "published"})
    if others.empty:
        return table.assign(protocol="")
    apart = others[[*keys, "published", "source", "certainty", "protocol"]].assign(
        n=0, splits=0, interval="", config_hash="", verdict=OTHER_PROTOCOL
    )
    return pd.concat([table.assign(protocol=""), apart], ignore_index=True)


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


def constant_methods(measures: pd.DataFrame, measure: str) -> set[str]:
    """Methods of which a measure says nothing: it is the same by construction, as mSI of joint
    learning.
    """
    if measure not in CONSTANT:
        return set()
    rows = measures[(measures["measure"] == measure) & measures["value"].notna()]
    far = (rows["value"] - CONSTANT[measure]).abs().groupby(rows["method"]).max()
    return {str(name) for name in far.index[far < 1e-9]}


def differences(one: pd.DataFrame, other: pd.DataFrame) -> np.ndarray:
    """First minus second in each split that both have, orders and seeds averaged within it.

    Of runs in several orders those count that both methods have, where there are such; joint
    learning has orders of its own.
    """
    shared = set(one["order"]) & set(other["order"])
    if shared:
        one, other = (rows[rows["order"].isin(shared)] for rows in (one, other))
    means = [rows.groupby("split", sort=True)["value"].mean() for rows in (one, other)]
    return (means[0] - means[1]).dropna().to_numpy(np.float64)


def pair_tests(measures: pd.DataFrame, rho: float = RHO, small: bool = True) -> pd.DataFrame:
    """Tests over splits of all pairs of methods; Holm's correction within a measure.

    Args:
        measures: Of runs, one readout a method.
        rho: Test images for each training image.
        small: Whether there are marked data sets, so that mSRCC60 is not mSRCC.

    Returns:
        Columns `TESTS`; `worse` and `better` speak of the first method. What cannot be tested says
        why in `said` and has no p.
    """
    methods, found = list(dict.fromkeys(measures["method"])), []
    for measure in TESTED:
        if measure == "msrcc60" and not small:
            continue
        values = measures[(measures["measure"] == measure) & measures["value"].notna()]
        rows = {method: values[values["method"] == method] for method in methods}
        constant = constant_methods(measures, measure)
        family = [
            {"measure": measure, "first": one, "second": other}
            | compared(measure, rows[one], rows[other], rho, bool(constant & {one, other}))
            for one, other in combinations(methods, 2)
        ]
        for test, p in zip(family, holm([test["p"] for test in family]), strict=True):
            said = "differ" if p <= SIGNIFICANT else "not distinguishable"
            found.append(test | {"p_holm": p, "said": test["said"] or said})
    return pd.DataFrame(found, columns=TESTS)


def compared(
    measure: str, one: pd.DataFrame, other: pd.DataFrame, rho: float, constant: bool
) -> dict[str, Any]:
    """One test without Holm's correction; `said` is empty where there was one."""
    test = compare(differences(one, other), rho)
    worse, better = test.below, test.above
    if measure in LOWER:
        worse, better = better, worse
    said = ""
    if test.splits < FEWEST_SPLITS:
        said = f"no test below {FEWEST_SPLITS} splits" if test.splits else "no split in common"
    numbers = {
        "low": test.low, "high": test.high, "p": test.p, "worse": worse, "equal": test.equal,
        "better": better, "detectable": test.detectable,
    }  # fmt: skip
    if constant:
        said, numbers = "constant by construction", dict.fromkeys(numbers, math.nan)
    return {"splits": test.splits, "difference": test.difference, **numbers, "said": said}


def variances(measures: pd.DataFrame) -> pd.DataFrame:
    """Variance of each measure over split, order and seed, for each method, and what splits add to
    all methods alike and to each by itself.

    `images` is the mean variance of image sampling of a run: the least that `split` can be.
    """
    found: list[dict[str, Any]] = []
    for measure in TESTED:
        constant = constant_methods(measures, measure)
        rows = measures[(measures["measure"] == measure) & measures["value"].notna()]
        rows = rows[~rows["method"].isin(constant)]
        for method, part in rows.groupby("method", sort=False):
            names = {"method": method, "measure": measure, "n": len(part)}
            parts = components(part["value"], part[["split", "order", "seed"]])
            found.append(names | parts._asdict() | {"images": part["image_variance"].mean()})
        found += shared_variance(measure, rows)
    return pd.DataFrame(found, columns=VARIANCE)


def shared_variance(measure: str, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The row of all methods, over the splits that all have; none where there are not two."""
    if rows.empty:
        return []
    cells = rows.pivot_table(index="split", columns="method", values="value", aggfunc="mean")
    complete = cells.dropna()
    split, own = interaction(complete.to_numpy(np.float64))
    if math.isnan(own):
        return []
    names = {"method": ALL_METHODS, "measure": measure, "n": int(complete.size)}
    floor = rows["image_variance"].mean()
    return [names | {"split": split, "method_x_split": own, "images": floor}]


def power_sentence(tests: pd.DataFrame, measure: str, label: str) -> str:
    """What the tests in a measure could have seen; empty where there was none."""
    seen = tests[(tests["measure"] == measure) & tests["detectable"].notna()]
    if seen.empty:
        return ""
    least, middle, most = seen["detectable"].quantile([0, 0.5, 1])
    splits = sorted(set(seen["splits"]))
    counts = f"{splits[0]}" if len(splits) == 1 else f"{splits[0]} to {splits[-1]}"
    return (
        f"{label}: with {counts} splits and the spread between them a true difference of "
        f"{middle:.3f} (median pair; {least:.3f} to {most:.3f}) is found in 80 % of cases, before "
        "Holm's correction."
    )


def datasets_of(lines: pd.DataFrame) -> list[str]:
    """Names of the data sets in a summary that were tested, in the order of the first run."""
    ours = lines[(lines["n"] > 0) & lines["measure"].str.startswith("srcc/")]
    return list(dict.fromkeys(name[5:] for name in ours["measure"]))


def missing_runs(planned: Sequence[Mapping[str, Any]], runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The planned runs of which there are no results."""
    there = set(runs[RUN].itertuples(index=False, name=None))
    return [dict(run) for run in planned if tuple(run[key] for key in RUN) not in there]
