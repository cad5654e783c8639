"""A summary as `table.md` and `table.tex`; the same summary gives the same bytes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from iqa_lightning.metrics.splits import FEWEST_SPLITS
from iqa_lightning.report.numbers.results import COST
from iqa_lightning.report.numbers.statistics import ROPE
from iqa_lightning.report.numbers.trials import Trial, winner
from iqa_lightning.report.numbers.verdicts import (
    ALL_METHODS,
    TOLERANCE,
    Summary,
    datasets_of,
    judged,
    power_sentence,
    used_readout,
)
from iqa_lightning.report.text.escaping import latex_text, markdown_text
from iqa_lightning.report.text.terminal import MEASURES, number

SYNTHETIC = (
    "Synthetic targets: nobody rated these images; the numbers show the software at work and "
    "compare no methods."
)


Lines = dict[str, dict[str, Any]]


COLUMNS = ("msrcc", "msrcc60", "area", "mpi", "msi", "mpsi", "forgetting", "bwt", "fwt")


COST_LABELS = {
    "train_seconds": "training, s",
    "images_seen": "images seen",
    "forwards_eval": "forwards",
    "parameters_added": "parameters a task",
    "bytes_stored": "bytes carried",
}


MARK = "*"  # of a data set whose test part is small


LEGEND = (
    "SRCC of each test set after the last task, then the measures over the stream: `area` is the "
    "mean over tasks of the mean SRCC of the sets seen by then; FWT has the baseline 0; lower is "
    "better for forgetting, higher for all others. The split is the unit: orders and seeds are "
    f"averaged within it. `[low, high]` is from {FEWEST_SPLITS} splits on the 95 % interval over "
    "splits, corrected for the images that splits share; below that, marked `i`, only the one of "
    "image sampling (bootstrap by content, five contents at least): what other splits, orders and "
    "seeds would change is not in it."
)


UNFLOORED = "not above its floor"


def markdown(
    name: str,
    summary: Summary,
    missing: Sequence[Mapping[str, Any]],
    chosen: str = "",
    trials: Sequence[Trial] = (),
) -> str:
    """The whole report of a table as Markdown.

    Args:
        name: the table.
        summary: what `verdicts.summarise` made of its runs.
        missing: the planned runs without results.
        chosen: how the values of its rows were chosen.
        trials: that were made to choose them.
    """
    lines = summary.lines
    title = f"# {markdown_text(name)}"
    parts = [title, "Written by `python -m iqa_lightning.reproduce`, never by hand."]
    parts += [f"**{SYNTHETIC}**"] if lines["synthetic"].any() else []
    parts += [LEGEND, grid(*main_table(summary)), *notes(summary)]
    parts += ["## Cost", COST_NOTE, grid(*cost_table(lines))]
    parts += ["## Beside the published numbers", *published_part(lines)]
    parts += ["## Differences between methods", *tests_part(summary.tests)]
    parts += ["## Where the variance comes from", *variance_part(summary.variance)]
    parts += ["## How the values were chosen", *chosen_part(name, lines, chosen, trials)]
    return "\n\n".join([*parts, *missing_part(missing)]) + "\n"


def chosen_part(name: str, lines: pd.DataFrame, chosen: str, trials: Sequence[Trial]) -> list[str]:
    """A sentence, and each row's trials: the best of them is the method `<method>_<table>`."""
    if not trials:
        how = chosen or "Not recorded: equal trials for every method were not made."
        return [" ".join(how.split())]
    searched: dict[str, list[Trial]] = {}
    for trial in trials:
        searched.setdefault(f"{trial.method}_{name}", []).append(trial)
    rows = []
    for method in dict.fromkeys(lines["method"]):
        if (group := searched.get(str(method).split("@")[0])) is None:
            rows.append([str(method), "0", "as its file stands", ""])
            continue
        best = winner(group)
        values = ", ".join(f"{key} {value}" for key, value in best.values.items())
        rows.append([str(method), str(len(group)), values, f"{best.score:.3f}"])
    heads = ["method", "trials", "values of the best", "its validation SRCC"]
    return [*([" ".join(chosen.split())] if chosen else []), grid(heads, rows)]


def without_runs(name: str, published: pd.DataFrame, planned: Sequence[Mapping[str, Any]]) -> str:
    """A table of which nothing was run yet: published numbers and runs to make, as Markdown."""
    parts = [
        f"# {markdown_text(name)}",
        "Written by `python -m iqa_lightning.reproduce`, never by hand.",
    ]
    parts += ["No run of this table is recorded.", "## Published numbers"]
    parts += published_part(judged(NO_LINES, published))
    return "\n\n".join([*parts, *missing_part(planned)]) + "\n"


NO_LINES = pd.DataFrame(
    columns=[
        *("method", "readout", "measure", "mean", "low", "high", "n", "splits"),
        *("interval", "config_hash"),
    ]
)


def missing_part(missing: Sequence[Mapping[str, Any]]) -> list[str]:
    """The planned runs without results: by method and order, the missing splits and seeds."""
    groups: dict[tuple[str, str], list[str]] = {}
    for run in missing:
        entry = f"{run['split']}" + (f" (seed {run['seed']})" if run["seed"] else "")
        groups.setdefault((run["method"], run["order"]), []).append(entry)
    if not groups:
        return []
    rows = [[*key, ", ".join(splits)] for key, splits in groups.items()]
    return ["## Runs without results", grid(["method", "order", "splits"], rows)]


COST_NOTE = (
    "Of the readout that a method is used with; `(lowest to highest)` over the runs. Seconds "
    "depend on the machine."
)


def notes(summary: Summary, written: Callable[[str], str] = markdown_text) -> list[str]:
    """What the reader of the main table has to know: small sets, the correction, configs.

    Args:
        summary: of the table.
        written: makes a name text.
    """
    found = []
    if summary.small:
        sets = ", ".join(
            f"{written(name)} ({images} images, {contents} contents)"
            for name, (images, contents) in summary.small.items()
        )
        found.append(
            f"`{MARK}` test part of fewer than 60 images or 10 contents: {sets}. mSRCC60 is the "
            "mean over the other sets."
        )
    else:
        found.append("No test part is small, so mSRCC60 is mSRCC.")
    of = "of these splits" if summary.rho_recorded else "of 70/10/20, assumed"
    found.append(f"Test images for each training image: {summary.rho:.3f} ({of}).")
    if (summary.lines[summary.lines["n"] > 0]["config_hash"] == "").any():
        found.append(
            "`config` is - where runs were made before it was recorded: that a row holds one "
            "config is then what its README says."
        )
    return found


def latex(name: str, summary: Summary) -> str:
    """The main table and the costs as LaTeX (package booktabs)."""
    lines = summary.lines
    caption = (
        f"{name}: SRCC after the last task and measures over the stream, mean over splits with 95 "
        "% "
        f"interval (i: of image sampling only; {MARK}: small test part)."
    )
    caption += f" {SYNTHETIC}" if lines["synthetic"].any() else ""
    cost = f"{name}: what a run costs, beside mSRCC and area."
    return latex_table(caption, *main_table(summary)) + latex_table(cost, *cost_table(lines))


def latex_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One table as LaTeX; everything in it is text."""
    left = 3 if "config" in header else 2
    body = [" & ".join(map(latex_text, row)) + r" \\" for row in rows]
    parts = [
        r"\begin{table*}",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(header) - left)}}}",
        *(r"\toprule", " & ".join(map(latex_text, header)) + r" \\", r"\midrule"),
        *body,
        *(r"\bottomrule", r"\end{tabular}", r"\end{table*}", ""),
    ]
    return "\n".join(parts)


def main_table(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Header and rows: method, readout, config, splits, runs, the final SRCC of each data set, the
    measures.
    """
    names = datasets_of(summary.lines)
    header = ["method", "readout", "config", "splits", "runs"]
    header += [name + MARK * (name in summary.small) for name in names]
    header += [MEASURES[key] for key in COLUMNS]
    rows = []
    for (method, readout), group in ours(summary.lines):
        by, (splits, n) = by_measure(group), counts(group)
        cells = [cell(by, key, splits) for key in (*(f"srcc/{name}" for name in names), *COLUMNS)]
        config = str(group["config_hash"].iloc[0])[:8] or "-"
        rows.append([method, readout, config, str(splits), str(n), *cells])
    return header, rows


def cost_table(lines: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what a run of each method costs, beside what it reaches."""
    rows = []
    measured = lines[lines["n"] > 0]
    for method, group in measured.groupby("method", sort=False):
        readout = used_readout(dict.fromkeys(group["readout"]))
        part = group[group["readout"] == readout]
        by, (splits, n) = by_measure(part), counts(part)
        reached = [cell(by, key, splits) for key in ("msrcc", "area")]
        costs = [cell(by, key, splits, digits=0) for key in COST]
        rows.append([str(method), readout, str(n), *reached, *costs])
    return ["method", "readout", "runs", "mSRCC", "area", *COST_LABELS.values()], rows


def counts(group: pd.DataFrame) -> tuple[int, int]:
    """Splits and runs of a row of the table."""
    own = group[group["measure"] == "msrcc"]
    rows = own if len(own) and int(own["n"].iloc[0]) else group
    return int(rows["splits"].max()), int(rows["n"].max())


def cell(by: Lines, key: str, splits: int, digits: int = 3) -> str:
    """One number with its interval, and its own number of splits where it is not the row's."""
    line = by.get(key)
    if line is None or line["n"] == 0:
        return "-"
    mean, low, high = (number(line[name], digits=digits) for name in ("mean", "low", "high"))
    intervals = {
        "splits": f" [{low}, {high}]",
        "images": f" [{low}, {high}]i",
        "range": f" ({low} to {high})" if low != high else "",
    }
    fewer = "" if line["splits"] == splits else f" ({line['splits']} splits)"
    return mean + intervals.get(line["interval"], "") + fewer


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
    """Published numbers beside ours, with verdicts and what they mean; apart, those of other
    protocols.
    """
    same, apart = stated(lines)
    parts = ["No certified number of this protocol is known for any cell of this table."]
    if len(same):
        header = ["method", "readout", "measure", "published", "ours", "splits", "verdict"]
        rows = []
        for row in same.to_dict("records"):
            mine = cell(by_measure(pd.DataFrame([row])), str(row["measure"]), row["splits"])
            texts = [str(row[key]) for key in ("method", "readout", "measure")]
            last = [str(row[key]) for key in ("verdict", "source", "certainty")]
            rows.append([*texts, number(row["published"]), mine, str(row["splits"]), *last])
        meaning = (
            f"reproduced: our mean is within {TOLERANCE} of the published number; within interval: "
            "further away, but our 95 % interval holds it; differs: neither. For cells that are "
            "not listed no certified number is known."
        )
        parts = [grid([*header, "source", "certainty"], rows), meaning]
    if len(apart):
        header = ["method", "measure", "published", "protocol", "source", "certainty"]
        rows = [
            [
                *(str(row[key]) for key in ("method", "measure")),
                number(row["published"]),
                *(str(row[key]) for key in ("protocol", "source", "certainty")),
            ]
            for row in apart.to_dict("records")
        ]
        parts += ["**Other protocol**: nothing here may be compared with a number of this table."]
        parts += [grid(header, rows)]
    return parts


def stated(lines: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lines with a published number or its certainty: of the table's protocol, and of others."""
    apart = lines["protocol"] != ""
    told = (lines["source"] != "") | (lines["certainty"] != "") | lines["published"].notna()
    return lines[told & ~apart], lines[apart]


def tests_part(tests: pd.DataFrame) -> list[str]:
    """Tests between methods, or why there are none."""
    done = tests[tests["p"].notna()]
    if done.empty:
        return [
            f"No two methods share {FEWEST_SPLITS} splits: below that no test over splits and no "
            "interval of a difference can be relied on."
        ]
    header = ["measure", "first - second", "splits", "difference", "p", "p (Holm)"]
    header += ["P(worse)", f"P(equal within {ROPE})", "P(better)", "found with power .8", "at 5 %"]
    rows = []
    for row in done.to_dict("records"):
        pair = f"{row['first']} - {row['second']}"
        low, high = number(row["low"]), number(row["high"])
        numbers = [number(row[key]) for key in TEST_NUMBERS]
        found = [str(row["splits"]), f"{number(row['difference'])} [{low}, {high}]", *numbers]
        rows.append([MEASURES[row["measure"]], pair, *found, row["said"]])
    powers = [power_sentence(tests, key, MEASURES[key]) for key in dict.fromkeys(done["measure"])]
    left = tests[tests["p"].isna()].drop_duplicates(["first", "second", "said"])
    why = sorted({str(said) for said in left["said"]})
    how = (
        "Corrected resampled t-test over splits, Holm's correction within a measure; beside it the "
        "posterior of the Bayesian correlated t-test that the first method is worse, equal or "
        "better." + (f" Pairs without a test: {', '.join(why)}." if why else "")
    )
    return [grid(header, rows), how, " ".join(power for power in powers if power)]


TEST_NUMBERS = ("p", "p_holm", "worse", "equal", "better", "detectable")


def variance_part(variance: pd.DataFrame) -> list[str]:
    """Standard deviations by source, or why there are none."""
    if variance.empty or not (variance["n"] > 1).any():
        return ["One run of each method: nothing to compare."]
    sources = ("split", "order", "seed", "rest", "method_x_split")
    header = ["method", "measure", "runs", *(name.replace("_", " ") for name in sources), "images"]
    rows = []
    for row in variance[variance["n"] > 1].to_dict("records"):
        parts = [spread(row[key], row["images"] if key == "split" else 0.0) for key in sources]
        name = str(row["method"])
        numbers = [*parts, spread(row["images"])]
        rows.append([name, MEASURES[row["measure"]], str(row["n"]), *numbers])
    how = (
        "Standard deviations that each source adds to one run; - where the runs cannot tell. "
        "`rest` is all between runs alike in split and order, and what these two do together; "
        "`images`, another draw of test images, is the floor of `split`. In the row of "
        f"`{ALL_METHODS}` `split` is what splits add to all alike, `method x split` what they add "
        "to each by itself."
    )
    return [grid(header, rows), how]


def spread(variance: float, floor: float = 0.0) -> str:
    """A variance as a standard deviation, or that it is not above what it has to be at least."""
    if math.isnan(variance):
        return "-"
    return UNFLOORED if variance <= max(floor, 0.0) else number(math.sqrt(variance), digits=4)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers to the right, all cells as text."""
    right = [
        bool(rows) and all(row[i][:1] in "-0123456789" for row in rows) for i in range(len(header))
    ]
    rule = ["---:" if side else "---" for side in right]
    lines = [list(map(markdown_text, header)), rule, *(map(markdown_text, row) for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)
