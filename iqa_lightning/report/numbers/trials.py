"""How the values of a table's methods were chosen: `tuning.csv`, which `tune` writes. No torch in
here.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "tuning.csv"


COLUMNS = ("method", "trial", "values", "score", "seconds")


@dataclass(frozen=True)
class Trial:
    """What came of one: `values` by the key within the method; `score` is the mean SRCC on the
    validation parts of its tasks, NaN where the run failed; `seconds` are those of its training.
    """

    method: str
    number: int
    values: dict[str, Any]
    score: float
    seconds: float


def winner(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest score; the first of equals.

    Raises:
        ValueError: None has a score.
    """
    scored = [trial for trial in trials if not math.isnan(trial.score)]
    if not scored:
        raise ValueError(
            f"{trials[0].method}: no trial ended with a score; what stopped them is in their logs"
        )
    return max(scored, key=lambda trial: trial.score)


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """All trials of a table, values as JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for trial in trials:
        values = json.dumps(trial.values, sort_keys=True)
        row = (trial.method, trial.number, values, f"{trial.score:.6f}", f"{trial.seconds:.0f}")
        writer.writerow(row)
    (folder / FILE).write_text(text.getvalue(), encoding="utf-8")


def read_trials(folder: Path) -> list[Trial]:
    """The trials of a table; none where it has no such file.

    Raises:
        ValueError: A row is not what `write_trials` writes.
    """
    file = folder / FILE
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    try:
        return [
            Trial(
                row["method"],
                int(row["trial"]),
                json.loads(row["values"]),
                float(row["score"]),
                float(row["seconds"]),
            )
            for row in rows
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"{file} is not what `tune` writes ({error}): make it again with "
            f"`iqa-lightning tune table={folder.name}`, or delete it"
        ) from error
