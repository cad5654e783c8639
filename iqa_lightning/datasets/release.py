"""A data set as its owners distribute it: tables read with one kind of error, files found in any
letter case.
"""

import re
import zipfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeVar

import openpyxl
import pandas as pd

from iqa_lightning.datasets.base import IQADataModule

Parsed = TypeVar("Parsed")


class Release(IQADataModule):
    """An `IQADataModule` whose table is parsed from the files of an official release.

    Upper and lower case of files and folders may differ from the table, as they do where a release
    was unpacked on another system; the names in the records stay those of the table.
    """

    def image_path(self, row: int) -> Path:
        """The file of image `row`."""
        return find_file(self.root, str(self.samples.table["image"].iloc[row]))

    def first(self, *names: str) -> str:
        """The first of these files that exists, else the first name: releases that differ over the
        years.
        """
        return next((name for name in names if find_file(self.root, name).is_file()), names[0])

    def read_file(self, name: str, parse: Callable[[Path], Parsed]) -> Parsed:
        """What `parse` makes of a file of the release.

        Raises:
            ValueError: the root or the file is missing, or `parse` fails.
        """
        self.check_root()
        path = find_file(self.root, name)
        if not path.is_file():
            raise ValueError(
                f"data set {self.name!r}: {path} does not exist; get it from {self.home}"
            )
        try:
            return parse(path)
        except Exception as error:
            raise ValueError(
                f"data set {self.name!r}: {path} cannot be read ({error}); get it again from "
                f"{self.home}"
            ) from error

    def read_text(
        self,
        name: str,
        columns: Sequence[str],
        numbers: Sequence[str] = (),
        *,
        header: bool = True,
        sep: str = ",",
    ) -> pd.DataFrame:
        """The named columns of a text table; any line ends, a byte order mark is dropped.

        Args:
            name: the file, relative to the root.
            columns: those wanted of the header, or without a header names for all columns.
            numbers: those of `columns` that hold numbers; the others are text.
            header: whether the first line names the columns.
            sep: what stands between cells.

        Raises:
            ValueError: what `read_file` and `select` refuse.
        """

        def parse(path: Path) -> pd.DataFrame:
            with path.open(encoding="utf-8-sig") as file:
                names = None if header else list(columns)
                return select(
                    pd.read_csv(file, sep=sep, names=names, index_col=False, dtype=str),
                    columns,
                    numbers,
                )

        return self.read_file(name, parse)


LARGEST = 64 << 20
"""Bytes of a workbook, and of each part of it once it is unpacked; tables of scores have two."""

ROWS, CELLS = 200_000, 256
"""Rows of a sheet, and cells of a row, that are read."""


def check_workbook(path: Path) -> None:
    """Refuse a workbook that unpacks to far more than a table of scores.

    Raises:
        ValueError: saying how much.
    """
    size = path.stat().st_size
    if zipfile.is_zipfile(path):  # .xlsx
        with zipfile.ZipFile(path) as book:
            size = max((part.file_size for part in book.infolist()), default=0)
    if size > LARGEST:
        raise ValueError(f"it unpacks to {size >> 20} MiB, which is no table of scores")


def read_workbook(path: Path, sheet: str | None = None, skip: int = 0) -> pd.DataFrame:
    """A sheet of an .xlsx workbook, its header after `skip` rows, empty rows left out.

    Raises:
        ValueError: the workbook is too large, or has no such sheet.
    """
    check_workbook(path)
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        if sheet is not None and sheet not in book.sheetnames:
            raise ValueError(f"no sheet {sheet!r}; there are {', '.join(book.sheetnames)}")
        found = book[sheet] if sheet is not None else book.worksheets[0]
        # a sheet may claim any size for itself
        found.reset_dimensions()
        rows = found.iter_rows(
            min_row=skip + 1, max_row=skip + ROWS, max_col=CELLS, values_only=True
        )
        named = {k: str(cell) for k, cell in enumerate(next(rows, ())) if cell is not None}
        cells = [[row[k] if k < len(row) else None for k in named] for row in rows]
    finally:
        book.close()
    return pd.DataFrame(cells, columns=list(named.values())).dropna(how="all")


def select(
    table: pd.DataFrame, columns: Sequence[str], numbers: Sequence[str] = ()
) -> pd.DataFrame:
    """The named columns of a table, `numbers` among them converted.

    Raises:
        ValueError: there is no such column, no row, or a cell of `numbers` is no number.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(f"no column {missing[0]!r}; the columns are {', '.join(map(str, table))}")
    if table.empty:
        raise ValueError("no rows")
    return table[list(columns)].assign(
        **{column: pd.to_numeric(table[column]) for column in numbers}
    )


def parse_names(names: Sequence[str], kinds: Sequence[str]) -> pd.DataFrame:
    """Columns `reference`, `distortion` and `level` of names `<reference>_<kind from
    1>_<level>.<ending>`.

    Raises:
        ValueError: a name is not of this form, or has no kind among `kinds`.
    """
    rows = []
    for name in names:
        match = re.fullmatch(r"([A-Za-z]\d+)_(\d+)_(\d+)\.\w+", name)
        if match is None or not 1 <= int(match[2]) <= len(kinds):
            raise ValueError(
                f"the image {name!r} is not called <reference>_<1 to {len(kinds)}>_<level>"
            )
        rows.append((match[1], kinds[int(match[2]) - 1], int(match[3])))
    return pd.DataFrame(rows, columns=["reference", "distortion", "level"])


def find_file(root: Path, name: str) -> Path:
    """`root / name`, or the existing file whose name differs in upper and lower case only."""
    path = root / name
    if path.exists():
        return path
    found = root
    for part in PurePosixPath(name).parts:
        if not found.is_dir():
            return path
        found /= _spellings(found, found.stat().st_mtime_ns).get(part.lower(), part)
    return found


@lru_cache(maxsize=256)
def _spellings(folder: Path, changed: int) -> dict[str, str]:  # noqa: ARG001 -- a changed folder is listed again
    return {entry.name.lower(): entry.name for entry in sorted(folder.iterdir())}
