"""The table of one data set: one row per rated image."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType

import numpy as np
import pandas as pd

COLUMNS = ("image", "mos", "mos_std", "reference", "distortion", "level", "official", "scene")


PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Samples:
    """The rated images of one data set, in the native unit of its study.

    `table` has the columns

    - `image` (str): unique name, relative to the root of the data set;
    - `mos` (float64): mean opinion score, native range, **higher is better** always;
    - `mos_std` (float64): standard deviation of the raw ratings, same unit, NaN where it is not
      known;
    - `reference` (str): images that share it show the same content and stay in one part of a split;
    - `distortion` (str): kind of distortion, empty where it is not known;
    - `level` (float64): strength of the distortion, higher is stronger, NaN where it is not known;
    - `official` (str): part of the split that the owners published (`train`, `val`, `test`), empty
      where there is none;
    - `scene` (str): what it shows, several labels joined with `+`, empty where it is not known.
    """

    name: str
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.table)


def check_table(
    name: str,
    table_path: str,
    table: pd.DataFrame,
    names: Mapping[str, str] = MappingProxyType({}),
) -> pd.DataFrame:
    """A validated copy of a parsed table with its optional columns filled in.

    Rows are counted from 1 in messages, the header of a file not included.

    Args:
        name: the data set, for messages.
        table_path: the file or folder the table was read from, for messages.
        table: at least the columns `image` and `mos`; the others of `Samples` are optional.
        names: what the file calls its columns, for messages, where it is not the same.

    Raises:
        ValueError: a column is missing, there are no rows, an image has no name, lies outside of
            the root or occurs twice, a score is not a finite number, a standard deviation is
            negative, a part of the official split has another name than train, val and test, or all
            scores are equal.
    """
    where = f"data set {name!r}, {table_path}"
    missing = [column for column in ("image", "mos") if column not in table]
    if missing:
        raise ValueError(
            f"{where}: no column {missing[0]!r}; the columns are {', '.join(map(str, table))}"
        )
    if table.empty:
        raise ValueError(f"{where}: no rows; at least six rated images are needed")
    image = _text(table["image"])
    _check_images(where, image)
    reference, official = _optional_text(table, "reference"), _optional_text(table, "official")
    _check_official(where, image, official)
    return pd.DataFrame(
        {
            "image": image,
            "mos": _scores(where, image, table["mos"], names.get("mos", "mos")),
            "mos_std": _not_negative(
                where, image, table, "mos_std", "a standard deviation", names.get("mos_std")
            ),
            "reference": reference.where(reference != "", image),
            "distortion": _optional_text(table, "distortion"),
            "level": _not_negative(where, image, table, "level", "the level of a distortion"),
            "official": official,
            "scene": _optional_text(table, "scene"),
        }
    )


def check_range(
    name: str,
    table_path: str,
    table: pd.DataFrame,
    limits: tuple[float, float],
    called: str = "mos",
) -> None:
    """Refuse a score outside of the range that the data set declares.

    Raises:
        ValueError: naming the first row whose score lies outside of `limits` (inclusive).
    """
    low, high = limits
    outside = np.flatnonzero(~table["mos"].between(low, high).to_numpy())
    if outside.size:
        row = int(outside[0])
        raise ValueError(
            f"{_row(f'data set {name!r}, {table_path}', table['image'], row)}: {called} "
            f"{table['mos'].iloc[row]:g} is outside "
            f"the range {low:g} to {high:g} of this data set; correct the score or the declared "
            "range"
        )


def _text(column: pd.Series) -> pd.Series:
    column = column.reset_index(drop=True)
    return column.astype(object).where(column.notna(), "").astype(str).str.strip()


def _optional_text(table: pd.DataFrame, label: str) -> pd.Series:
    return _text(table[label]) if label in table else pd.Series([""] * len(table), dtype=object)


def _row(where: str, image: pd.Series, row: int) -> str:
    return f"{where}, row {row + 1} ({image.iloc[row]!r})"


def _check_images(where: str, image: pd.Series) -> None:
    empty = np.flatnonzero((image == "").to_numpy())
    if empty.size:
        raise ValueError(
            f"{where}, row {empty[0] + 1}: the image has no name; name it or remove the row"
        )
    outside = [
        row
        for row, name in enumerate(image)
        if name.startswith("/") or ".." in PurePosixPath(name).parts
    ]
    if outside:
        raise ValueError(
            f"{_row(where, image, outside[0])}: the image lies outside of the folder; "
            f"use a path relative to it without '..'"
        )
    repeated = np.flatnonzero(image.duplicated().to_numpy())
    if repeated.size:
        row = int(repeated[0])
        first = int(np.flatnonzero((image == image.iloc[row]).to_numpy())[0])
        raise ValueError(
            f"{_row(where, image, row)}: the image is already in row {first + 1}; keep one of the "
            "rows"
        )


def _numbers(where: str, image: pd.Series, column: pd.Series, label: str) -> np.ndarray:
    """The column as float64; an empty cell is NaN, anything else that is not a finite number is
    refused.
    """
    blank = (_text(column) == "").to_numpy()
    values = pd.to_numeric(column.reset_index(drop=True), errors="coerce").to_numpy(
        dtype=np.float64
    )
    wrong = np.flatnonzero(~blank & ~np.isfinite(values))
    if wrong.size:
        row = int(wrong[0])
        given = column.iloc[row]
        raise ValueError(
            f"{_row(where, image, row)}: {label} is {given!r}, not a finite number; "
            f"{_correction(str(given))}"
        )
    return values


def _correction(cell: str) -> str:
    """What to do about a cell that is no number."""
    if re.fullmatch(r"[+-]?[\d.,' ]*[.,' ]\d+", cell):
        return "write it with a decimal point and without marks between thousands"
    if cell.startswith("#"):
        return "it is an error of a spreadsheet: mend the formula, or remove the row"
    return "correct or remove it"


def _scores(where: str, image: pd.Series, column: pd.Series, called: str) -> np.ndarray:
    mos = _numbers(where, image, column, called)
    if np.isnan(mos).any():
        row = int(np.flatnonzero(np.isnan(mos))[0])
        raise ValueError(
            f"{_row(where, image, row)}: {called} is missing; give the row a score or remove it"
        )
    if (mos == mos[0]).all():
        raise ValueError(
            f"{where}: all {len(mos)} {called} are {mos[0]:g}; a rank correlation needs scores "
            "that "
            "differ"
        )
    return mos


def _not_negative(
    where: str,
    image: pd.Series,
    table: pd.DataFrame,
    label: str,
    kind: str,
    called: str | None = None,
) -> np.ndarray:
    """An optional column of numbers from 0, NaN where unknown."""
    if label not in table:
        return np.full(len(table), np.nan)
    called = called or label
    values = _numbers(where, image, table[label], called)
    negative = np.flatnonzero(values < 0)
    if negative.size:
        row = int(negative[0])
        raise ValueError(
            f"{_row(where, image, row)}: {called} is {values[row]:g}; {kind} is 0 or more"
        )
    return values


def _check_official(where: str, image: pd.Series, official: pd.Series) -> None:
    unknown = np.flatnonzero(~official.isin(("", *PARTS)).to_numpy())
    if unknown.size:
        row = int(unknown[0])
        raise ValueError(
            f"{_row(where, image, row)}: official is {official.iloc[row]!r}; it is one of "
            f"{', '.join(PARTS)} or empty"
        )
