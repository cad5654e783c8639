"""Beyond the averages of a table: tables of all runs, made from their records, and `details.md` made of the tables.

`pair_flips.csv`, `forgetting.csv` (by MOS band, distortion, scene), `worst_images.csv`, `gate.csv` and `orders.csv`
(all orders of the tasks from one set of trainings) are collected from the run folders; the rest follows from tables. A
run speaks by the readout it is used with (`gated`, else `single`, else `latest`) unless a table has a column `readout`.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from iqa_lightning.metrics.audits import gate_rows
from iqa_lightning.metrics.matrices import readouts_of
from iqa_lightning.records import RunFolder, write_bytes
from iqa_lightning.report.forgetting import BY, FLIPS, GROUPS, forgetting_by, learnt_sets, pair_flips, worst_forgotten
from iqa_lightning.report.orders import MOST_TASKS, all_orders, order_sensitivity
from iqa_lightning.report.paper import SYNTHETIC, grid
from iqa_lightning.report.ranking import Ranking, rank_methods
from iqa_lightning.report.sweep import RUN, Results, csv_bytes, run_row
from iqa_lightning.report.table_figures import table_figures
from iqa_lightning.report.tables import MEASURES, number
from iqa_lightning.report.verdicts import HONEST, TESTED, chosen_readouts

WORST = ["dataset", "image", "mos", "band", "rank_mos", "rank_before", "rank_after", "growth"]
GATE = ["dataset", "n", "own", "regret"]
COLUMNS = {
    "pair_flips": ["readout", *FLIPS],
    "forgetting": BY,
    "worst_images": WORST,
    "gate": GATE,
    "orders": ["readout", "order", "recorded", *MEASURES],
}
"""The collected tables and their columns, after those that name the run; in `orders`, the run's order is `trained`."""

Details = dict[str, pd.DataFrame]


def collect_details(folders: Sequence[RunFolder], independent: Sequence[bool], resamples: int = 1000) -> Details:
    """The collected tables of finished runs.

    Args:
        folders: of the runs.
        independent: whether what a task of the run learns depends on no other task, so that its orders can be had.
        resamples: of the test images, for intervals.
    """
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in COLUMNS}
    for folder, free in zip(folders, independent, strict=True):
        row, predictions = run_row(folder), folder.predictions()
        for name, table in run_details(predictions, free, resamples).items():
            run = {("trained" if name == "orders" and key == "order" else key): row[key] for key in RUN}
            parts[name].append(table.assign(**run)[[*run, *COLUMNS[name]]])
    return {name: joined(name, tables) for name, tables in parts.items()}


def joined(name: str, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of all runs; its header where no run has rows."""
    filled = [table for table in tables if len(table)]
    run = [("trained" if name == "orders" and key == "order" else key) for key in RUN]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=[*run, *COLUMNS[name]])


def run_details(predictions: dict[str, pd.DataFrame], independent: bool, resamples: int) -> Details:
    """The tables of one run."""
    first, last = next(iter(predictions.values())), list(predictions)[-1]
    readouts = readouts_of(first)
    readout = next((name for name in HONEST if name in readouts), readouts[0])
    flips = [pair_flips(predictions, name).assign(readout=name) for name in readouts]
    grouped = [forgetting_by(predictions, readout, by, resamples) for by in GROUPS]
    owner = {name: task for name, task, _ in learnt_sets(predictions)}
    gates = {"start": predictions["start"], last: predictions[last]}
    weighed = {"oracle", "gated"} <= set(readouts)
    tables = {
        "pair_flips": pd.concat(flips, ignore_index=True),
        "forgetting": pd.concat([part for part in grouped if len(part)] or grouped[:1], ignore_index=True),
        "worst_images": worst_forgotten(predictions, readout),
        "gate": pd.DataFrame(gate_rows(gates, owner) if weighed else [], columns=GATE),
    }
    if independent and len(predictions) - 1 <= MOST_TASKS:
        with suppress(ValueError):  # the records do not bear it out: only the orders that were run are told
            tables["orders"] = all_orders(predictions)
    return tables


def write_details(folder: Path, details: Details) -> None:
    """Store the collected tables as CSV in `folder`."""
    for name, table in details.items():
        write_bytes(folder / f"{name}.csv", csv_bytes(table))


def read_details(folder: Path) -> Details:
    """The collected tables stored in `folder`; none where it was written by a version that made none."""
    texts = dict.fromkeys(["method", "order", "trained", "readout", "dataset", "after", "by", "group", "image"], str)
    files = {name: folder / f"{name}.csv" for name in COLUMNS}
    return {
        name: pd.read_csv(file, dtype=texts, keep_default_na=False, na_values=[""])
        for name, file in files.items()
        if file.is_file()
    }


def spreads(results: Results, details: Details) -> pd.DataFrame:
    """Order sensitivity of the orders that were run, and of all orders where the records hold them.

    Returns:
        `order_sensitivity` with a first column `orders_from`: `runs`, or `trained <order>` of one set of trainings.
    """
    parts = [order_sensitivity(results.measures).assign(orders_from="runs")]
    if len(held := details.get("orders", pd.DataFrame())):
        keys = ["method", "readout", "trained", "order"]
        values = held.melt([*keys, "split", "seed"], list(MEASURES), "measure", "value")
        for trained, rows in values.groupby("trained", sort=False):
            parts.append(order_sensitivity(rows).assign(orders_from=f"trained {trained}"))
    table = pd.concat(parts, ignore_index=True)
    table = table[table["measure"].isin(list(MEASURES)) & (table["orders"] > 1)]
    return table[["orders_from", *(column for column in table if column != "orders_from")]].reset_index(drop=True)


def details_markdown(name: str, results: Results, details: Details, rankings: dict[str, Ranking]) -> str:
    """`details.md`: what a table leaves out.

    Args:
        name: the table.
        results: of its runs.
        details: the collected tables.
        rankings: of the methods, by measure.
    """
    parts = [f"# {name}: beyond the averages", "Written by `python -m iqa_lightning.reproduce`, never by hand."]
    parts += [f"**{SYNTHETIC}**"] if results.runs["synthetic"].any() else []
    parts += ["All rows are in `results/*.csv`; means over runs here."]
    parts += ["## Average ranks", *ranking_part(rankings)]
    parts += ["## Pairs that changed places", *flips_part(details["pair_flips"])]
    for by in GROUPS:
        rows = details["forgetting"][details["forgetting"]["by"] == by]
        parts += [f"## Forgetting by {'MOS band' if by == 'band' else by}", *groups_part(rows, by)]
    parts += ["## Worst-forgotten images", *worst_part(details["worst_images"])]
    parts += ["## Gate", *gate_part(details["gate"])]
    parts += ["## Order of the tasks", *orders_part(spreads(results, details))]
    return "\n\n".join(parts) + "\n"


def ranking_part(rankings: dict[str, Ranking]) -> list[str]:
    """Average ranks with critical distances, or why there are none."""
    rows = []
    for measure, ranking in rankings.items():
        if ranking.blocks < 2 or len(ranking.ranks) < 2:
            continue
        said = ", ".join(f"{row.method} {number(float(row.rank), digits=2)}" for row in ranking.ranks.itertuples())  # type: ignore[arg-type]
        together = "; ".join(", ".join(group) for group in ranking.groups) or "none"
        left = ", ".join(ranking.left_out) or "none"
        distances = [number(ranking.distance, digits=2), number(ranking.p)]
        rows.append([MEASURES[measure], str(ranking.blocks), said, *distances, together, left])
    if not rows:
        return ["Fewer than two methods share two blocks (an order and a split)."]
    header = [
        "measure",
        "blocks",
        "average ranks",
        "critical distance",
        "p (Friedman)",
        "not distinguishable",
        "too few",
    ]
    how = (
        "Ranks within blocks, 1 the best; average ranks that differ by less than the critical distance (Nemenyi, 5 %) "
        "are not distinguishable. `too few`: methods that were run in at most half of the blocks."
    )
    return [grid(header, rows), how]


def flips_part(flips: pd.DataFrame) -> list[str]:
    """Share of pairs that were ordered right and are not after the last task, by data set."""
    if flips.empty:
        return ["No run learnt a second task."]
    last = flips.groupby([*RUN, "readout", "dataset"], sort=False).tail(1)
    names = list(dict.fromkeys(last["dataset"]))
    means = last.pivot_table(index=["method", "readout"], columns="dataset", values="rate", sort=False, dropna=False)
    means = means.reindex(pd.MultiIndex.from_frame(last[["method", "readout"]].drop_duplicates()))
    rows = [[*map(str, key), *(number(float(means.loc[key, n])) for n in names)] for key in means.index]
    known = last.groupby("dataset", sort=False)["noise_known"].mean()
    unknown = ", ".join(name for name in names if known[name] == 0) or "none"
    how = (
        "Share of the pairs ordered right just after learning that are not ordered right after the last task (lower is "
        "better). Only pairs count about which three of four raters agree; data sets without recorded deviations, "
        f"where all pairs count: {unknown}."
    )
    return [grid(["method", "readout", *names], rows), how]


def groups_part(rows: pd.DataFrame, by: str) -> list[str]:
    """Growth of the rank error in each group."""
    if rows.empty:
        return [f"No {by} is recorded." if by != "band" else "No run learnt a second task."]
    means = rows.groupby(["method", "dataset", "group"], sort=False)[["n", "growth"]].mean().reset_index()
    if by == "band":
        wide = means.pivot_table(index=["method", "dataset"], columns="group", values="growth", sort=False)
        bands = sorted(wide.columns)
        table = [[*map(str, key), *(number(float(wide.loc[key, band])) for band in bands)] for key in wide.index]
        how = "Mean growth of the rank error (from 0 to 1) by fifths of the data set, 1 the images of lowest MOS."
        return [grid(["method", "data set", *map(str, bands)], table), how]
    table = [
        [str(row.method), str(row.dataset), str(row.group), number(float(row.n), digits=0), number(float(row.growth))]  # type: ignore[arg-type]
        for row in means.itertuples()
    ]
    return [grid(["method", "data set", by, "images", "growth"], table), "Mean growth of the rank error (from 0 to 1)."]


def worst_part(worst: pd.DataFrame, count: int = 3) -> list[str]:
    """The first few images of each method."""
    if worst.empty:
        return ["No image was forgotten."]
    header, rows = ["method", "order", "split", "data set", "image", "MOS rank", "before", "after"], []
    for _, part in worst.groupby("method", sort=False):
        for row in part.sort_values("growth", ascending=False, kind="stable").head(count).to_dict("records"):
            ranks = [number(row[key], digits=2) for key in ("rank_mos", "rank_before", "rank_after")]
            rows.append([*(str(row[key]) for key in ("method", "order", "split", "dataset", "image")), *ranks])
    return [grid(header, rows), "Ranks within the data set, 0 the worst and 1 the best; 50 images a run in the CSV."]


def gate_part(gate: pd.DataFrame) -> list[str]:
    """Weight of the right head and what not knowing the data set costs."""
    if gate.empty:
        return ["No run has a gate."]
    means = gate.groupby(["method", "dataset"], sort=False)[["own", "regret"]].mean().reset_index()
    rows = [
        [str(row.method), str(row.dataset), number(float(row.own)), number(float(row.regret))]  # type: ignore[arg-type]
        for row in means.itertuples()
    ]
    how = "After the last task: mean weight of the data set's own head; SRCC of the oracle readout minus the gated one."
    return [grid(["method", "data set", "own weight", "regret"], rows), how]


def orders_part(table: pd.DataFrame) -> list[str]:
    """Spread over orders of the measures that are tested."""
    rows: list[list[Any]] = []
    for row in table[table["measure"].isin(TESTED)].to_dict("records"):
        numbers = [number(row[key]) for key in ("mean", "lowest", "highest", "spread")]
        names = [str(row[key]) for key in ("orders_from", "method", "readout")]
        rows.append([*names, MEASURES[row["measure"]], str(row["orders"]), *numbers, row["order_lowest"]])
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
        "Means over splits and seeds. `trained <order>`: all orders, read out of the trainings in that one; no task "
        "learns from another there."
    )
    return [grid(header, rows), how]


def written_details(folder: Path, name: str, results: Results, figures: bool) -> None:
    """Write all of a table that is beyond averages, from stored results: CSV, `details.md`, `figures/*.png`.

    Args:
        folder: of the table.
        name: of the table.
        results: of its runs.
        figures: whether to draw.
    """
    details, rankings = read_details(folder / "results"), ranked(results)
    for table_name, table in (("ranks", rank_table(rankings)), ("order_spread", spreads(results, details))):
        write_bytes(folder / "results" / f"{table_name}.csv", csv_bytes(table))
    if details.keys() == COLUMNS.keys():
        write_bytes(folder / "details.md", details_markdown(name, results, details, rankings).encode())
    if figures:
        drawn = table_figures(results, rankings, details.get("orders", pd.DataFrame()))
        for old in (folder / "figures").glob("*.png"):
            if old.stem not in drawn:
                old.unlink()
        for figure, picture in drawn.items():
            write_bytes(folder / "figures" / f"{figure}.png", picture)


def ranked(results: Results) -> dict[str, Ranking]:
    """Rankings of the methods by the measures that are tested."""
    chosen = chosen_readouts(results.measures)
    return {measure: rank_methods(chosen, measure) for measure in TESTED}


def rank_table(rankings: dict[str, Ranking]) -> pd.DataFrame:
    """Rankings as one table: `measure`, `method`, `rank`, `blocks`, `distance`, `p`."""
    parts: Iterable[pd.DataFrame] = (
        ranking.ranks.assign(measure=measure, blocks=ranking.blocks, distance=ranking.distance, p=ranking.p)
        for measure, ranking in rankings.items()
    )
    return pd.concat(list(parts), ignore_index=True)[["measure", "method", "rank", "blocks", "distance", "p"]]
