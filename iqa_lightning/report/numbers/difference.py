"""Two runs side by side: what differs in their configs, in their cells, and which images moved
most.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from iqa_lightning.metrics.matrices import readouts_of
from iqa_lightning.metrics.resampling import (
    bootstrap_interval,
    content_weights,
    contents_of,
    correlation,
    dataset_seed,
    unit_ranks,
)
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.forgetting import unit_rank

Predictions = dict[str, pd.DataFrame]


def cell_differences(
    first: Predictions, second: Predictions, resamples: int = 1000
) -> pd.DataFrame:
    """SRCC of the second run minus the first, cell by cell, with 95 % intervals of paired
    resamples.

    Where the orders differ only the final rows are compared (`after` is then `the last task`).

    Returns:
        Columns `readout`, `after`, `dataset`, `first`, `second`, `difference`, `low`, `high`, `at 5
        %`: whether image sampling leaves a difference (one of twenty cells is said to differ by
        chance; another seed is not in it).

    Raises:
        ValueError: The runs have no readout in common, or do not hold the same test images.
    """
    rows = []
    for readout in common_readouts(first, second):
        for after, one, other in compared_rows(first, second):
            for name in dict.fromkeys(one["dataset"]):
                a, b = paired_images(one, other, str(name))
                contents = contents_of(a, str(name))
                weights = content_weights(contents, resamples, seed=dataset_seed(str(name)))
                mos, x, y = (
                    unit_ranks(frame[column].to_numpy(np.float64), weights)
                    for frame, column in ((a, "mos"), (a, readout), (b, readout))
                )
                before, now = correlation(x, mos), correlation(y, mos)
                low, high = bootstrap_interval((now - before)[1:], len(set(contents)))
                cell = {
                    "readout": readout,
                    "after": after,
                    "dataset": name,
                    "first": before[0],
                    "second": now[0],
                }
                cell |= {"difference": now[0] - before[0], "low": float(low), "high": float(high)}
                said = (
                    "differ"
                    if low > 0 or high < 0
                    else "not distinguishable"
                    if low <= high
                    else ""
                )
                rows.append(cell | {"at 5 %": said})
    return pd.DataFrame(rows)


def moved_images(first: Predictions, second: Predictions, count: int = 20) -> pd.DataFrame:
    """Test images whose rank within their data set moved most between the final predictions of two
    runs.

    Returns:
        Columns `readout`, `dataset`, `image`, `mos`, `first` and `second` (rank from 0 to 1, higher
        is better), `moved` (their difference); largest movement first.

    Raises:
        ValueError: see `cell_differences`.
    """
    readout = common_readouts(first, second)[0]
    *_, (_, one, other) = compared_rows(first, second)
    parts = []
    for name in dict.fromkeys(one["dataset"]):
        a, b = paired_images(one, other, str(name))
        ranks = [unit_rank(frame[readout]) for frame in (a, b)]
        part = a[["dataset", "image", "mos"]].assign(
            first=ranks[0], second=ranks[1], moved=ranks[1] - ranks[0]
        )
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    order = table["moved"].abs().sort_values(ascending=False, kind="stable").index[:count]
    table.insert(0, "readout", readout)
    return table.loc[order].reset_index(drop=True)


def difference_text(
    first: str, second: str, changes: Mapping[str, tuple[Any, Any]], resamples: int = 1000
) -> str:
    """What differs between two run folders: configs (`changes`: both values by key), cells with
    intervals, the images that moved most.

    Raises:
        ValueError: see `cell_differences`.
    """
    one, other = (RunFolder(folder).predictions() for folder in (first, second))
    synthetic = any(RunFolder(folder).read_summary().get("synthetic") for folder in (first, second))
    target = " (synthetic target)" if synthetic else ""
    lines = [
        f"first   {first}",
        f"second  {second}",
        "",
        f"config{'' if changes else ': no difference'}",
    ]
    lines += [f"  {key}: {before} -> {after}" for key, (before, after) in changes.items()]
    for title, table in (
        (
            f"SRCC{target}, second - first, 95 % interval of image sampling",
            cell_differences(one, other, resamples),
        ),
        (f"images whose rank moved most{target}", moved_images(one, other)),
    ):
        lines += ["", title, table.to_string(index=False, float_format="%.3f", na_rep="-")]
    return "\n".join(lines)


def common_readouts(first: Predictions, second: Predictions) -> list[str]:
    """Readouts that both runs have, the most honest first.

    Raises:
        ValueError: There is none.
    """
    one, other = (readouts_of(next(iter(run.values()))) for run in (first, second))
    common: list[str] = [
        name for name in ("gated", "single", "latest", "oracle") if name in one and name in other
    ]
    if not common:
        raise ValueError(
            f"the runs have no readout in common: {', '.join(one)} there, {', '.join(other)} here"
        )
    return common


def compared_rows(
    first: Predictions, second: Predictions
) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Rows of the two matrices that mean the same."""
    if list(first) == list(second):
        yield from ((after, first[after], second[after]) for after in first)
    else:
        yield "the last task", list(first.values())[-1], list(second.values())[-1]


def paired_images(
    one: pd.DataFrame, other: pd.DataFrame, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test images of a data set in both runs, in one order.

    Raises:
        ValueError: They are not the same images with the same ratings.
    """
    a, b = (
        frame[(frame["dataset"] == name) & (frame["split"] == "test")].sort_values(
            "image", kind="stable"
        )
        for frame in (one, other)
    )
    if list(a["image"]) != list(b["image"]) or list(a["mos"]) != list(b["mos"]):
        raise ValueError(
            f"the runs do not hold the same test images of '{name}': their splits or data differ"
        )
    return a, b
