"""`details.md`: what the averages of a table hide, in words and small tables; the same tables give
the same bytes.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from iqa_lightning.metrics.splits import FEWEST_SPLITS
from iqa_lightning.report.numbers.forgetting import GROUPS
from iqa_lightning.report.numbers.ranking import Ranking
from iqa_lightning.report.numbers.results import RUN
from iqa_lightning.report.numbers.verdicts import TESTED
from iqa_lightning.report.text.escaping import markdown_text
from iqa_lightning.report.text.paper import SYNTHETIC, grid
from iqa_lightning.report.text.terminal import MEASURES, number


def details_markdown(
    name: str,
    synthetic: bool,
    details: Mapping[str, pd.DataFrame],
    rankings: Mapping[str, Ranking],
    spread: pd.DataFrame,
) -> str:
    """`details.md`: what a table leaves out.

    Args:
        name: the table.
        synthetic: whether the targets are no human ratings, which it then says.
        details: the collected tables of its runs, see `details.collect_details`.
        rankings: of the methods, by measure.
        spread: of measures over orders, see `details.spreads`.
    """
    parts = [
        f"# {markdown_text(name)}: beyond the averages",
        "Written by `python -m iqa_lightning.reproduce`, never by hand.",
    ]
    parts += [f"**{SYNTHETIC}**"] if synthetic else []
    parts += ["All rows are in `results/*.csv`; means over runs here."]
    parts += ["## Average ranks", *ranking_part(rankings)]
    parts += ["## Pairs that changed places", *flips_part(details["pair_flips"])]
    for by in GROUPS:
        rows = details["forgetting"][details["forgetting"]["by"] == by]
        parts += [f"## Forgetting by {'MOS band' if by == 'band' else by}", *groups_part(rows, by)]
    parts += ["## Worst-forgotten images", *worst_part(details["worst_images"])]
    parts += ["## Gate", *gate_part(details["gate"])]
    parts += ["## Order of the tasks", *orders_part(spread)]
    return "\n\n".join(parts) + "\n"


def ranking_part(rankings: Mapping[str, Ranking]) -> list[str]:
    """Average ranks with groups, or why there are none."""
    rows = []
    for measure, ranking in rankings.items():
        if ranking.splits < 2 or len(ranking.ranks) < 2:
            continue
        said = ", ".join(
            f"{row.method} {number(row.rank, digits=2)}"  # type: ignore[arg-type]
            for row in ranking.ranks.itertuples()
        )
        tested = ranking.splits >= FEWEST_SPLITS
        together = "; ".join(", ".join(group) for group in ranking.groups) or "none"
        left = ", ".join(ranking.left_out) or "none"
        groups = together if tested else "not tested"
        rows.append([MEASURES[measure], str(ranking.splits), said, groups, left])
    if not rows:
        return ["Fewer than two methods share two splits."]
    header = ["measure", "splits", "average ranks", "not distinguishable", "left out"]
    how = (
        "Ranks within splits, orders and seeds averaged, 1 the best: they describe and test "
        "nothing. `not distinguishable`: groups of which the tests in table.md tell no two apart, "
        f"from {FEWEST_SPLITS} splits on. `left out`: methods that were run in at most half of the "
        "splits, or are constant by construction."
    )
    return [grid(header, rows), how]


def flips_part(flips: pd.DataFrame) -> list[str]:
    """Share of pairs that were ordered right and are not after the last task, by data set."""
    if flips.empty:
        return ["No run learnt a second task."]
    last = flips.groupby([*RUN, "readout", "dataset"], sort=False).tail(1)
    names = list(dict.fromkeys(last["dataset"]))
    means = last.pivot_table(
        index=["method", "readout"], columns="dataset", values="rate", sort=False, dropna=False
    )
    means = means.reindex(pd.MultiIndex.from_frame(last[["method", "readout"]].drop_duplicates()))
    rows = [
        [*map(str, key), *(number(float(means.loc[key, n])) for n in names)] for key in means.index
    ]
    known = last.groupby("dataset", sort=False)["noise_known"].mean()
    unknown = ", ".join(markdown_text(name) for name in names if known[name] == 0) or "none"
    how = (
        "Share of the pairs ordered right just after learning that are not ordered right after "
        "the last task (lower is "
        "better). Only pairs count about which three of four raters agree; data sets without "
        "recorded deviations, "
        f"where all pairs count: {unknown}."
    )
    return [grid(["method", "readout", *names], rows), how]


def groups_part(rows: pd.DataFrame, by: str) -> list[str]:
    """Growth of the rank error in each group."""
    if rows.empty:
        return [f"No {by} is recorded." if by != "band" else "No run learnt a second task."]
    means = (
        rows.groupby(["method", "dataset", "group"], sort=False)[["n", "growth"]]
        .mean()
        .reset_index()
    )
    if by == "band":
        wide = means.pivot_table(
            index=["method", "dataset"], columns="group", values="growth", sort=False
        )
        bands = sorted(wide.columns)
        table = [
            [*map(str, key), *(number(float(wide.loc[key, band])) for band in bands)]
            for key in wide.index
        ]
        how = (
            "Mean growth of the rank error (from 0 to 1) by fifths of the data set, 1 the images "
            "of lowest MOS."
        )
        return [grid(["method", "data set", *map(str, bands)], table), how]
    table = [
        [
            str(row.method),
            str(row.dataset),
            str(row.group),
            number(row.n, digits=0),  # type: ignore[arg-type]
            number(row.growth),  # type: ignore[arg-type]
        ]
        for row in means.itertuples()
    ]
    return [
        grid(["method", "data set", by, "images", "growth"], table),
        "Mean growth of the rank error (from 0 to 1).",
    ]


def worst_part(worst: pd.DataFrame, count: int = 3) -> list[str]:
    """The first few images of each method."""
    if worst.empty:
        return ["No image was forgotten."]
    header, rows = (
        ["method", "order", "split", "data set", "image", "MOS rank", "before", "after"],
        [],
    )
    for _, part in worst.groupby("method", sort=False):
        for row in (
            part.sort_values("growth", ascending=False, kind="stable")
            .head(count)
            .to_dict("records")
        ):
            ranks = [
                number(row[key], digits=2) for key in ("rank_mos", "rank_before", "rank_after")
            ]
            rows.append(
                [
                    *(str(row[key]) for key in ("method", "order", "split", "dataset", "image")),
                    *ranks,
                ]
            )
    return [
        grid(header, rows),
        "Ranks within the data set, 0 the worst and 1 the best; 50 images a run in the CSV.",
    ]


def gate_part(gate: pd.DataFrame) -> list[str]:
    """Weight of the right head and what not knowing the data set costs."""
    if gate.empty:
        return ["No run has a gate."]
    titles = {
        "own": "own weight",
        "accuracy": "accuracy",
        "entropy": "entropy",
        "regret": "regret",
        "regret_uniform": "regret of equal weights",
    }
    shown = [key for key in titles if key in gate and gate[key].notna().any()]  # older: two of them
    means = gate.groupby(["method", "dataset"], sort=False)[shown].mean().reset_index()
    rows = [
        [row["method"], row["dataset"], *(number(row[key]) for key in shown)]
        for row in means.to_dict("records")
    ]
    how = (
        "After the last task: mean weight of the data set's own head; SRCC of the oracle readout "
        "minus the gated one."
    )
    if "accuracy" in shown:
        how += (
            " Accuracy: share of images whose heaviest head is their own. Entropy: of the weights, "
            "1 "
            "where all heads count the same. The last column is the control: what the plain mean "
            "of "
            "all heads would cost."
        )
    return [grid(["method", "data set", *(titles[key] for key in shown)], rows), how]


def orders_part(table: pd.DataFrame) -> list[str]:
    """Spread over orders of the measures that are tested."""
    rows: list[list[Any]] = []
    for row in table[table["measure"].isin(TESTED)].to_dict("records"):
        numbers = [number(row[key]) for key in ("mean", "lowest", "highest", "spread")]
        names = [str(row[key]) for key in ("orders_from", "method", "readout")]
        rows.append(
            [
                *names,
                MEASURES[row["measure"]],
                str(row["orders"]),
                *numbers,
                row["order_lowest"] if row["spread"] else "-",
            ]
        )
    if not rows:
        return ["One order was run."]
    header = [
        "orders of",
        "method",
        "readout",
        "measure",
        "orders",
        "mean",
        "lowest",
        "highest",
        "spread",
        "worst order",
    ]
    how = (
        "Means over splits and seeds. `trained <order>`: all orders, read out of the trainings in "
        "that one; no task "
        "learns from another there. A `gated` readout is missing where the records hold no "
        "`nearness<level>/<task>`, "
        "as older ones: mean weights over the levels of a gate do not say what they are among "
        "other tasks."
    )
    return [grid(header, rows), how]
