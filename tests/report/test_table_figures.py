"""Figures of a table: the same numbers give the same bytes, what they are drawn from is right,
nothing warns.
"""

import io
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from iqa_lightning.report import table_figures as drawing
from iqa_lightning.report.numbers.ranking import rank_methods
from iqa_lightning.report.numbers.results import Results
from iqa_lightning.report.table_figures import (
    mean_matrices,
    order_spread,
    rank_diagrams,
    table_figures,
)

ORDERS = ("a>b+c", "b+c>a")


NONE = pd.DataFrame(columns=["first", "second", "said"])


def results(
    methods: tuple[str, ...] = ("x", "y (joint)"), orders: tuple[str, ...] = ORDERS
) -> Results:
    """Random cells and measures of two splits."""
    rng = np.random.default_rng(0)
    runs = pd.DataFrame(
        itertools.product(methods, orders, (1, 2)), columns=["method", "order", "split"]
    )
    runs = runs.assign(seed=0, synthetic=False)
    cells = [
        {**run, "readout": readout, "after": after, "dataset": name, "srcc": rng.uniform(-0.2, 1)}
        for run in runs[["method", "order", "split", "seed"]].to_dict("records")
        for readout in ("latest", "gated")
        for after in ("start", *run["order"].split(">"))
        for name in "abc"
    ]  # fmt: skip
    keys = [(r, m) for r in ("latest", "gated") for m in ("msrcc", "mpi", "msi", "mpsi")]
    measures = [
        {**run, "readout": readout, "measure": measure, "value": rng.uniform()}
        for run in runs[["method", "order", "split", "seed"]].to_dict("records")
        for readout, measure in keys
    ]  # fmt: skip
    return Results(runs, pd.DataFrame(cells).assign(stability=math.nan), pd.DataFrame(measures))


def drawn(table: Results, orders: pd.DataFrame | None = None) -> dict[str, bytes]:
    gated = table.measures[table.measures["readout"] == "gated"]
    rankings = {measure: rank_methods(gated, measure, NONE) for measure in ("msrcc", "mpi")}
    return table_figures(table, rankings, pd.DataFrame() if orders is None else orders)


def test_all_figures_come_out_twice_with_the_same_bytes() -> None:
    first = drawn(results())
    assert sorted(first) == [
        "curves",
        "orders",
        "ranks",
        "srcc_x",
        "srcc_y_joint",
        "stability_x",
        "stability_y_joint",
    ]
    assert drawn(results()) == first
    for picture in first.values():
        image = Image.open(io.BytesIO(picture))
        assert image.format == "PNG"
        assert image.width > 250
        assert not {"Software", "Creation Time"} & set(image.info)
    assert sum(map(len, first.values())) < 400_000


def test_what_cannot_be_drawn_is_not_there() -> None:
    assert sorted(drawn(results(("x",), ORDERS[:1]))) == ["curves", "srcc_x", "stability_x"]


def test_synthetic_targets_are_named() -> None:
    table, human = results(), drawn(results())
    made = drawn(table._replace(runs=table.runs.assign(synthetic=True)))
    assert all(made[name] != human[name] for name in human)


def test_matrices_are_means_of_the_first_order() -> None:
    cells = results().cells
    found = mean_matrices(cells, "x")
    assert list(found) == ["latest", "gated"]
    assert (list(found["gated"].index), list(found["gated"].columns)) == (
        ["start", "a", "b+c"],
        ["a", "b", "c"],
    )
    rows = cells[
        (cells["method"] == "x") & (cells["order"] == "a>b+c") & (cells["readout"] == "gated")
    ]
    rows = rows[(rows["after"] == "a") & (rows["dataset"] == "c")]
    assert found["gated"].loc["a", "c"] == pytest.approx(rows["srcc"].mean())
    assert len(rows) == 2
    assert mean_matrices(cells, "x", "stability")["gated"].isna().all(axis=None)


def test_a_diagram_places_ranks_and_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two good methods and two bad ones in 12 splits: two bars with a dot at each member, and a name
    at each rank.
    """
    rng, lines, texts = np.random.default_rng(1), [], []
    table = pd.DataFrame(itertools.product("pqrs", range(12)), columns=["method", "split"])
    value = np.repeat([9.0, 9.0, 0.0, 0.0], 12) + rng.normal(size=48)
    pairs = [(*pair, "differ") for pair in ("pr", "ps", "qr", "qs")]
    pairs += [(*pair, "not distinguishable") for pair in ("pq", "rs")]
    tests = pd.DataFrame(pairs, columns=NONE.columns)
    ranking = rank_methods(table.assign(order="a", measure="msrcc", value=value), "msrcc", tests)
    plot, text = Axes.plot, Axes.text
    monkeypatch.setattr(
        Axes, "plot", lambda self, *a, **k: (lines.append((a, k)), plot(self, *a, **k))[1]
    )
    monkeypatch.setattr(
        Axes, "text", lambda self, *a, **k: (texts.append(a), text(self, *a, **k))[1]
    )
    rank_diagrams({"msrcc": ranking})
    bars = [a[0] for a, k in lines if k.get("color") == "C3"]
    assert len(bars) == 2
    ranks = dict(ranking.ranks.itertuples(index=False, name=None))
    for bar, group in zip(bars, ({"p", "q"}, {"r", "s"}), strict=True):
        assert bar == sorted(ranks[name] for name in group)
    starts = sorted(a[0][0] for a, k in lines if k.get("color") == "0.25")
    assert starts == pytest.approx(sorted(ranks.values()))
    assert {a[2].split()[0] for a in texts if "(" in a[2]} == set("pqrs")


@pytest.mark.parametrize("methods", [2, 3, 9])
def test_diagrams_of_every_size_do_not_warn(methods: int) -> None:
    rng = np.random.default_rng(2)
    names = [f"a_method_with_a_long_name_{i}" for i in range(methods)]
    table = pd.DataFrame(itertools.product(names, range(6)), columns=["method", "split"])
    table = table.assign(order="a", measure="msrcc", value=rng.normal(size=len(table)))
    ranking = rank_methods(table, "msrcc", NONE)
    assert len(rank_diagrams({"msrcc": ranking, "mpi": ranking})) > 5000


def test_a_curve_below_the_usual_range_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    low, limits = results().cells.assign(srcc=-0.9), {}
    set_ylim = Axes.set_ylim
    monkeypatch.setattr(
        Axes,
        "set_ylim",
        lambda self, *a, **k: (limits.update({self: a}), set_ylim(self, *a, **k))[1],
    )
    drawing.task_curves(low)
    assert all(bounds[0] < -0.9 and bounds[1] > 1 for bounds in limits.values())
    assert limits


def test_a_small_spread_does_not_fill_the_height(monkeypatch: pytest.MonkeyPatch) -> None:
    titles, limits = [], []
    monkeypatch.setattr(Axes, "set_title", lambda axis, text, **_: titles.append(text))
    kept = Axes.set_ylim

    def noted(axis: Axes, *given: float, **options: object) -> object:
        limits.extend([given] if len(given) == 2 else [])
        return kept(axis, *given, **options)

    monkeypatch.setattr(Axes, "set_ylim", noted)
    table = results().measures
    table["value"] = 0.59 + 0.007 * (table["order"] == ORDERS[0])
    order_spread(table, pd.DataFrame())
    for (low, high), title in zip(limits, titles, strict=True):
        assert high - low == pytest.approx(0.1)
        assert low < 0.59
        assert high > 0.597
        assert title.endswith(f"(axis from {low:.2f} to {high:.2f})")


def test_re_indexed_orders_are_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    table, seen = results(), []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, *a, **k: (seen.append(a), plot(self, *a, **k))[1]
    )
    held = pd.DataFrame({"method": "x", "readout": ["gated", "gated", "latest"], "trained": "a>b+c",
                         "order": ["a>b+c", "b+c>a", "b+c>a"], "msrcc": [0.7, 0.6, 0.1], "mpsi": 0.5})  # fmt: skip
    order_spread(table.measures, held)
    dots = [list(a[1]) for a in seen if a[2] == "."]
    assert dots == [[0.6, 0.7], [], [0.5, 0.5], []]
    assert drawing.file_name("jl (joint)") == "jl_joint"
