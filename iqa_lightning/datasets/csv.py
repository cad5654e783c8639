"""Any folder with a `ratings.csv` is a data set."""

import csv
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.datasets.samples import check_range, check_table

COLUMNS = ("image", "mos", "mos_std", "group", "distortion", "scene")


class CSVData(IQADataModule):
    """A folder of images with a table `ratings.csv`.

    Columns of the table (comma separated, UTF-8, header in any order):

    - `image`: path relative to the folder;
    - `mos`: number, any scale;
    - `mos_std` (optional): standard deviation of the raw ratings, empty where unknown;
    - `group` (optional): images of one group (same content) never straddle train, val and test; an
      image whose cell is empty is a group of its own;
    - `distortion` (optional): kind of distortion;
    - `scene` (optional): what the image shows, several labels joined with `+`.

    Args:
        root: the folder.
        higher_is_better: false for scores such as DMOS; they are mirrored about the middle of the
            range, so that higher is better and the range stays the same.
        native_range: lowest and highest score of the scale, checked; default: those that occur.
        options: see `IQADataModule`; `name` defaults to the name of the folder.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        higher_is_better: bool = True,
        native_range: tuple[float, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.native_higher_is_better = higher_is_better
        self._declared = (
            None if native_range is None else (float(native_range[0]), float(native_range[1]))
        )
        if self._declared is not None and not self._declared[0] < self._declared[1]:
            raise ValueError(
                f"data set {self.name!r}: native_range is {self._declared}; give the lower score "
                "first"
            )

    def default_name(self) -> str:
        """The name of the folder, with `_` for characters that a name may not have."""
        return re.sub(r"[^A-Za-z0-9_-]+", "_", self.root.resolve().name) or "csv"

    @property
    def table_path(self) -> str:
        """The table."""
        return str(self.root / "ratings.csv")

    def read_table(self) -> pd.DataFrame:
        """The rows of `ratings.csv`, scores turned to higher is better.

        Raises:
            ValueError: the folder or the file is missing, is not such a table, or a row leads out
                of the folder.
        """
        self.check_root()
        table = self._parsed()
        if "image" in table:
            table["image"] = [
                self._inside(row, image) for row, image in enumerate(table["image"], start=1)
            ]
        table = check_table(self.name, self.table_path, table)
        mos = table["mos"]
        self.native_range = self._declared or (float(mos.min()), float(mos.max()))
        check_range(self.name, self.table_path, table, self.native_range)
        if not self.native_higher_is_better:
            table["mos"] = sum(self.native_range) - mos
        return table

    def _parsed(self) -> pd.DataFrame:
        try:
            with Path(self.table_path).open(encoding="utf-8-sig") as file:
                lines = [line for line in csv.reader(file, strict=True) if line]
        except FileNotFoundError as error:
            raise ValueError(
                f"data set {self.name!r}: {self.table_path} does not exist; write it with the "
                "header "
                f"image,mos[,mos_std,group,distortion,scene], images relative to the folder"
            ) from error
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"data set {self.name!r}: {self.table_path} is not a readable table ({error}); "
                "save it as CSV in UTF-8"
            ) from error
        header, rows = ([name.strip() for name in lines[0]], lines[1:]) if lines else ([], [])
        for number, row in enumerate(rows, start=1):
            if len(row) != len(header):
                raise ValueError(
                    f"data set {self.name!r}, {self.table_path}, row {number}: {len(row)} cells, "
                    f"{len(header)} in the "
                    f"header; put quotation marks around a cell that holds a comma"
                )
        twice = next((name for name in COLUMNS if header.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"data set {self.name!r}, {self.table_path}: two columns {twice!r}; keep one of "
                "them"
            )
        table = pd.DataFrame(rows, columns=header, dtype=str)
        known = [name for name in COLUMNS if name in header] or header
        return table[known].rename(columns={"group": "reference"})

    def _inside(self, row: int, image: str) -> str:
        path = PurePosixPath(image.strip().replace("\\", "/"))
        if path.is_absolute() or PureWindowsPath(image.strip()).drive or ".." in path.parts:
            raise ValueError(
                f"data set {self.name!r}, {self.table_path}, row {row}: the image {image!r} lies "
                "outside of the folder; "
                f"use paths relative to {self.root} without '..'"
            )
        return str(path) if path.parts else ""
