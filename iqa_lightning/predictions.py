"""What a table of predictions holds, and its file: one row per image, one column per readout."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from iqa_lightning.files import is_name

IDENTITY = {"dataset": pa.string(), "split": pa.string(), "image": pa.string(), "mos": pa.float64()}


OPTIONAL = {name: pa.string() for name in ("image/reference", "image/distortion", "image/scene")}
"""What is known of an image: its content (images that share it are resampled together), the kind of
its distortion, and what it shows, several labels joined with `+`; empty where unknown."""


READOUTS = ("single", "latest", "oracle", "gated")


DEVIATIONS = ("mos_std", "sigma")
"""Standard deviations: of an image's ratings, and predicted by methods that do so."""


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


RESERVED = (START, "after")
"""They label the rows of a matrix."""


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


def compare(first_name: str, first: pd.DataFrame, name: str, frame: pd.DataFrame) -> None:
    """Refuse two tables of one run, by the names of their files, that disagree about the images."""
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


def to_parquet(table: pd.DataFrame) -> bytes:
    """The file of a checked table: the same table gives the same bytes."""
    kinds = [
        pa.field(name, (IDENTITY | OPTIONAL).get(name, pa.float32())) for name in table.columns
    ]
    # without pandas' own metadata, which changes with its version
    stored = pa.Table.from_pandas(table, schema=pa.schema(kinds), preserve_index=False, nthreads=1)
    sink = pa.BufferOutputStream()
    pq.write_table(stored.replace_schema_metadata(None), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


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
