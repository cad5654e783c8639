"""A summary as `table.md` and `table.tex`; the same summary gives the same bytes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from iqa_lightning.report.numbers.results import COST
from iqa_lightning.report.numbers.verdicts import SIGNIFICANT, TOLERANCE, Summary, datasets_of
from iqa_lightning.report.text.terminal import MEASURES, number

SYNTHETIC = "Synthetic targets: nobody rated these images; the numbers show the software at work and compare no methods."


Lines = dict[str, dict[str, Any]]


COLUMNS = ("msrcc", "mpi", "msi", "mpsi", "forgetting", "bwt", "fwt")


COST_LABELS = {
    "train_seconds": "training, s",
    "images_seen": "images seen",
    "forwards_eval": "images evaluated",
    "parameters_added": "parameters a task",
    "bytes_stored": "bytes carried",
}


LEGEND = (
    "SRCC of each test set after the last task, then the measures over the stream (lower is "
    "better for forgetting, "
    "higher for all others). Mean over n runs ± half of the 95 % interval; that runs share orders "
    "and splits is taken "
    "into account. `[low, high]` is, where there is one run only, the 95 % interval of image "
    "sampling (bootstrap by "
    "content), which needs five contents in the test set."
)


def markdown(name: str, summary: Summary, missing: Sequence[Mapping[str, Any]]) -> str:
    """The whole report of a table as Markdown.

    Args:
        name: the table.
        summary: what `verdicts.summarise` made of its runs.
        missing: the planned runs without results.
    """
    lines = summary.lines
    parts = [f"# {name}", "Written by `python -m iqa_lightning.reproduce`, never by hand."]
    parts += [f"**{SYNTHETIC}**"] if lines["synthetic"].any() else []
    parts += [
        LEGEND,
        grid(*main_table(lines)),
        "## Cost",
        "Seconds depend on the machine.",
        grid(*cost_table(lines)),
    ]
    parts += ["## Beside the published numbers", *published_part(lines)]
    parts += ["## Differences between methods", *tests_part(summary.tests)]
    parts += ["## Where the variance comes from", *variance_part(summary.variance)]
    if missing:
        rows = [
            [run["method"], run["order"], str(run["split"]), str(run["seed"])] for run in missing
        ]
        parts += ["## Runs without results", grid(["method", "order", "split", "seed"], rows)]
    return "\n\n".join(parts) + "\n"


def latex(name: str, summary: Summary) -> str:
    """The main table as LaTeX (package booktabs)."""
    lines = summary.lines
    header, rows = main_table(lines)
    caption = f"{name}: SRCC after the last task and measures over the stream, mean over $n$ runs with 95\\,\\% interval."
    caption += f" {SYNTHETIC}" if lines["synthetic"].any() else ""
    body = [" & ".join(map(escaped, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table*}",
            rf"\caption{{{escaped(caption, keep_math=True)}}}",
            rf"\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}",
            *(
                r"\toprule",
                " & ".join(map(escaped, header)) + r" \\",
                r"\midrule",
                *body,
                r"\bottomrule",
            ),
            *(r"\end{tabular}", r"\end{table*}", ""),
        ]
    )


def main_table(lines: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows: method, readout, n, the final SRCC of each data set, the measures, minutes
    of training.
    """
    names = [f"srcc/{name}" for name in datasets_of(lines)]
    header = [
        "method",
        "readout",
        "n",
        *(name[5:] for name in names),
        *(MEASURES[key] for key in COLUMNS),
        "minutes",
    ]
    rows = []
    for (method, readout), group in ours(lines):
        by, n = by_measure(group), int(group["n"].max())
        cells = [cell(by, key, n) for key in (*names, *COLUMNS)]
        rows.append([method, readout, str(n), *cells, cell(by, "train_seconds", n, 1 / 60, 1)])
    return header, rows


def cost_table(lines: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what a run of each method costs; the same for all readouts."""
    rows = []
    for method, group in lines[lines["n"] > 0].groupby("method", sort=False):
        by, n = by_measure(group), int(group["n"].max())
        rows.append([str(method), str(n), *(cell(by, key, n, digits=0) for key in COST)])
    return ["method", "n", *COST_LABELS.values()], rows


def cell(by: Lines, key: str, n: int, scale: float = 1.0, digits: int = 3) -> str:
    """One number with its interval, and with its own n where that is not the row's."""
    line = by.get(key)
    if line is None or line["n"] == 0:
        return "-"
    mean, low, high = (
        number(line[name] * scale, digits=digits) for name in ("mean", "low", "high")
    )
    half = number((line["high"] - line["mean"]) * scale, digits=digits)
    interval = {"runs": f" ± {half}", "images": f" [{low}, {high}]"}.get(line["interval"], "")
    return mean + interval + ("" if line["n"] == n else f" (n={line['n']})")


def by_measure(group: pd.DataFrame) -> Lines:
    """Lines by their measure."""
    return {
        str(row["measure"]): {str(key): value for key, value in row.items()}
        for row in group.to_dict("records")
    }


def ours(lines: pd.DataFrame) -> Iterable[tuple[tuple[str, str], pd.DataFrame]]:
    """The lines of each method and readout that was run."""
    for (method, readout), group in lines[lines["n"] > 0].groupby(
        ["method", "readout"], sort=False
    ):
        yield (str(method), str(readout)), group


def published_part(lines: pd.DataFrame) -> list[str]:
    """Published numbers beside ours, with verdicts and what they mean."""
    stated = lines[
        (lines["source"] != "") | (lines["certainty"] != "") | lines["published"].notna()
    ]
    if stated.empty:
        return ["No certified number is known for any cell of this table."]
    header = [
        "method",
        "readout",
        "measure",
        "published",
        "ours",
        "n",
        "verdict",
        "source",
        "certainty",
    ]
    rows = []
    for row in stated.to_dict("records"):
        mine = cell(by_measure(pd.DataFrame([row])), str(row["measure"]), row["n"])
        texts = [str(row[key]) for key in ("method", "readout", "measure")]
        last = [str(row[key]) for key in ("verdict", "source", "certainty")]
        rows.append([*texts, number(row["published"]), mine, str(row["n"]), *last])
    meaning = (
        f"reproduced: our mean is within {TOLERANCE} of the published number; within interval: "
        "further away, but our "
        "95 % interval holds it; differs: neither. For cells that are not listed no certified "
        "number is known."
    )
    return [grid(header, rows), meaning]


def tests_part(tests: pd.DataFrame) -> list[str]:
    """Tests between methods, or why there are none."""
    if tests.empty or not (tests["blocks"] > 0).any():
        return ["No two methods were run on the same order and split."]
    header = ["measure", "methods", "difference", "blocks", "p", "p (Holm)", "at 5 %"]
    rows = []
    for row in tests[tests["blocks"] > 0].itertuples():
        numbers = [number(float(value)) for value in (row.difference, row.p, row.p_holm)]  # type: ignore[arg-type]
        said = "differ" if float(row.p_holm) <= SIGNIFICANT else "not distinguishable"  # type: ignore[arg-type]
        pair = f"{row.first} - {row.second}"
        rows.append(
            [MEASURES[str(row.measure)], pair, numbers[0], str(row.blocks), *numbers[1:], said]
        )
    how = (
        "Paired permutation tests, labels exchanged within a block (an order and a split), Holm's "
        "correction within a "
        "measure. With one run of each method in a block p cannot reach 0.05 below six blocks, p "
        "(Holm) not below nine "
        "where five methods are compared: the average ranks in details.md tell more from few "
        "blocks."
    )
    return [grid(header, rows), how]


def variance_part(variance: pd.DataFrame) -> list[str]:
    """Standard deviations by source, or why there are none."""
    if variance.empty or not (variance["n"] > 1).any():
        return ["One run of each method: nothing to compare."]
    header, rows = ["method", "measure", "n", "order", "split", "rest (seed)", "images"], []
    for row in variance[variance["n"] > 1].to_dict("records"):
        parts = [
            number(math.sqrt(row[key]), digits=4) for key in ("order", "split", "rest", "images")
        ]
        rows.append([row["method"], MEASURES[row["measure"]], str(row["n"]), *parts])
    how = (
        "Standard deviations that each source adds to one run; - where the runs cannot tell. "
        "`rest` is the seed and "
        "all that order and split do not explain; `images` is what another draw of test images "
        "adds, a part of `split`."
    )
    return [grid(header, rows), how]


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers to the right."""
    right = [
        bool(rows) and all(row[i][:1] in "-0123456789" for row in rows) for i in range(len(header))
    ]
    rule = ["---:" if side else "---" for side in right]
    lines = [
        "| " + " | ".join(part.replace("|", "/") for part in row) + " |"
        for row in (header, rule, *rows)
    ]
    return "\n".join(lines)


def escaped(text: str, keep_math: bool = False) -> str:
    """Text for LaTeX."""
    signs = {"_": r"\_", "&": r"\&", "#": r"\#", "±": r"$\pm$"} | (
        {} if keep_math else {"%": r"\%"}
    )
    return "".join(signs.get(sign, sign) for sign in text)
