"""The files of a run folder; the only place that reads or writes them.

`predictions/after_<t>_<task>.parquet` is the ground truth of a run: one file per task in the order
of the stream, and `after_0_start.parquet` before any training. A task is called by its data set, a
joint task by its data sets joined with `+`. All else (`srcc_<readout>.csv`,
`stability_<readout>.csv`, `cells.csv`, where they exist `gate.csv` and `uncertainty.csv`,
`srcc.png`, `readouts` in `summary.json`) follows from the predictions and may be deleted. The same
content gives the same bytes. Every file is written under a temporary name and renamed, so that a
crash leaves the old file or the new one and never half of one. `checksums.json` holds the SHA-256
of predictions and checkpoints; they are compared when read.
"""

import csv
import hashlib
import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

IDENTITY = {"dataset": pa.string(), "split": pa.string(), "image": pa.string(), "mos": pa.float64()}


OPTIONAL = {name: pa.string() for name in ("image/reference", "image/distortion", "image/scene")}
"""What is known of an image: its content (images that share it are resampled together), the kind of
its distortion, and what it shows, several labels joined with `+`; empty where unknown."""


READOUTS = ("single", "latest", "oracle", "gated")


DEVIATIONS = (
    "mos_std",
    "sigma",
)  # standard deviations: of an image's ratings, and predicted by methods that do so


PER_NAME = (
    "score/<task>",
    "gate/<task>",
    "nearness<level>/<task>",
    "scene/<word>",
    "distortion/<word>",
)
"""Of heads, of a gate's levels (minus temperature times distance) where tasks are independent, of
predicted labels.
"""


START = "start"


RESERVED = (START, "after")  # they label the rows of a matrix


FILE = re.compile(r"after_(0|[1-9][0-9]*)_([^/]+)\.parquet")


CHECKSUMS = "checksums.json"


SUMMARY = (
    *(
        "method",
        "order",
        "split",
        "split_hash",
        "seed",
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
        content = _parquet(checked(frame, path.name))
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
            _compare(files[START].name, first, files[task].name, frame)
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
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415

        path = self.path / "scale.safetensors"
        try:
            with safe_open(path, framework="numpy") as file:
                names = list(file.keys())
                return {name: file.get_tensor(name) for name in names}, file.metadata()["scale"]
        except (OSError, SafetensorError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}): `python -m iqa_lightning.evaluate "
                f"run={self.path}` makes it again"
            ) from error

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


def checked(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Predictions with columns in order and of the stored types, or a ValueError that names
    `source` and column.
    """
    names = [str(column) for column in frame.columns]
    readouts = [name for name in READOUTS if name in names]
    deviations = [name for name in DEVIATIONS if name in names]
    heads = [
        name
        for name in names
        if (match := re.fullmatch(r"(?:score|gate|nearness[1-9]|scene|distortion)/(.+)", name))
        and is_name(match[1], "+")
    ]
    texts = [name for name in ("dataset", "split", "image", *OPTIONAL) if name in names]
    known = [
        *IDENTITY,
        *(name for name in OPTIONAL if name in names),
        *readouts,
        *deviations,
        *heads,
    ]
    _check_columns(names, known, readouts, source)
    table = frame[known].reset_index(drop=True)
    for name in texts:
        if not all(isinstance(value, str) for value in table[name]):
            raise ValueError(f"{source}: column '{name}' holds something that is not text")
    for name in ("mos", *readouts, *deviations, *heads):
        if not pd.api.types.is_numeric_dtype(table[name]) or pd.api.types.is_bool_dtype(
            table[name]
        ):
            raise ValueError(
                f"{source}: column '{name}' holds {table[name].dtype}, expected numbers"
            )
    with np.errstate(over="ignore"):
        table = table.astype(
            {"mos": np.float64, **dict.fromkeys([*readouts, *deviations, *heads], np.float32)}
        )
    _check_rows(table, source)
    return table


def read_predictions(path: Path) -> pd.DataFrame:
    """One file of predictions, checked.

    Raises:
        ValueError: It is not parquet, or not a table of predictions.
    """
    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as parquet ({error}): the run has to be made again"
        ) from error
    return checked(table.to_pandas(), str(path))


def is_name(text: str, more: str = "") -> bool:
    """Whether a text can name a data set: letters and digits of any script, `_`, `-` and `more`."""
    fit = all(sign in "_-" + more or unicodedata.category(sign)[0] in "LMN" for sign in text)
    return bool(text) and fit and unicodedata.is_normalized("NFC", text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that at every instant it is either absent, the old one or the new one.

    Raises:
        OSError: naming the file.
    """
    write_atomic(path, lambda file: file.write(content))


def write_sealed(root: Path, path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file below the run folder `root` whose checksum is compared when it is read.

    The checksum is noted beside that of the version before, and before the file takes its place: a
    crash in between leaves a file that is one of the two.
    """
    name, noted = path.relative_to(root).as_posix(), read_checksums(root)

    def note(part: Path) -> None:
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        before = [known for known in noted.get(name, [])[-1:] if known != digest]
        content = noted | {name: [*before, digest]}
        write_bytes(root / CHECKSUMS, f"{json.dumps(content, indent=1)}\n".encode())

    write_atomic(path, write, note)


def write_atomic(
    path: Path, write: Callable[[BinaryIO], Any], before: Callable[[Path], None] | None = None
) -> None:
    """Let `write` fill a file beside `path`, flush it, rename it to `path`, flush the folder.

    `before` is called with the whole file before it takes its place.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if before:
            before(part)
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, outlives a power cut
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def read_checksums(root: Path) -> dict[str, list[str]]:
    """SHA-256 of files by name; of each the last version and the one before.

    Raises:
        ValueError: The file is not JSON.
    """
    path = root / CHECKSUMS
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): delete it, and files are read without comparison"
        ) from error


def verify(root: Path, path: Path) -> None:
    """Compare a file with its checksum, where one is noted.

    Raises:
        ValueError: It is not what was written.
    """
    if not (known := read_checksums(root).get(path.relative_to(root).as_posix())):
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest not in known:
        raise ValueError(
            f"{path} is not what was written ({path.stat().st_size} bytes, SHA-256 "
            f"{digest[:12]}..., not {known[-1][:12]}...): bring back a copy, or delete it, "
            f"summary.json and last.ckpt in {root}, and the same training command makes it again"
        )


def _check_columns(names: list[str], known: list[str], readouts: list[str], source: str) -> None:
    if missing := [name for name in IDENTITY if name not in names]:
        raise ValueError(f"{source}: column '{missing[0]}' is missing; it holds {', '.join(names)}")
    if not readouts:
        raise ValueError(
            f"{source}: no readout column; expected one or more of {', '.join(READOUTS)}"
        )
    if unknown := [name for name in names if name not in known]:
        allowed = ", ".join([*IDENTITY, *OPTIONAL, *READOUTS, *DEVIATIONS, *PER_NAME])
        raise ValueError(f"{source}: column '{unknown[0]}' is not known; expected {allowed}")
    if len(set(names)) < len(names):
        raise ValueError(f"{source}: two columns have one name among {', '.join(names)}")


def _check_rows(table: pd.DataFrame, source: str) -> None:
    if table.empty:
        raise ValueError(
            f"{source}: no rows; expected one per image of the test and validation parts"
        )
    for name in table["dataset"].unique():
        if not is_name(name) or name in RESERVED:
            raise ValueError(
                f"{source}: '{name}' cannot name a data set: use letters, digits, '_', '-', not "
                f"{RESERVED}"
            )
    if wrong := sorted(set(table["split"]) - {"val", "test"}):
        raise ValueError(f"{source}: column 'split' holds '{wrong[0]}', expected 'val' or 'test'")
    if not np.isfinite(table["mos"]).all():
        row = int(np.argmin(np.isfinite(table["mos"])))
        raise ValueError(
            f"{source}: column 'mos' holds {table['mos'][row]} for image '{table['image'][row]}' "
            f"(row {row})"
        )
    twice = table.duplicated(["dataset", "split", "image"])
    if twice.any():
        dataset, split, image = table[["dataset", "split", "image"]].iloc[int(np.argmax(twice))]
        raise ValueError(f"{source}: image '{image}' of '{dataset}' ({split}) is there twice")


def _compare(first_name: str, first: pd.DataFrame, name: str, frame: pd.DataFrame) -> None:
    readouts, expected = ([c for c in table if c in READOUTS] for table in (frame, first))
    if readouts != expected:
        raise ValueError(
            f"{name} holds the readouts {readouts}, {first_name} holds {expected}: they are of "
            "two runs"
        )
    if len(frame) != len(first):
        raise ValueError(
            f"{name} holds {len(frame)} rows, {first_name} holds {len(first)}: they are of two runs"
        )
    for column in [*IDENTITY, *(name for name in OPTIONAL if name in frame and name in first)]:
        differs = frame[column].to_numpy() != first[column].to_numpy()
        if differs.any():
            row = int(np.argmax(differs))
            values = f"'{frame[column][row]}' and '{first[column][row]}'"
            raise ValueError(
                f"{name} and {first_name} disagree in row {row}, column '{column}': {values}"
            )


def _parquet(table: pd.DataFrame) -> bytes:
    kinds = [
        pa.field(name, (IDENTITY | OPTIONAL).get(name, pa.float32())) for name in table.columns
    ]
    # without pandas' own metadata, which changes with its version
    stored = pa.Table.from_pandas(table, schema=pa.schema(kinds), preserve_index=False, nthreads=1)
    sink = pa.BufferOutputStream()
    pq.write_table(stored.replace_schema_metadata(None), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
