"""Names of users are text wherever they are printed."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from iqa_lightning.report.figures import heat_map
from iqa_lightning.report.text.escaping import (
    figure_text,
    latex_text,
    markdown_text,
    terminal_text,
)
from iqa_lightning.report.text.paper import grid, latex_table
from iqa_lightning.report.text.terminal import print_matrix
from iqa_lightning.runs import start

ODD = "a|b_c&d<e=f[g]{h}$i$%j*k"


def test_latex_takes_it_as_text() -> None:
    table = latex_table(ODD, ["method", "x"], [["[a]", "1"], ["*b", "2"], [ODD, "3"]])
    rows = [line for line in table.splitlines() if line.endswith("\\\\")]
    assert rows[1] == r"{}[a] & 1 \\"
    assert rows[2] == r"{}*b & 2 \\"
    assert rows[3].startswith(r"a\textbar{}b\_c\&d\textless{}e=f[g]\{h\}\$i\$\%j*k & 3")


def test_markdown_takes_it_as_one_cell() -> None:
    row = grid(["method", "x"], [[ODD, "1"]]).splitlines()[-1]
    assert row.replace("\\|", "").count("|") == 3
    assert "<" not in row
    assert markdown_text("<script>") == "&lt;script>"


@pytest.mark.parametrize("name", [ODD, "_leading", "$x$", "a$"])
def test_figures_draw_it_as_it_stands(name: str) -> None:
    figure = Figure()
    text = figure.text(0, 0, figure_text(name))
    shown, is_math = text._preprocess_math(text.get_text())
    assert shown.strip() == name
    assert not is_math
    assert not figure_text(name).startswith("_"), "matplotlib leaves such a name out of legends"
    index = pd.Index(["start", name], name="after")
    assert heat_map(pd.DataFrame([[np.nan], [0.5]], index=index, columns=[name]), name)


@pytest.mark.parametrize("terminal", [True, False])
def test_rich_prints_it_as_it_stands(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, color_system=None)
    name = "[bold]x[/bold]"
    index = pd.Index(["start", name], name="after")
    print_matrix(pd.DataFrame([[0.1], [0.5]], index=index, columns=[name]), "[red]t", console)
    assert out.getvalue().count(name) == 2
    assert "[red]t" in out.getvalue()


def test_a_name_steers_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]0;title\x07\x1b[31m.png"
    assert terminal_text(evil) == r"a\x1b]0;title\x07\x1b[31m.png"
    with pytest.raises(SystemExit), start.one_line():
        raise ValueError(f"{evil} is no image")
    assert "\x1b" not in capfd.readouterr().err
    assert terminal_text("照片 é\n") == "照片 é\n"


def test_latex_of_usual_names_is_as_before() -> None:
    assert latex_text("tsn_iqa [low, high]") == r"tsn\_iqa [low, high]"
