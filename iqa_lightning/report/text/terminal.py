"""Matrices and measures as text: coloured tables in a terminal, plain columns everywhere else."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iqa_lightning.metrics.matrices import Derived, task_of_dataset
from iqa_lightning.metrics.transfer import undefined

RUN_MEASURES = {
    "msrcc": "mSRCC",
    "area": "area",
    "mpi": "mPI",
    "msi": "mSI",
    "mpsi": "mPSI",
    "bwt": "BWT",
    "fwt": "FWT",
    "fwt_gem": "FWT (GEM)",
    "forgetting": "forgetting",
}
"""Measures of one run by key, as in `summary.json`."""


MEASURES = {"msrcc": "mSRCC", "msrcc60": "mSRCC60"} | RUN_MEASURES
"""Measures of tables; `msrcc60` is the mean over the data sets whose test part is not small."""


SYNTHETIC = "synthetic target"


LEGEND = "bold: learnt, underlined: just learnt, dim: zero-shot"


LOW, MIDDLE, HIGH = (215, 55, 50), (205, 175, 30), (40, 180, 70)  # colours of 0, 0.5 and 1


def print_run(derived: Derived, console: Console, synthetic: bool = False) -> None:
    """Print both matrices of every readout, audits after the last task, then one line of measures
    per readout.

    Args:
        derived: What `metrics.matrices.derive` made of a run.
        console: Where to.
        synthetic: Whether the targets are no human ratings, which every title then says.
    """
    for readout, srcc in derived["srcc"].items():
        print_matrix(srcc, f"SRCC, {readout}", console, synthetic)
        if len(srcc) > 2:
            print_matrix(derived["stability"][readout], f"stability, {readout}", console, synthetic)
    for name, table in derived.get("audits", {}).items():
        if name == "confusion":  # long; see confusion.csv
            continue
        console.print(audit_text(table, name), markup=False, highlight=False, soft_wrap=True)
    for readout, measures in derived["readouts"].items():
        line = summary_line(readout, measures, undefined_cells(derived["srcc"][readout]), synthetic)
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_matrix(
    matrix: pd.DataFrame, title: str, console: Console, synthetic: bool = False
) -> None:
    """Print one matrix: a coloured table if the console is a terminal, plain text otherwise.

    Args:
        matrix: Index `after` (`start`, then the tasks), one column per data set; higher is better,
            NaN where none.
        title: What the numbers are.
        console: Where to.
        synthetic: Whether the targets are no human ratings, which the title then says.
    """
    title = f"{title} ({SYNTHETIC})" if synthetic else title
    if console.is_terminal:
        console.print(matrix_table(matrix, title))
        if _zero_shot(matrix):
            console.print(LEGEND, style="dim", highlight=False)
    else:
        console.print(matrix_text(matrix, title), markup=False, highlight=False, soft_wrap=True)


def matrix_table(matrix: pd.DataFrame, title: str) -> Table:
    """A matrix as a rich table: learnt cells bold, just learnt underlined, zero-shot dim."""
    table = Table("after", title=escape(title), title_justify="left")
    for name in matrix.columns:
        table.add_column(escape(str(name)), justify="right", no_wrap=True)
    learnt = task_of_dataset(list(matrix.index), list(matrix.columns))
    for t, (task, row) in enumerate(zip(matrix.index, matrix.to_numpy(), strict=True)):
        cells = [
            f"[{_style(x, t, first)}]{number(x)}[/]" for x, first in zip(row, learnt, strict=True)
        ]
        table.add_row(escape(str(task)), *cells)
    return table


def matrix_text(matrix: pd.DataFrame, title: str) -> str:
    """A matrix as aligned plain text: zero-shot cells in parentheses, `-` for no value."""
    learnt = task_of_dataset(list(matrix.index), list(matrix.columns))
    rows = [["after", *map(str, matrix.columns)]]
    for t, (task, row) in enumerate(zip(matrix.index, matrix.to_numpy(), strict=True)):
        rows.append(
            [str(task), *(_plain(x, t >= first) for x, first in zip(row, learnt, strict=True))]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]  # fmt: skip
    return "\n".join(
        [f"{title}; zero-shot in parentheses" if _zero_shot(matrix) else title, *lines, ""]
    )


def audit_text(table: pd.DataFrame, title: str) -> str:
    """The rows of an audit (`gate`, `uncertainty`) after the last task as aligned plain text."""
    if table.empty:
        return f"{title}: nothing yet"
    last = table["after"].iloc[-1]
    rows = table[table["after"] == last].drop(columns="after").set_index("dataset")
    text = rows.to_string(float_format=number, na_rep="-", index_names=False)
    return f"{title}, after {last}\n{text}\n"


def summary_line(
    readout: str, measures: Mapping[str, float | None], undefined: int = 0, synthetic: bool = False
) -> str:
    """The measures of one readout in one line; `n/a` for those that do not exist.

    Args:
        readout: Its name.
        measures: As in `summary.json`; None or NaN where undefined.
        undefined: Number of learnt cells without a value, named at the end if there are any.
        synthetic: Whether the targets are no human ratings, which the line then says.
    """
    shown = {key: label for key, label in RUN_MEASURES.items() if key != "fwt_gem"}
    values = [f"{label} {number(measures.get(key), 'n/a')}" for key, label in shown.items()]
    note = f"  ({SYNTHETIC})" if synthetic else ""
    note += (
        f"  ({undefined} learnt cells without a value: constant or missing predictions)"
        if undefined
        else ""
    )
    return f"{readout + ':':<8} " + "  ".join(values) + note


def undefined_cells(srcc: pd.DataFrame) -> int:
    """Number of learnt cells of an SRCC matrix that hold no value."""
    return undefined(srcc.to_numpy(), task_of_dataset(list(srcc.index), list(srcc.columns)))


def number(value: float | None, missing: str = "-", digits: int = 3) -> str:
    """A correlation rounded to `digits` decimals, `missing` for NaN and None."""
    if value is None or math.isnan(value):
        return missing
    text = f"{value:.{digits}f}"
    return text if float(text) else text.lstrip("-")


def _zero_shot(matrix: pd.DataFrame) -> bool:
    learnt = task_of_dataset(list(matrix.index), list(matrix.columns))
    return bool(np.isfinite(matrix.to_numpy()[np.arange(len(matrix))[:, None] < learnt]).any())


def _plain(value: float, seen: bool) -> str:
    text = number(value)
    # a blank instead of the parenthesis keeps the decimal points in line
    return f"{text} " if seen or text == "-" else f"({text})"


def _style(value: float, t: int, first: int) -> str:
    weight = "dim" if t < first else "bold underline" if t == first else "bold"
    if math.isnan(value):
        return weight
    red, green, blue = (
        round(float(np.interp(value, (0, 0.5, 1), knots)))
        for knots in zip(LOW, MIDDLE, HIGH, strict=True)
    )
    return f"{weight} rgb({red},{green},{blue})"


def scale_text(audit: Mapping[str, float]) -> str:
    """What the common scale of a run does to its test images: see `metrics.scale.scale_audit`."""
    sets = ", ".join(
        f"{key.split('/')[1]} {number(value)}"
        for key, value in audit.items()
        if key.startswith("coverage/")
    )
    before, after = (number(audit[f"pooled_{when}"]) for when in ("before", "after"))
    lines = [f"one scale: SRCC pooled over sets {before}, aligned {after}"]
    if not math.isnan(audit["agreement_after"]):
        before, after = (number(audit[f"agreement_{when}"]) for when in ("before", "after"))
        lines.append(f"agreement of heads (concordance) {before}, aligned {after}")
    lines.append(f"intervals of 90 % hold {number(audit['coverage'])} of the ratings: {sets}")
    return "\n".join(lines)
