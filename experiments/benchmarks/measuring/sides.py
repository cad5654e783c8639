"""Times of two or more ways to do the same, taken in turns, so that what else the machine does hits
all alike.
"""

import csv
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np

RESULTS = Path(__file__).resolve().parents[1] / "results"


def in_turns(
    ways: Mapping[str, Callable[[], object]],
    repeats: int = 9,
    warmup: int = 2,
    clock: Callable[[], float] = process_time,
) -> dict[str, list[float]]:
    """Seconds of each way, `repeats` times A B A B ...; processor time, which other processes
    disturb least.

    The order turns round with each repeat, so that none always comes after the same other.
    """
    for _ in range(warmup):
        for way in ways.values():
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    gc.collect()
    gc.disable()
    for turn in range(repeats):
        for name in list(ways) if turn % 2 == 0 else list(ways)[::-1]:
            start = clock()
            ways[name]()
            seconds[name].append(clock() - start)
    gc.enable()
    return seconds


def ratio(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Median of the ratios one/other turn by turn, and their quartiles."""
    ratios = np.divide(one, other)
    low, high = np.quantile(ratios, [0.25, 0.75])
    return float(np.median(ratios)), float(low), float(high)


def compared(
    what: str, one: Sequence[float], other: Sequence[float], limit: float | None = None
) -> list[str]:
    """A row of a table: medians in milliseconds, ratio with its quartiles, the promise and whether
    it holds.
    """
    middle, low, high = ratio(one, other)
    kept = "" if limit is None else ("yes" if middle <= limit else "no")
    cells = [
        f"{1000 * median(one):.1f}",
        f"{1000 * median(other):.1f}",
        f"{middle:.3f}",
        f"{low:.3f}-{high:.3f}",
    ]
    return [what, *cells, "" if limit is None else f"<= {limit:g}", kept]


HEADER = ["measure", "ours ms", "other ms", "ratio", "quartiles", "promised", "kept"]


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log(values) over log(sizes): 0 constant, 1 linear, 2 quadratic."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def show(name: str, rows: Sequence[Sequence[str]]) -> None:
    """Print the rows, the first being the header, and write results/<name>.csv."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    for row in rows:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        print("  ".join(cells).rstrip())
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="") as text:
        csv.writer(text, lineterminator="\n").writerows(rows)
    sys.stdout.flush()
