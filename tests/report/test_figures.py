"""Heat maps: the same numbers give the same bytes, and what must be seen is in the pixels."""

import io
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from PIL import Image

from iqa_lightning.records import RunFolder
from iqa_lightning.report.figures import NEGATIVE, heat_map, heat_maps, matrix_figure

ROOT = Path(__file__).resolve().parents[2]
NAN = math.nan


def matrix(*rows: list[float]) -> pd.DataFrame:
    names = ["a", "b", "c"]
    return pd.DataFrame(
        rows,
        index=pd.Index(["start", *names[: len(rows) - 1]], name="after"),
        columns=names[: len(rows[0])],
    )


def pixels(png: bytes, colour: str | tuple[float, ...]) -> int:
    """How many pixels have a colour, given as #rrggbb or as fractions."""
    if isinstance(colour, str):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    else:
        rgb = [int(255 * x) for x in colour[:3]]
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)
    return int((np.abs(image - rgb).max(axis=2) <= 1).sum())


CALM = matrix([0.2, 0.1], [0.8, 0.3], [0.7, 0.9])


def test_the_same_numbers_give_the_same_bytes_in_any_thread() -> None:
    expected = heat_map(CALM, "SRCC")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: heat_map(CALM, "SRCC"), range(6))) == {expected}
    assert heat_map(CALM + 0.01, "SRCC") != expected


def test_the_picture_names_no_software_and_no_date() -> None:
    image = Image.open(io.BytesIO(heat_map(CALM, "SRCC")))
    image.load()
    assert image.format == "PNG"
    assert not {"Software", "Creation Time", "date"} & set(image.info)


def test_negative_values_have_a_colour_of_their_own() -> None:
    cold = CALM.copy()
    cold.iloc[0, 1] = -0.4
    assert (
        pixels(heat_map(cold, "SRCC"), NEGATIVE) > pixels(heat_map(CALM, "SRCC"), NEGATIVE) + 2000
    )


def test_the_scale_is_fixed_from_zero_to_one() -> None:
    """A cell of 0.5 has the colour of the middle whatever the other cells hold."""
    middle = colormaps["viridis"](0.5)
    for other in (0.0, 0.49, 1.0):
        assert pixels(heat_map(matrix([other], [0.5]), "SRCC"), middle) > 2000


def test_missing_values_are_hatched_not_coloured() -> None:
    bottom = colormaps["viridis"](0.0)
    gap = heat_map(matrix([NAN], [0.5]), "SRCC")
    zero = heat_map(matrix([0.0], [0.5]), "SRCC")
    assert pixels(zero, bottom) > pixels(gap, bottom) + 2000
    assert pixels(gap, (0.96, 0.96, 0.96)) > 500


def test_just_learnt_cells_are_outlined() -> None:
    learnt, not_yet = heat_map(CALM, "SRCC"), heat_map(CALM.set_axis(["start", "b", "a"]), "SRCC")
    assert learnt != not_yet
    assert (
        abs(pixels(learnt, (0, 0, 0)) - pixels(not_yet, (0, 0, 0))) < 600
    )  # outlines move, they do not vanish
    assert pixels(learnt, (0, 0, 0)) > pixels(heat_map(CALM.iloc[:1], "SRCC"), (0, 0, 0)) + 1000


def test_synthetic_targets_change_the_title() -> None:
    assert heat_map(CALM, "SRCC", synthetic=True) != heat_map(CALM, "SRCC")


@pytest.mark.parametrize(("tasks", "panels"), [(1, 1), (4, 3), (11, 2)])
def test_every_size_is_drawn_without_a_warning(tasks: int, panels: int) -> None:
    names = [f"some_data_set_{i}" for i in range(tasks)]
    values = np.random.default_rng(0).uniform(-0.2, 1, (tasks + 1, tasks))
    table = pd.DataFrame(values, index=pd.Index(["start", *names], name="after"), columns=names)
    image = Image.open(
        io.BytesIO(
            heat_maps({f"readout {i}": table for i in range(panels)}, "SRCC on the test sets")
        )
    )
    assert image.width > 90 * tasks * panels
    assert image.height > 90 * (tasks + 1)


def test_the_figure_of_a_run_folder_has_a_panel_per_readout(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ValueError, match=r"srcc_single.csv is missing"):
        matrix_figure(tmp_path)
    folder.write_matrix("srcc_latest", CALM)
    one, middle = matrix_figure(tmp_path), CALM * 0 + 0.5
    folder.write_matrix("srcc_gated", middle)
    two = matrix_figure(str(tmp_path))
    assert (
        pixels(two, colormaps["viridis"](0.5)) > pixels(one, colormaps["viridis"](0.5)) + 6 * 2000
    )


@pytest.mark.slow
def test_no_window_system_is_asked_for() -> None:
    code = "import sys, iqa_lightning.report.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
