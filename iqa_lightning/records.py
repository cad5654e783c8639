"""The files of a run folder; the only place that reads or writes them.

`predictions/after_<t>_<task>.parquet` is the ground truth of a run: one file per task in the order
of the stream, and `after_0_start.parquet` before any training. A task is called by its data set, a
joint task by its data sets joined with `+`. All else (`srcc_<readout>.csv`,
`stability_<readout>.csv`, `cells.csv`, where they exist `gate.csv` and `uncertainty.csv`,
`srcc.png`, `readouts` in `summary.json`) follows from the predictions and may be deleted. The same
content gives the same bytes. Every file is whole (`files.py`); the SHA-256 of predictions and
checkpoints are in `checksums.json` and are compared when read.
"""

import csv
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iqa_lightning.files import is_name, read_tensors, verify, write_bytes, write_sealed
from iqa_lightning.predictions import (
    READOUTS,
    START,
    checked,
    compare,
    read_predictions,
    to_parquet,
)

FILE = re.compile(r"after_(0|[1-9][0-9]*)_([^/]+)\.parquet")


SUMMARY = (
    *(
        "method",
        "order",
        "split",
        "split_hash",
        "seed",
        "seeds",
        "git",
        "package",
        "config_hash",
        "finished",
        "synthetic",
        "independent_tasks",
    ),
    *("readouts", "cost"),
)


class RunFolder:
    """The records of one run at `path`, which need not exist before something is written.

    Args:
        path: The run folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def write_predictions(self, t: int, task: str, frame: pd.DataFrame) -> Path:
        """Store the predictions made after task `t` (0: before any training, `task` is then
        `start`).

        Args:
            t: Number of the task, from 1.
            task: Its name; data sets learnt jointly are joined with `+`.
            frame: One row per image, in stream order: `dataset`, `split` (`val` or `test`),
                `image`, `mos` (higher is better), optionally `image/reference`, `image/distortion`,
                `image/scene` (see `OPTIONAL`) and `mos_std` (of the ratings, NaN where unknown), a
                column per readout, where there are heads `score/<task>` and `gate/<task>`, and
                where labels are predicted the probabilities `scene/<word>` and `distortion/<word>`
                (all: `PER_NAME`). NaN where there is no prediction. Scores are stored as float32.

        Returns:
            The file.

        Raises:
            ValueError: A column is missing, unknown or of the wrong kind, or a row is there twice.
        """
        path = self.path / "predictions" / f"after_{t}_{task}.parquet"
        if not (FILE.fullmatch(path.name) and is_name(task, "+")) or (t == 0) != (task == START):
            raise ValueError(
                f"'{task}' cannot name task {t}: 0 is '{START}', others take letters, digits, "
                "'_', '-', '+'"
            )
        content = to_parquet(checked(frame, path.name))
        write_sealed(self.path, path, lambda file: file.write(content))
        return path

    def predictions(self) -> dict[str, pd.DataFrame]:
        """All stored predictions by task, `start` first, in the order of the stream.

        Raises:
            ValueError: There are none, one is missing or unreadable, or two of them disagree about
                the images.
        """
        files = self._files()
        for path in files.values():
            verify(self.path, path)
        frames = {task: read_predictions(path) for task, path in files.items()}
        first = frames[START]
        for task, frame in frames.items():
            compare(files[START].name, first, files[task].name, frame)
        return frames

    def write_matrix(self, name: str, matrix: pd.DataFrame) -> None:
        """Store a matrix as `<name>.csv`: index `after`, one column per data set; NaN becomes an
        empty cell.
        """
        write_bytes(
            self.path / f"{name}.csv",
            matrix.to_csv(index_label="after", lineterminator="\n").encode(),
        )

    def read_matrix(self, name: str) -> pd.DataFrame:
        """The matrix stored as `<name>.csv`, bit for bit what was written.

        Raises:
            ValueError: There is none.
        """
        path = self.path / f"{name}.csv"
        if not path.is_file():
            raise ValueError(
                f"{path} is missing: `python -m iqa_lightning.evaluate run={self.path}` makes it "
                "again"
            )
        header, *rows = csv.reader(path.read_text().splitlines())
        cells = [[float(cell or "nan") for cell in row[1:]] for row in rows]
        return pd.DataFrame(
            cells, index=pd.Index([row[0] for row in rows], name="after"), columns=header[1:]
        )

    def matrices(self, kind: str) -> dict[str, pd.DataFrame]:
        """The stored matrices of a kind (`srcc` or `stability`) by readout.

        Raises:
            ValueError: There are none.
        """
        found = [readout for readout in READOUTS if (self.path / f"{kind}_{readout}.csv").is_file()]
        return {readout: self.read_matrix(f"{kind}_{readout}") for readout in found or READOUTS[:1]}

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Store a table (`cells`, `gate`, `uncertainty`) as `<name>.csv`; NaN becomes an empty
        cell.
        """
        write_bytes(
            self.path / f"{name}.csv", table.to_csv(index=False, lineterminator="\n").encode()
        )

    def write_summary(self, parts: Mapping[str, Any]) -> None:
        """Store `parts` in `summary.json`; keys that are there already and not in `parts` stay as
        they are.
        """
        merged = {**self.read_summary(), **parts}
        ordered = {key: merged[key] for key in (*SUMMARY, *merged) if key in merged}
        text = json.dumps(_plain(ordered), indent=2, ensure_ascii=False, allow_nan=False)
        write_bytes(self.path / "summary.json", f"{text}\n".encode())

    def read_summary(self) -> dict[str, Any]:
        """What `summary.json` holds; empty where there is none.

        Raises:
            ValueError: It is not JSON.
        """
        path = self.path / "summary.json"
        if not path.is_file():
            return {}
        try:
            return dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}); delete it and run the same command again"
            ) from error

    @property
    def finished(self) -> bool:
        """Whether the summary says that the run is finished."""
        return bool(self.read_summary().get("finished"))

    @property
    def begun(self) -> bool:
        """Whether anything is recorded that a new run would lose."""
        kept = ("predictions/after_*.parquet", "last.ckpt", "weights.safetensors")
        return any(next(self.path.glob(pattern), None) for pattern in kept)

    def write_derived(self, derived: Mapping[str, Any]) -> None:
        """Store what `metrics.matrices.derive` made of the predictions; the rest of the summary
        stays as it is.
        """
        for kind in ("srcc", "stability"):
            for readout, matrix in derived[kind].items():
                self.write_matrix(f"{kind}_{readout}", matrix)
        for name, table in {"cells": derived["cells"], **derived.get("audits", {})}.items():
            self.write_table(name, table)
        self.write_summary({"readouts": derived["readouts"]})

    def write_scale(self, tensors: Mapping[str, Any], metadata: str) -> None:
        """Store the common scale and the intervals (`metrics.scale`) in `scale.safetensors`.

        Args:
            tensors: arrays by name.
            metadata: JSON, under the key `scale`.
        """
        from safetensors.numpy import save  # noqa: PLC0415  # few need it

        content = {name: np.atleast_1d(values) for name, values in tensors.items()}
        write_bytes(self.path / "scale.safetensors", save(content, {"scale": metadata}))

    def read_scale(self) -> tuple[dict[str, Any], str]:
        """What `write_scale` was given.

        Raises:
            ValueError: It is missing or damaged.
        """
        again = f"`python -m iqa_lightning.evaluate run={self.path}` makes it again"
        tensors, metadata = read_tensors(self.path / "scale.safetensors", again)
        return tensors, metadata["scale"]

    def write_reference(self, tensors: Mapping[str, Any]) -> None:
        """Store in `reference.safetensors` what new images are compared with (`models.outside`)."""
        from safetensors.numpy import save  # noqa: PLC0415

        write_bytes(self.path / "reference.safetensors", save(dict(tensors)))

    def read_reference(self) -> dict[str, Any]:
        """What `write_reference` was given; empty where there is none, as in runs of old.

        Raises:
            ValueError: It is damaged.
        """
        path = self.path / "reference.safetensors"
        return read_tensors(path, "bring back a copy")[0] if path.is_file() else {}

    def write_figure(self, name: str, png: bytes) -> Path:
        """Store a picture as `<name>.png` and return its path."""
        write_bytes(self.path / f"{name}.png", png)
        return self.path / f"{name}.png"

    def clean(self) -> None:
        """Remove what a killed writer left behind; only for the one process that owns the run."""
        for folder in (
            self.path,
            *(self.path / name for name in ("predictions", "tasks", "latest")),
        ):
            for left in folder.glob(".*.part"):
                left.unlink(missing_ok=True)

    def _files(self) -> dict[str, Path]:
        if not self.path.is_dir():
            raise ValueError(f"there is no run folder {self.path}")
        found: dict[int, tuple[str, Path]] = {}
        for path in sorted((self.path / "predictions").glob("[!.]*.parquet")):
            match = FILE.fullmatch(path.name)
            if match is None or not is_name(match[2], "+"):
                raise ValueError(f"{path} is not named after_<t>_<task>.parquet: move it elsewhere")
            t, task = int(match[1]), match[2]
            if t in found:
                raise ValueError(
                    f"{path} and {found[t][1].name} are both task {t}: one of them is of another "
                    "run"
                )
            if task in (name for name, _ in found.values()):
                raise ValueError(
                    f"{path}: another file in this folder is after '{task}' too: names are given "
                    "once"
                )
            found[t] = task, path
        if not found:
            raise ValueError(
                f"{self.path} holds no predictions/after_<t>_<task>.parquet: is it a run folder?"
            )
        for t in range(max(found) + 1):
            if t not in found or (t == 0 and found[0][0] != START):
                raise ValueError(
                    f"{self.path}/predictions lacks "
                    f"after_{t}_{START if t == 0 else '<task>'}.parquet"
                )
        return {task: path for _, (task, path) in sorted(found.items())}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
