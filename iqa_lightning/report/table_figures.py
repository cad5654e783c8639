"""Figures of a table, as PNG bytes that are the same whenever the numbers are the same."""

import io
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from iqa_lightning.report.figures import LONGEST, TITLES, heat_maps
from iqa_lightning.report.numbers.ranking import Ranking
from iqa_lightning.report.numbers.results import Results
from iqa_lightning.report.numbers.verdicts import chosen_readouts, used_readout
from iqa_lightning.report.text.escaping import figure_text
from iqa_lightning.report.text.terminal import MEASURES, SYNTHETIC

MARKS = "osD^vP*X<>"


SPREAD = ("msrcc", "mpsi")  # the final state, and the way there


DPI = 110


NARROWEST = 0.1
"""The least that an axis of a measure shows."""


WIDEST = 48.0  # inches of a row of panels


def table_figures(
    results: Results, rankings: Mapping[str, Ranking], orders: pd.DataFrame
) -> dict[str, bytes]:
    """All figures of a table by name.

    `srcc_<method>` and `stability_<method>`: heat maps of the first order, means over splits and
    seeds; `curves`: SRCC of each data set over the tasks; `ranks`: average ranks with groups;
    `orders`: spread over orders. What cannot be drawn, such as ranks of a single method, is not
    there.

    Args:
        results: of the runs.
        rankings: of the methods, by measure.
        orders: as `orders.csv`; empty where no orders are re-indexed.
    """
    synthetic = bool(results.runs["synthetic"].any())
    figures = {}
    for method in dict.fromkeys(results.cells["method"]):
        for kind, title in TITLES.items():
            figures[f"{kind}_{file_name(method)}"] = heat_maps(
                mean_matrices(results.cells, method, kind), f"{method}: {title}", synthetic
            )
    figures["curves"] = task_curves(results.cells, synthetic)
    drawn = {
        key: ranking
        for key, ranking in rankings.items()
        if ranking.splits > 1 and len(ranking.ranks) > 1
    }
    if drawn:
        figures["ranks"] = rank_diagrams(drawn, synthetic)
    if results.runs["order"].nunique() > 1 or len(orders):
        figures["orders"] = order_spread(results.measures, orders, synthetic)
    return figures


def file_name(method: str) -> str:
    """A method as part of a file name."""
    return method.replace(" (joint)", "_joint").replace(" ", "_")


def mean_matrices(cells: pd.DataFrame, method: str, kind: str = "srcc") -> dict[str, pd.DataFrame]:
    """Matrices of a method by readout: means over splits and seeds of its first order."""
    rows = cells[cells["method"] == method]
    rows = rows[rows["order"] == rows["order"].iloc[0]]
    means = rows.groupby(["readout", "after", "dataset"], sort=False)[kind].mean().reset_index()
    found = {}
    for readout, part in means.groupby("readout", sort=False):
        table = part.pivot_table(
            index="after", columns="dataset", values=kind, sort=False, dropna=False
        )
        after, names = (list(dict.fromkeys(rows[key])) for key in ("after", "dataset"))
        found[str(readout)] = table.reindex(index=pd.Index(after, name="after"), columns=names)
    return found


def task_curves(cells: pd.DataFrame, synthetic: bool = False) -> bytes:
    """SRCC of each data set over the tasks, a line per method: means over splits and seeds of the
    first order.
    """
    shown = cells[cells["order"] == cells["order"].iloc[0]]
    after, names = (list(dict.fromkeys(shown[key])) for key in ("after", "dataset"))
    width = 2.6 + 0.35 * len(after)
    columns = max(1, min(len(names), int(WIDEST // width)))
    rows = math.ceil(len(names) / columns)
    figure, axes = canvas(columns, width, 3.2 * rows, rows)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        for i, method in enumerate(dict.fromkeys(shown["method"])):
            matrices = mean_matrices(shown, method)
            readout = used_readout(matrices)
            values = matrices[readout].reindex(after)[name].to_numpy(np.float64)
            label = figure_text(f"{method} ({readout})")
            axis.plot(
                range(len(after)),
                values,
                color=f"C{i % 10}",
                marker=MARKS[i % 10],
                ms=4,
                lw=1.3,
                label=label,
            )
        learnt = next((i for i, task in enumerate(after) if name in str(task).split("+")), None)
        if learnt is not None:
            axis.axvline(learnt, color="0.6", lw=1, ls=":")
        axis.set_title(figure_text(str(name)), fontsize=10)
        axis.set_xticks(
            range(len(after)),
            [figure_text(str(task)) for task in after],
            rotation=40,
            ha="right",
            rotation_mode="anchor",
            fontsize=8,
        )
        axis.grid(axis="y", color="0.9")
    lowest = min(-0.35, *(axis.dataLim.y0 - 0.05 for axis in axes[: len(names)]))  # none is cut off
    for axis in axes:
        axis.set_ylim(lowest, 1.02)
    axes[0].set_ylabel("SRCC")
    legend(figure, axes[0])
    return png(figure, titled("SRCC over the tasks (dotted: the data set is learnt)", synthetic))


def rank_diagrams(rankings: Mapping[str, Ranking], synthetic: bool = False) -> bytes:
    """Diagrams of average ranks, one per measure: bars with dots join methods that the tests do not
    tell apart.
    """
    most = max(len(ranking.ranks) for ranking in rankings.values())
    figure, axes = canvas(1, 7.0, len(rankings) * (0.9 + 0.24 * most), rows=len(rankings))
    for axis, (measure, ranking) in zip(axes, rankings.items(), strict=True):
        draw_ranks(axis, ranking)
        axis.set_title(f"{MEASURES[measure]}, {ranking.splits} splits", fontsize=10, loc="left")
    return png(
        figure, titled("Average ranks over splits; dots on a bar: not distinguishable", synthetic)
    )


def draw_ranks(axis: Axes, ranking: Ranking) -> None:
    """One diagram: ranks along the top, 1 to the left, a line down to the name of each method."""
    names, values = list(ranking.ranks["method"]), ranking.ranks["rank"].to_numpy(np.float64)
    count, half = len(names), math.ceil(len(names) / 2)
    bars = len(ranking.groups)
    for i, (name, rank) in enumerate(zip(names, values, strict=True)):
        left = i < half
        depth = 0.8 + 0.5 * bars + (i if left else count - 1 - i)
        end = 1 - 0.08 * (count - 1) if left else count + 0.08 * (count - 1)
        axis.plot([rank, rank, end], [0, depth, depth], color="0.25", lw=1)
        side = "right" if left else "left"
        axis.text(
            end, depth, f" {figure_text(name)} ({rank:.2f}) ", ha=side, va="center", fontsize=9
        )
    places = dict(zip(names, values, strict=True))
    for i, group in enumerate(ranking.groups):
        at = [places[name] for name in group]
        axis.plot(at, [0.5 + 0.5 * i] * len(at), color="C3", lw=1.5, marker="o", ms=4)
    axis.plot([1, count], [0, 0], color="black", lw=1.2)
    for tick in range(1, count + 1):
        axis.plot([tick, tick], [0, -0.15], color="black", lw=1)
        axis.text(tick, -0.2, str(tick), ha="center", va="bottom", fontsize=8)
    axis.set_xlim(1 - 0.45 * count, count + 0.45 * count)
    axis.set_ylim(1.4 + 0.5 * bars + half, -2.3)
    axis.set_axis_off()


def order_spread(measures: pd.DataFrame, orders: pd.DataFrame, synthetic: bool = False) -> bytes:
    """Measures of each method by order: large dots are orders that were run, small grey ones are
    re-indexed.
    """
    chosen = chosen_readouts(measures)
    methods = list(dict.fromkeys(chosen["method"]))
    figure, axes = canvas(len(SPREAD), 1.6 + 0.7 * len(methods), 3.4, sharey=False)
    for axis, measure in zip(axes, SPREAD, strict=True):
        for i, method in enumerate(methods):
            run = chosen[(chosen["measure"] == measure) & (chosen["method"] == method)]
            if len(orders):
                held = orders[(orders["method"] == method) & orders["readout"].isin(run["readout"])]
                means = (
                    held.groupby(["trained", "order"], sort=False)[measure]
                    .mean()
                    .to_numpy(np.float64)
                )
                axis.plot(
                    i + np.linspace(-0.25, 0.25, len(means)),
                    np.sort(means),
                    ".",
                    color="0.65",
                    ms=4,
                )
            means = run.groupby("order", sort=False)["value"].mean().to_numpy(np.float64)
            axis.plot([i] * len(means), means, "o", color=f"C{i % 10}", ms=6, mec="white")
        axis.set_xticks(
            range(len(methods)),
            [figure_text(str(method)) for method in methods],
            rotation=30,
            ha="right",
            rotation_mode="anchor",
            fontsize=9,
        )
        axis.set_xlim(-0.6, len(methods) - 0.4)
        low, high = no_narrower(*axis.get_ylim())
        axis.set_ylim(low, high)
        part = "" if low <= 0 and high >= 1 else f" (axis from {low:.2f} to {high:.2f})"
        axis.set_title(f"{MEASURES[measure]}{part}", fontsize=10)
        axis.grid(axis="y", color="0.9")
    return png(figure, titled("By order of the tasks (grey: re-indexed)", synthetic))


def no_narrower(low: float, high: float) -> tuple[float, float]:
    """Limits of an axis that is never so narrow that a difference of a thousandth fills it."""
    more = max(NARROWEST - (high - low), 0) / 2
    return low - more, high + more


def canvas(
    columns: int, width: float, height: float, rows: int = 1, sharey: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure without a window, and its axes; `width` inches a column, `height` inches in all."""
    figure = Figure(figsize=(columns * width, height + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(
        figure.subplots(rows, columns, squeeze=False, sharey=sharey and rows == 1).ravel()
    )


def legend(figure: Figure, axis: Axes) -> None:
    """One legend for all panels, below them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def titled(text: str, synthetic: bool) -> str:
    """A title that says whether the targets are no human ratings."""
    return f"{text}\n{SYNTHETIC}" if synthetic else text


def png(figure: Figure, title: str) -> bytes:
    """The picture of a figure."""
    figure.suptitle(title, fontsize=11)
    picture = io.BytesIO()
    dpi = min(DPI, LONGEST / max(figure.get_size_inches()))
    figure.savefig(
        picture, format="png", dpi=dpi, metadata={"Software": None}
    )  # whose version changes the bytes
    return picture.getvalue()
