"""Heat maps of the matrices of a run, as PNG bytes that are the same whenever the numbers are the
same.
"""

import io
import math
import os
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from iqa_lightning.metrics.matrices import task_of_dataset
from iqa_lightning.records import RunFolder
from iqa_lightning.report.text.escaping import figure_text
from iqa_lightning.report.text.terminal import SYNTHETIC, number

TITLES = {"srcc": "SRCC", "stability": "SRCC with the predictions made right after learning"}


CELL = 0.62  # inches


LONGEST = 3500  # pixels of a side


NEGATIVE = "#8c3b4a"


SCALE = Normalize(0.0, 1.0)


def matrix_figure(
    folder: str | os.PathLike[str], kind: str = "srcc", synthetic: bool = False
) -> bytes:
    """The matrices of a run folder as one PNG picture with a panel per readout.

    Args:
        folder: The run folder.
        kind: `srcc` or `stability`.
        synthetic: Whether the targets are no human ratings, which the title then says.

    Raises:
        ValueError: The folder holds no such matrices.
    """
    return heat_maps(RunFolder(folder).matrices(kind), TITLES[kind], synthetic)


def heat_map(matrix: pd.DataFrame, title: str, synthetic: bool = False) -> bytes:
    """One matrix as a PNG picture; see `heat_maps`."""
    return heat_maps({"": matrix}, title, synthetic)


def heat_maps(matrices: Mapping[str, pd.DataFrame], title: str, synthetic: bool = False) -> bytes:
    """Matrices of one run side by side as a PNG picture.

    Rows are the states after each task, columns the data sets. The colour scale always reaches from
    0 to 1, with a colour of its own for what is negative; cells that were just learnt are outlined,
    zero-shot ones are in italics, those without a value hatched.

    Args:
        matrices: By the name of their panel; index `after` (`start`, then the tasks), one column
            per data set.
        title: What the numbers are.
        synthetic: Whether the targets are no human ratings, which the title then says.
    """
    rows, columns = next(iter(matrices.values())).shape
    labels = max(
        len(str(name)) for matrix in matrices.values() for name in (*matrix.index, *matrix.columns)
    )
    title = f"{title}\n{SYNTHETIC}" if synthetic else title
    width = max(
        len(matrices) * (columns * CELL + 0.15) + 0.085 * labels + 1.5,
        0.125 * len(title.split("\n")[0]),
        5.0,
    )
    figure = Figure(figsize=(width, rows * CELL + 0.06 * labels + 1.6), layout="compressed")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(matrices), squeeze=False, sharey=True)[0]
    colours = colormaps["viridis"].with_extremes(under=NEGATIVE, bad="white")
    for axis, (name, matrix) in zip(axes, matrices.items(), strict=True):
        _draw(axis, matrix, colours)
        axis.set_title(figure_text(name), fontsize=11)
    axes[0].set_ylabel("after task", fontsize=10)
    figure.colorbar(
        ScalarMappable(SCALE, colours), ax=list(axes), extend="min", shrink=0.9, pad=0.02, aspect=25
    )
    figure.suptitle(figure_text(title), fontsize=13, fontweight="bold")
    figure.supxlabel(
        "outlined: just learnt    italics: zero-shot    hatched: no value", fontsize=9, color="0.35"
    )
    picture = io.BytesIO()
    dpi = min(150, LONGEST / max(figure.get_size_inches()))  # long streams have many cells
    figure.savefig(
        picture, format="png", dpi=dpi, metadata={"Software": None}
    )  # whose version changes the bytes
    return picture.getvalue()


def _draw(axis: Axes, matrix: pd.DataFrame, colours: Colormap) -> None:
    values = matrix.to_numpy(np.float64)
    axis.imshow(np.ma.masked_invalid(values), cmap=colours, norm=SCALE, aspect="equal")
    learnt = task_of_dataset(list(matrix.index), list(matrix.columns))
    for (t, d), value in np.ndenumerate(values):
        corner = d - 0.5, t - 0.5
        if math.isnan(value):
            axis.add_patch(
                Rectangle(
                    corner, 1, 1, hatch="////", facecolor="0.96", edgecolor="0.75", linewidth=0
                )
            )
        else:
            slant = "italic" if t < learnt[d] else "normal"
            axis.text(
                d,
                t,
                number(value, digits=2),
                ha="center",
                va="center",
                fontsize=9,
                style=slant,
                color=_ink(value, colours),
            )
        if t == learnt[d]:
            inset = corner[0] + 0.04, corner[1] + 0.04
            axis.add_patch(
                Rectangle(inset, 0.92, 0.92, fill=False, edgecolor="black", linewidth=2.2, zorder=3)
            )
    axis.set_xticks(
        range(len(matrix.columns)),
        [figure_text(str(name)) for name in matrix.columns],
        rotation=40,
        ha="right",
        rotation_mode="anchor",
    )
    axis.set_yticks(range(len(matrix.index)), [figure_text(str(name)) for name in matrix.index])
    axis.set_xticks(np.arange(len(matrix.columns) - 1) + 0.5, minor=True)
    axis.set_yticks(np.arange(len(matrix.index) - 1) + 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1.2)
    axis.tick_params(which="both", length=0, labelsize=10)
    axis.spines[:].set_visible(False)


def _ink(value: float, colours: Colormap) -> str:
    red, green, blue, _ = colours(SCALE(value))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
