"""Beyond the averages of a table: tables of all runs made from their records, then `details.md` and
figures.

`pair_flips.csv`, `forgetting.csv` (by MOS band, distortion, scene), `worst_images.csv`, `gate.csv`
and `orders.csv` (all orders of the tasks from one set of trainings) are collected from the run
folders; the rest follows from tables. A run speaks by the readout it is used with (`gated`, else
`single`, else `latest`) unless a table has a column `readout`.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd

from iqa_lightning.files import write_bytes
from iqa_lightning.metrics.audits import gate_rows
from iqa_lightning.metrics.matrices import readouts_of
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.forgetting import (
    BY,
    FLIPS,
    GROUPS,
    forgetting_by,
    learnt_sets,
    pair_flips,
    worst_forgotten,
)
from iqa_lightning.report.numbers.order_effects import MOST_TASKS, all_orders, order_sensitivity
from iqa_lightning.report.numbers.ranking import Ranking
from iqa_lightning.report.numbers.results import RUN, Results, csv_bytes, read_csv, run_row
from iqa_lightning.report.numbers.verdicts import Summary, used_readout
from iqa_lightning.report.table_figures import table_figures
from iqa_lightning.report.text.details import details_markdown
from iqa_lightning.report.text.terminal import RUN_MEASURES

WORST = ["dataset", "image", "mos", "band", "rank_mos", "rank_before", "rank_after", "growth"]


GATE = ["dataset", "n", "own", "accuracy", "entropy", "regret", "regret_uniform"]


COLUMNS = {
    "pair_flips": ["readout", *FLIPS],
    "forgetting": BY,
    "worst_images": WORST,
    "gate": GATE,
    "orders": ["readout", "order", "recorded", *RUN_MEASURES],
}
"""The collected tables and their columns, after those that name the run; in `orders`, the run's
order is `trained`.
"""


Details = dict[str, pd.DataFrame]


def collect_details(
    folders: Sequence[RunFolder], independent: Sequence[bool], resamples: int = 1000
) -> Details:
    """The collected tables of finished runs.

    Args:
        folders: of the runs.
        independent: whether what a task of the run learns depends on no other task, so that its
            orders can be had.
        resamples: of the test images, for intervals.
    """
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in COLUMNS}
    for folder, free in zip(folders, independent, strict=True):
        row, predictions = run_row(folder), folder.predictions()
        for name, table in run_details(predictions, free, resamples).items():
            run = {
                ("trained" if name == "orders" and key == "order" else key): row[key] for key in RUN
            }
            parts[name].append(table.assign(**run)[[*run, *COLUMNS[name]]])
    return {name: stacked(name, tables) for name, tables in parts.items()}


def stacked(name: str, tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of all runs; its header where no run has rows."""
    filled = [table for table in tables if len(table)]
    run = [("trained" if name == "orders" and key == "order" else key) for key in RUN]
    return (
        pd.concat(filled, ignore_index=True)
        if filled
        else pd.DataFrame(columns=[*run, *COLUMNS[name]])
    )


def run_details(predictions: dict[str, pd.DataFrame], independent: bool, resamples: int) -> Details:
    """The tables of one run."""
    first, last = next(iter(predictions.values())), list(predictions)[-1]
    readouts = readouts_of(first)
    readout = used_readout(readouts)
    flips = [pair_flips(predictions, name).assign(readout=name) for name in readouts]
    grouped = [forgetting_by(predictions, readout, by, resamples) for by in GROUPS]
    owner = {name: task for name, task, _ in learnt_sets(predictions)}
    weighed = gate_rows(predictions, owner) if {"oracle", "gated"} <= set(readouts) else ()
    tables = {
        "pair_flips": pd.concat(flips, ignore_index=True),
        "forgetting": pd.concat(
            [part for part in grouped if len(part)] or grouped[:1], ignore_index=True
        ),
        "worst_images": worst_forgotten(predictions, readout),
        "gate": pd.DataFrame([row for row in weighed if row["after"] == last], columns=GATE),
    }
    if independent and len(predictions) - 1 <= MOST_TASKS:
        with suppress(
            ValueError
        ):  # the records do not bear it out: only the orders that were run are told
            tables["orders"] = all_orders(predictions)
    return tables


def write_details(folder: Path, details: Details) -> None:
    """Store the collected tables as CSV in `folder`."""
    for name, table in details.items():
        write_bytes(folder / f"{name}.csv", csv_bytes(table))


def read_details(folder: Path) -> Details:
    """The collected tables stored in `folder`; none where it was written by a version that made
    none.
    """
    texts = dict.fromkeys(
        ["method", "order", "trained", "readout", "dataset", "after", "by", "group", "image"], str
    )
    files = {name: folder / f"{name}.csv" for name in COLUMNS}
    return {name: read_csv(file, texts) for name, file in files.items() if file.is_file()}


def spreads(results: Results, details: Details) -> pd.DataFrame:
    """Order sensitivity of the orders that were run, and of all orders where the records hold them.

    Returns:
        `order_sensitivity` with a first column `orders_from`: `runs`, or `trained <order>` of one
        set of trainings.
    """
    parts = [order_sensitivity(results.measures).assign(orders_from="runs")]
    if len(held := details.get("orders", pd.DataFrame())):
        keys = ["method", "readout", "trained", "order"]
        values = held.melt([*keys, "split", "seed"], list(RUN_MEASURES), "measure", "value")
        for trained, rows in values.groupby("trained", sort=False):
            parts.append(order_sensitivity(rows).assign(orders_from=f"trained {trained}"))
    table = pd.concat(parts, ignore_index=True)
    table = table[table["measure"].isin(list(RUN_MEASURES)) & (table["orders"] > 1)]
    return table[
        ["orders_from", *(column for column in table if column != "orders_from")]
    ].reset_index(drop=True)


def written_details(
    folder: Path, name: str, results: Results, summary: Summary, figures: bool
) -> None:
    """Write all of a table that is beyond averages, from stored results: CSV, `details.md`,
    `figures/*.png`.

    Args:
        folder: of the table.
        name: of the table.
        results: of its runs.
        summary: what `verdicts.summarise` made of them.
        figures: whether to draw.
    """
    details, rankings = read_details(folder / "results"), summary.rankings
    for table_name, table in (
        ("ranks", rank_table(rankings)),
        ("order_spread", spreads(results, details)),
    ):
        write_bytes(folder / "results" / f"{table_name}.csv", csv_bytes(table))
    if details.keys() == COLUMNS.keys():
        synthetic, spread = bool(results.runs["synthetic"].any()), spreads(results, details)
        write_bytes(
            folder / "details.md",
            details_markdown(name, synthetic, details, rankings, spread).encode(),
        )
    if figures:
        drawn = table_figures(results, rankings, details.get("orders", pd.DataFrame()))
        for old in (folder / "figures").glob("*.png"):
            if old.stem not in drawn:
                old.unlink()
        for figure, picture in drawn.items():
            write_bytes(folder / "figures" / f"{figure}.png", picture)


def rank_table(rankings: dict[str, Ranking]) -> pd.DataFrame:
    """Rankings as one table: `measure`, `method`, `rank`, `splits`."""
    parts: Iterable[pd.DataFrame] = (
        ranking.ranks.assign(measure=measure, splits=ranking.splits)
        for measure, ranking in rankings.items()
    )
    return pd.concat(list(parts), ignore_index=True)[["measure", "method", "rank", "splits"]]
