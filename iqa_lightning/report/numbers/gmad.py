"""Pairs of images about which two models disagree most while one of them calls them equal.

Such pairs need no rated pool to falsify a model: whoever looks at one sees which of the two is
wrong. Ma et al., "Group maximum differentiation competition: model comparison with few samples",
IEEE TPAMI 42 (2020), https://doi.org/10.1109/TPAMI.2018.2889948. Scores of models have no common
scale, so that "equal" and "differ" are said in ranks here: fractions of the pool, from 0 (worst) to
1 (best).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from iqa_lightning.metrics.correlation import paired
from iqa_lightning.metrics.matrices import readouts_of
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.difference import paired_images
from iqa_lightning.report.numbers.forgetting import unit_rank
from iqa_lightning.report.numbers.verdicts import used_readout

LEVELS = 10


PAIR = ["level", "better", "worse", "defender_gap", "attacker_gap"]


COLUMNS = [
    "dataset",
    "defender",
    "level",
    "better",
    "worse",
    "defender_gap",
    "attacker_gap",
    "rated_gap",
    "right",
]


def gmad_pairs(defender: ArrayLike, attacker: ArrayLike, levels: int = LEVELS) -> pd.DataFrame:
    """The attacker's most different pair within each of the levels at which the defender sees no
    difference.

    The pool is cut into `levels` levels of equal size along the defender's scores (fewer where a
    level would not hold two images); a level holds images that are neighbours for the defender.

    Args:
        defender: (images,) scores of the model that is put to the test, higher is better.
        attacker: (images,) scores of the model that looks for its mistakes.
        levels: into how many the pool is cut; more of them make the defender's gap smaller.

    Returns:
        A row per level, level 1 being the defender's worst: `level`, `better` and `worse`
        (positions in the pool, as the attacker sees them), `defender_gap` and `attacker_gap` (rank
        of `better` minus rank of `worse` for each; the latter is never negative). No rows where
        scores are missing or there are fewer than two images.

    Raises:
        ValueError: The two do not rate the same images, or there are no levels.
    """
    d, a = paired(defender, attacker)
    if levels < 1:
        raise ValueError(f"levels={levels}: a pool is cut into 1 level or more")
    if len(d) < 2 or not np.isfinite(d).all() or not np.isfinite(a).all():
        return pd.DataFrame(columns=PAIR)
    one, other = unit_rank(d), unit_rank(a)
    rows = []
    for level, members in enumerate(level_sets(d, levels), 1):
        worse, better = members[a[members].argmin()], members[a[members].argmax()]
        rows.append([level, better, worse, one[better] - one[worse], other[better] - other[worse]])
    return pd.DataFrame(rows, columns=PAIR)


def level_sets(scores: NDArray[np.float64], levels: int) -> list[NDArray[np.int64]]:
    """Positions of neighbouring images, the lowest first; ties in the order of the pool."""
    order = np.argsort(scores, kind="stable")
    return [np.sort(part) for part in np.array_split(order, max(1, min(levels, len(order) // 2)))]


def gmad(
    first: pd.DataFrame, second: pd.DataFrame, readouts: Sequence[str], levels: int = LEVELS
) -> pd.DataFrame:
    """The pairs of two sets of predictions, each defending once, largest disagreement first.

    Every data set is a pool of its own: its test images.

    Args:
        first: predictions of one model after one task.
        second: those of another model, or of the same after another task, of the same images in any
            order.
        readouts: the readout of each.
        levels: as in `gmad_pairs`.

    Returns:
        `dataset`, `defender` (`first` or `second`), `level`, `better` and `worse` (images, as the
        attacker sees them), `defender_gap`, `attacker_gap`, `rated_gap` (rank by model or MOS of
        `better` minus that of `worse`) and `right` (`defender` or `attacker`: whose gap is nearer
        to that of the ratings).

    Raises:
        ValueError: They do not hold the same test images.
    """
    parts = [
        one_role(*pool, role, levels)
        for pool in pools(first, second, readouts)
        for role in ("first", "second")
    ]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    keys = table.assign(
        gap=-(table["attacker_gap"] - table["defender_gap"].abs()).astype(float).round(9)
    )
    order = keys.sort_values("gap", kind="stable").index
    return table.loc[order, COLUMNS].reset_index(drop=True)


def pools(
    first: pd.DataFrame, second: pd.DataFrame, readouts: Sequence[str]
) -> Iterator[tuple[pd.DataFrame, NDArray[np.float64], NDArray[np.float64]]]:
    """Images of each data set, and the scores of both models."""
    for name in dict.fromkeys(first["dataset"]):
        one, other = paired_images(first, second, str(name))
        yield one, one[readouts[0]].to_numpy(np.float64), other[readouts[1]].to_numpy(np.float64)


def one_role(
    images: pd.DataFrame,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    role: str,
    levels: int,
) -> pd.DataFrame:
    """Pairs of a pool in which `role` (`first` or `second`) defends."""
    pairs = gmad_pairs(*((first, second) if role == "first" else (second, first)), levels)
    better, worse = (images.iloc[pairs[side].to_numpy(np.int64)] for side in ("better", "worse"))
    rated = unit_rank(images["mos"].to_numpy(np.float64))
    gap = rated[pairs["better"].to_numpy(np.int64)] - rated[pairs["worse"].to_numpy(np.int64)]
    says = (pairs["attacker_gap"] + pairs["defender_gap"]).to_numpy(np.float64) / 2
    return pairs.assign(
        dataset=images["dataset"].iloc[0] if len(images) else "",
        defender=role,
        better=better["image"].to_numpy(),
        worse=worse["image"].to_numpy(),
        rated_gap=gap,
        right=np.where(gap > says, "attacker", "defender"),
    )


def gmad_text(first: str, second: str, levels: int = LEVELS, count: int = 20) -> str:
    """The pairs about which two states disagree most; a state is `<run folder>` or `<run
    folder>@<task>`.

    Raises:
        ValueError: There is no such run or task, or they do not hold the same test images.
    """
    states = [state_of(text) for text in (first, second)]
    readouts = [chosen_readout(frame) for _, frame, _ in states]
    table = gmad(states[0][1], states[1][1], readouts, levels)
    lines = [
        f"{role:<7} {folder} after {task}, {readout}"
        for role, (folder, _, task), readout in zip(
            ("first", "second"), states, readouts, strict=True
        )
    ]
    lines += [
        "",
        "pairs that the defender calls equal and the attacker tells apart most (gaps in ranks, 0 "
        "to 1)",
    ]
    lines.append(table.head(count).to_string(index=False, float_format="%.3f", na_rep="-"))
    sides = table.groupby(["defender", "right"]).size()
    for role in ("first", "second"):
        won, lost = (int(sides.get((role, side), 0)) for side in ("defender", "attacker"))
        lines.append(f"{role} defends: the ratings side with it on {won} of {won + lost} pairs")
    return "\n".join(lines)


def state_of(text: str) -> tuple[str, pd.DataFrame, str]:
    """Folder, predictions and task of `<run folder>[@<task>]`; without a task it is the last.

    Raises:
        ValueError: There is no such run, or it has not learnt that task.
    """
    folder, _, task = (
        text.rpartition("@") if "@" in text and not Path(text).is_dir() else (text, "", "")
    )
    predictions = RunFolder(folder).predictions()
    if task and task not in predictions:
        raise ValueError(
            f"{folder} holds no predictions after '{task}'; there are {', '.join(predictions)}"
        )
    task = task or list(predictions)[-1]
    return folder, predictions[task], task


def chosen_readout(frame: pd.DataFrame) -> str:
    """The readout that a method is used with."""
    return used_readout(readouts_of(frame))
