"""Tables of the dashboard as HTML: the same numbers as in `table.md`, each cell with the value it
is sorted by.
"""

import html
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from iqa_lightning.report.numbers.results import COST
from iqa_lightning.report.numbers.verdicts import SIGNIFICANT, datasets_of
from iqa_lightning.report.page.panels import LOWER
from iqa_lightning.report.text.paper import COLUMNS, COST_LABELS, by_measure, ours
from iqa_lightning.report.text.terminal import MEASURES, number


class Cell(NamedTuple):
    """A cell of a table: what it shows, what follows in small print, what it is sorted by."""

    text: str
    note: str = ""
    value: float | None = None


class Column(NamedTuple):
    """A column: its label, what it means, whether it holds numbers."""

    label: str
    meaning: str = ""
    numeric: bool = True


Table = tuple[list[Column], list[list[Cell]]]


def table(name: str, caption: str, content: Table) -> str:
    """A table whose columns can be sorted, in a box that scrolls sideways; a sentence where there
    are no rows.
    """
    columns, rows = content
    if not rows:
        return '<p class="note">Nothing to show.</p>'
    head = "".join(
        f'<th scope="col" class="{"number" if column.numeric else "text"}">'
        f'<button type="button" title="{html.escape(column.meaning or column.label)}">{html.escape(column.label)}'
        f"</button></th>"
        for column in columns
    )
    body = "".join(
        f"<tr>{''.join(map(written, row, columns, range(len(row))))}</tr>" for row in rows
    )
    return (
        f'<div class="scroll" role="region" aria-label="{html.escape(caption)}" tabindex="0"><table id="{name}">'
        f"<caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def written(cell: Cell, column: Column, place: int) -> str:
    """One cell as HTML; the first of a row is its heading."""
    value = (
        "" if cell.value is None or math.isnan(cell.value) else f' data-value="{cell.value:.6f}"'
    )
    note = f" <small>{html.escape(cell.note)}</small>" if cell.note else ""
    tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
    kind = "number" if column.numeric else "text"
    return f'<{tag}{scope} class="{kind}"{value}>{html.escape(cell.text)}{note}</{tag}>'


def direction(key: str) -> str:
    """An arrow that says where better is."""
    return "↓" if key in LOWER else "↑"


def overview(lines: pd.DataFrame) -> Table:
    """Methods and readouts by the final SRCC of each data set, the measures, and minutes of
    training.
    """
    finals = [f"srcc/{name}" for name in datasets_of(lines)]
    labels = {key: key[5:] for key in finals} | {key: MEASURES[key] for key in COLUMNS}
    columns = [
        Column("method", numeric=False),
        Column("readout", "how one score is read out of the heads", False),
    ]
    columns.append(Column("n", "number of runs"))
    for key, label in labels.items():
        what = f"SRCC on {label} after the last task" if key in finals else label
        columns.append(
            Column(
                f"{label} {direction(key)}",
                f"{what}: {'lower' if key in LOWER else 'higher'} is better",
            )
        )
    columns.append(Column("minutes ↓", "training of one run, minutes: lower is better"))
    rows = []
    for (method, readout), group in ours(lines):
        by, n = by_measure(group), int(group["n"].max())
        cells = [estimate(by.get(key), n) for key in labels]
        first = [Cell(method), Cell(readout), Cell(str(n), value=n)]
        rows.append([*first, *cells, estimate(by.get("train_seconds"), n, 1 / 60, 1)])
    return columns, rows


def costs(lines: pd.DataFrame) -> Table:
    """What a run of each method costs; the same for all readouts."""
    columns = [Column("method", numeric=False), Column("n", "number of runs")]
    columns += [Column(f"{label} ↓", f"{label}: lower is better") for label in COST_LABELS.values()]
    rows = []
    for method, group in lines[lines["n"] > 0].groupby("method", sort=False):
        by, n = by_measure(group), int(group["n"].max())
        rows.append(
            [
                Cell(str(method)),
                Cell(str(n), value=n),
                *(estimate(by.get(key), n, digits=0) for key in COST),
            ]
        )
    return columns, rows


def published(lines: pd.DataFrame) -> Table:
    """Published numbers that are certified, with verdicts."""
    names = ["method", "readout", "measure", "published", "ours", "verdict", "source", "certainty"]
    columns = [Column(name, numeric=name in ("published", "ours")) for name in names]
    rows = []
    for row in lines[lines["published"].notna()].to_dict("records"):
        theirs = Cell(number(row["published"]), value=row["published"])
        texts = [Cell(str(row[key])) for key in ("verdict", "source", "certainty")]
        measure = str(row["measure"])
        label = MEASURES.get(measure, measure.replace("srcc/", "SRCC on "))
        first = [Cell(str(row["method"])), Cell(str(row["readout"])), Cell(label)]
        rows.append(
            [*first, theirs, estimate({str(k): v for k, v in row.items()}, row["n"]), *texts]
        )
    return columns, rows


def tests(found: pd.DataFrame) -> Table:
    """Tests between methods."""
    columns = [
        Column("measure", numeric=False),
        Column("methods", numeric=False),
        Column("difference", "first - second"),
    ]
    columns += [
        Column("blocks", "orders and splits that both were run on"),
        Column("p"),
        Column("p (Holm)"),
    ]
    columns.append(Column("at 5 %", numeric=False))
    rows = []
    for row in found[found["blocks"] > 0].to_dict("records"):
        said = "differ" if row["p_holm"] <= SIGNIFICANT else "not distinguishable"
        first = [Cell(MEASURES[row["measure"]]), Cell(f"{row['first']} - {row['second']}")]
        numbers = [Cell(number(row[key]), value=row[key]) for key in ("difference", "p", "p_holm")]
        numbers.insert(1, Cell(str(row["blocks"]), value=row["blocks"]))
        rows.append([*first, *numbers, Cell(said)])
    return columns, rows


def variance(found: pd.DataFrame) -> Table:
    """Where the spread between runs comes from."""
    sources = {"order": "order", "split": "split", "rest": "rest (seed)", "images": "images"}
    columns = [
        Column("method", numeric=False),
        Column("measure", numeric=False),
        Column("n", "number of runs"),
    ]
    columns += [Column(label) for label in sources.values()]
    rows = []
    for row in found[found["n"] > 1].to_dict("records"):
        spread = [math.sqrt(row[key]) for key in sources]
        first = [
            Cell(row["method"]),
            Cell(MEASURES[row["measure"]]),
            Cell(str(row["n"]), value=row["n"]),
        ]
        rows.append([*first, *(Cell(number(value, digits=4), value=value) for value in spread)])
    return columns, rows


def estimate(line: Mapping[str, Any] | None, n: int, scale: float = 1.0, digits: int = 3) -> Cell:
    """A mean with its interval; with its own n where that is not the row's."""
    if line is None or line["n"] == 0 or math.isnan(line["mean"]):
        return Cell("-")
    mean, low, high = (line[key] * scale for key in ("mean", "low", "high"))
    text, bottom, top, half = (grouped(value, digits) for value in (mean, low, high, high - mean))
    note = {"runs": f"± {half}", "images": f"[{bottom}, {top}]"}.get(line["interval"], "")
    return Cell(text, note if line["n"] == n else f"{note} (n={line['n']})", mean)


def grouped(value: float, digits: int) -> str:
    """A number as tables show it, large ones with thin spaces."""
    return (
        number(value, digits=digits)
        if abs(value) < 1e4 or math.isnan(value)
        else f"{value:,.0f}".replace(",", "\u202f")
    )
