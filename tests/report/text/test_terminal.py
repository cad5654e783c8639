"""Matrices as text: literal output for plain text, styles of single cells for a terminal."""

import io
import math
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from iqa_lightning.metrics.matrices import derive
from iqa_lightning.report.text.terminal import (
    matrix_text,
    number,
    print_matrix,
    print_run,
    summary_line,
    undefined_cells,
)

NAN = math.nan
MATRIX = pd.DataFrame(
    [[0.1, -0.05, NAN], [0.8, 0.3, NAN], [0.75, 0.9123, 0.5]],
    index=pd.Index(["start", "a", "b+long_name"], name="after"),
    columns=["a", "b", "long_name"],
)
PLAIN = """\
SRCC; zero-shot in parentheses
after              a         b  long_name
start        (0.100)  (-0.050)         -
a             0.800    (0.300)         -
b+long_name   0.750     0.912      0.500
"""


def printed(terminal: bool, **options) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        force_terminal=terminal,
        color_system="truecolor" if terminal else None,
        width=100,
    )
    print_matrix(MATRIX, "SRCC", console, **options)
    return stream.getvalue()


def test_plain_text() -> None:
    lines = [line.rstrip() for line in matrix_text(MATRIX, "SRCC").splitlines()]
    assert lines == [line.rstrip() for line in PLAIN.splitlines()]


def test_a_file_gets_plain_text_of_full_width() -> None:
    names = [f"data_set_{i}" for i in range(20)]
    wide = pd.DataFrame(
        np.full((1, 20), 0.5), index=pd.Index(["start"], name="after"), columns=names
    )
    stream = io.StringIO()
    print_matrix(wide, "[wide]", Console(file=stream, width=40))
    assert stream.getvalue().strip() == matrix_text(wide, "[wide]").strip()
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_colours_and_weights(monkeypatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    styles = {
        value: style
        for style, value in re.findall(r"\x1b\[([0-9;]+)m(-?[0-9.]+)\x1b", printed(True))
    }
    assert styles["0.750"].startswith("1;38;2;")  # bold: learnt
    assert styles["0.800"].startswith("1;4;38;2;")  # underlined: just learnt
    assert styles["0.300"].startswith("2;38;2;")  # dim: zero-shot
    red, green, _ = map(int, styles["0.912"].split(";")[-3:])
    assert green > red
    red, green, _ = map(int, styles["0.100"].split(";")[-3:])
    assert red > green
    assert "dim: zero-shot" in printed(True)


@pytest.mark.parametrize("terminal", [True, False])
def test_synthetic_targets_are_named(terminal: bool) -> None:
    assert "synthetic target" in printed(terminal, synthetic=True)
    assert "synthetic target" not in printed(terminal)


def test_summary_line() -> None:
    measures = {
        "msrcc": 0.81549,
        "area": 0.868,
        "mpi": 0.87,
        "msi": 1.0,
        "mpsi": 0.935,
        "bwt": -0.066,
        "fwt": None,
        "fwt_gem": 0.1,
        "forgetting": NAN,
    }
    expected = "gated:   mSRCC 0.815  area 0.868  mPI 0.870  mSI 1.000  mPSI 0.935  BWT -0.066  FWT n/a  forgetting n/a"
    assert summary_line("gated", measures) == expected
    assert summary_line("gated", measures, synthetic=True) == f"{expected}  (synthetic target)"
    assert "2 learnt cells without a value" in summary_line("gated", measures, 2)


def test_undefined_cells_are_the_learnt_ones() -> None:
    assert undefined_cells(MATRIX) == 0
    assert undefined_cells(MATRIX.replace({0.75: NAN, 0.3: NAN})) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.7456, "0.746"),
        (-0.0004, "0.000"),
        (-0.0006, "-0.001"),
        (1.0, "1.000"),
        (NAN, "-"),
        (None, "-"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_number_rounds_and_does_not_cut() -> None:
    assert number(0.868, digits=2) == "0.87"


def test_print_run_prints_both_matrices_and_a_line_of_each_readout() -> None:
    random = np.random.default_rng(0)
    base = pd.DataFrame(
        {"dataset": ["a"] * 9 + ["b"] * 9, "split": "test", "mos": random.normal(size=18)}
    )
    base["image"] = [f"{i}.png" for i in range(18)]
    predictions = {
        task: base.assign(latest=random.normal(size=18), gated=0.5) for task in ("start", "a", "b")
    }
    stream = io.StringIO()
    print_run(derive(predictions), Console(file=stream, width=60), synthetic=True)
    text = stream.getvalue()
    for title in ("SRCC, latest", "stability, latest", "SRCC, gated", "stability, gated"):
        assert f"{title} (synthetic target)" in text
    assert re.search(r"^latest: +mSRCC -?0\.\d{3} .*\(synthetic target\)$", text, re.MULTILINE)
    assert re.search(r"^gated: +mSRCC n/a .*\(3 learnt cells without a value", text, re.MULTILINE)
