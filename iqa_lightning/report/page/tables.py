"""Tables of the dashboard as HTML: the same numbers as in `table.md`, each cell with the value it
is sorted by.
"""

import html
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from iqa_lightning.report.numbers.results import COST
from iqa_lightning.report.numbers.statistics import ROPE
from iqa_lightning.report.numbers.verdicts import Summary, datasets_of, used_readout
from iqa_lightning.report.page.panels import LOWER
from iqa_lightning.report.text.paper import (
    COLUMNS,
    COST_LABELS,
    MARK,
    UNFLOORED,
    by_measure,
    counts,
    ours,
    spread,
    stated,
)
from iqa_lightning.report.text.terminal import MEASURES, number


class Cell(NamedTuple):
    """A cell of a table: what it shows, what follows in small print, what it is sorted by; shares
    are drawn as a bar.
    """

    text: str
    note: str = ""
    value: float | None = None
    shares: tuple[float, ...] = ()


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
        f'<button type="button" title="{html.escape(column.meaning or column.label)}">'
        f"{html.escape(column.label)}"
        f"</button></th>"
        for column in columns
    )
    body = "".join(
        f"<tr>{''.join(map(written, row, columns, range(len(row))))}</tr>" for row in rows
    )
    return (
        '<p class="wider" hidden>Wider than this window: it scrolls sideways.</p>'
        f'<div class="scroll" role="region" aria-label="{html.escape(caption)}" tabindex="0">'
        f'<table id="{name}">'
        f"<caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def written(cell: Cell, column: Column, place: int) -> str:
    """One cell as HTML; the first of a row is its heading."""
    value = (
        "" if cell.value is None or math.isnan(cell.value) else f' data-value="{cell.value:.6f}"'
    )
    note = f" <small>{html.escape(cell.note)}</small>" if cell.note else ""
    tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
    kind = "number" if column.numeric else "text"
    bar = posterior_bar(cell.shares) if cell.shares else ""
    return f'<{tag}{scope} class="{kind}"{value}>{html.escape(cell.text)}{note}{bar}</{tag}>'


def posterior_bar(shares: tuple[float, ...]) -> str:
    """A small bar of the probabilities that the first is worse, equal, better."""
    names = ("worse", "equal", "better")
    parts = "".join(
        f'<i class="{name}" style="width:{100 * share:.1f}%"></i>'
        for name, share in zip(names, shares, strict=True)
    )
    told = ", ".join(f"{name} {share:.2f}" for name, share in zip(names, shares, strict=True))
    return f'<span class="posterior" role="img" aria-label="{told}" title="{told}">{parts}</span>'


def direction(key: str) -> str:
    """An arrow that says where better is."""
    return "↓" if key in LOWER else "↑"


def overview(summary: Summary) -> Table:
    """Methods and readouts by the final SRCC of each data set and the measures."""
    names = datasets_of(summary.lines)
    labels = {f"srcc/{name}": name + MARK * (name in summary.small) for name in names}
    labels |= {key: MEASURES[key] for key in COLUMNS}
    columns = [
        Column("method", numeric=False),
        Column("readout", "how one score is read out of the heads", False),
        Column("config", "hash of the config, - where it was not recorded", False),
        Column("splits"),
        Column("runs"),
    ]
    for key, label in labels.items():
        what = f"SRCC on {label} after the last task" if key.startswith("srcc/") else label
        better = "lower" if key in LOWER else "higher"
        columns.append(Column(f"{label} {direction(key)}", f"{what}: {better} is better"))
    rows = []
    for (method, readout), group in ours(summary.lines):
        by, (splits, n) = by_measure(group), counts(group)
        config = str(group["config_hash"].iloc[0])[:8] or "-"
        first = [Cell(method), Cell(readout), Cell(config)]
        first += [Cell(str(splits), value=splits), Cell(str(n), value=n)]
        rows.append([*first, *(estimate(by.get(key), splits) for key in labels)])
    return columns, rows


def costs(lines: pd.DataFrame) -> Table:
    """What a run of each method costs, beside what it reaches in the readout it is used with."""
    columns = [Column("method", numeric=False), Column("readout", numeric=False), Column("runs")]
    columns += [Column(f"{MEASURES[key]} ↑", "higher is better") for key in ("msrcc", "area")]
    columns += [Column(f"{label} ↓", f"{label}: lower is better") for label in COST_LABELS.values()]
    rows = []
    for method, group in lines[lines["n"] > 0].groupby("method", sort=False):
        readout = used_readout(dict.fromkeys(group["readout"]))
        part = group[group["readout"] == readout]
        by, (splits, n) = by_measure(part), counts(part)
        first = [Cell(str(method)), Cell(readout), Cell(str(n), value=n)]
        reached = [estimate(by.get(key), splits) for key in ("msrcc", "area")]
        rows.append([*first, *reached, *(estimate(by.get(key), splits, digits=0) for key in COST)])
    return columns, rows


def published(lines: pd.DataFrame) -> Table:
    """Published numbers that are certified, with verdicts; those of other protocols last."""
    names = ["method", "readout", "measure", "published", "ours", "verdict", "protocol"]
    names += ["source", "certainty"]
    columns = [Column(name, numeric=name in ("published", "ours")) for name in names]
    rows = []
    for part in stated(lines):
        for row in part[part["published"].notna()].to_dict("records"):
            theirs = Cell(number(row["published"]), value=row["published"])
            texts = ("verdict", "protocol", "source", "certainty")
            last = [Cell(str(row[key]) or "that of the table") for key in texts]
            measure = str(row["measure"])
            label = MEASURES.get(measure, measure.replace("srcc/", "SRCC on "))
            first = [Cell(str(row["method"])), Cell(str(row["readout"])), Cell(label)]
            mine = estimate({str(k): v for k, v in row.items()}, row["splits"])
            rows.append([*first, theirs, mine, *last])
    return columns, rows


def tests(found: pd.DataFrame) -> Table:
    """Tests between methods, with the posterior as a bar."""
    columns = [
        Column("measure", numeric=False),
        Column("first - second", numeric=False),
        Column("splits", "splits that both were run on"),
        Column("difference", "first - second, 95 % interval over splits"),
        Column("p (Holm)", "corrected resampled t-test"),
        Column("worse, equal, better", f"posterior of the first; equal: within {ROPE}"),
        Column("power .8", "the smallest difference that is found in 80 % of cases"),
        Column("at 5 %", numeric=False),
    ]
    rows = []
    for row in found[found["splits"] > 0].to_dict("records"):
        first = [Cell(MEASURES[row["measure"]]), Cell(f"{row['first']} - {row['second']}")]
        first.append(Cell(str(row["splits"]), value=row["splits"]))
        tested = not math.isnan(row["p"])
        note = f"[{number(row['low'])}, {number(row['high'])}]" if tested else ""
        difference = Cell(number(row["difference"]), note, row["difference"])
        shares = tuple(row[key] for key in ("worse", "equal", "better"))
        posterior = Cell("", value=shares[2], shares=shares) if tested else Cell("-")
        p, power = (Cell(number(row[key]), value=row[key]) for key in ("p_holm", "detectable"))
        rows.append([*first, difference, p, posterior, power, Cell(row["said"])])
    return columns, rows


def variance(found: pd.DataFrame) -> Table:
    """Where the spread between runs comes from."""
    sources = ("split", "order", "seed", "rest", "method_x_split", "images")
    columns = [Column("method", numeric=False), Column("measure", numeric=False)]
    columns += [Column("runs", "number of runs")]
    columns += [Column(name.replace("_", " ")) for name in sources]
    rows = []
    for row in found[found["n"] > 1].to_dict("records"):
        first = [Cell(row["method"]), Cell(MEASURES[row["measure"]])]
        first.append(Cell(str(row["n"]), value=row["n"]))
        cells = []
        for key in sources:
            text = spread(row[key], row["images"] if key == "split" else 0.0)
            cells.append(Cell(text, value=0.0 if text == UNFLOORED else row[key]))
        rows.append([*first, *cells])
    return columns, rows


def estimate(line: Mapping[str, Any] | None, splits: int, digits: int = 3) -> Cell:
    """A mean with its interval; with its own number of splits where that is not the row's."""
    if line is None or line["n"] == 0 or math.isnan(line["mean"]):
        return Cell("-")
    text, low, high = (grouped(line[key], digits) for key in ("mean", "low", "high"))
    notes = {
        "splits": f"[{low}, {high}]",
        "images": f"[{low}, {high}]i",
        "range": f"{low} to {high}" if low != high else "",
    }
    note = notes.get(line["interval"], "")
    fewer = "" if line["splits"] == splits else f" ({line['splits']} splits)"
    return Cell(text, note + fewer, line["mean"])


def grouped(value: float, digits: int) -> str:
    """A number as tables show it, large ones with thin spaces."""
    return (
        number(value, digits=digits)
        if abs(value) < 1e4 or math.isnan(value)
        else f"{value:,.0f}".replace(",", "\u202f")
    )
