"""Any folder with a `ratings.csv` is a data set."""

import re
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.datasets.ratings import composed, read_ratings, text_of
from iqa_lightning.datasets.samples import check_range, check_table

TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xls", ".ods", ".mat", ".json", ".parquet")
"""How tables of ratings are called; the first three are text."""


class CSVData(IQADataModule):
    """A folder of images with a table `ratings.csv`.

    Columns of the table (in any order, upper or lower case; others are not read; what is recognised
    of encodings, delimiters and decimal commas says `ratings.read_ratings`):

    - `image`: path relative to the folder;
    - `mos`: number, any scale, higher is better; or `dmos`: lower is better;
    - `mos_std` or `dmos_std` (optional): standard deviation of the raw ratings, empty where
      unknown;
    - `group` (optional): images of one group (same content) never straddle train, val and test; an
      image whose cell is empty is a group of its own;
    - `distortion` (optional): kind of distortion;
    - `level` (optional): strength of the distortion, higher is stronger;
    - `scene` (optional): what the image shows, several labels joined with `+`.

    Args:
        root: the folder.
        higher_is_better: false for scores such as DMOS; they are mirrored about the middle of the
            range, so that higher is better and the range stays the same. Default: what the name of
            the column says.
        native_range: lowest and highest score of the scale, checked; default: those that occur.
        options: see `IQADataModule`; `name` defaults to the name of the folder.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        higher_is_better: bool | None = None,
        native_range: tuple[float, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.higher_is_better = higher_is_better
        self.native_higher_is_better = higher_is_better is not False
        self._declared = None if native_range is None else self._both_ends(native_range)
        if self._declared is not None and not self._declared[0] < self._declared[1]:
            raise ValueError(
                f"data set {self.name!r}: native_range is {self._declared}; give the lower score "
                "first"
            )

    def _both_ends(self, given: Any) -> tuple[float, float]:
        try:
            low, high = map(float, given)
        except (TypeError, ValueError):
            raise ValueError(
                f"data set {self.name!r}: native_range is {given!r}; give the lowest and the "
                "highest score of the scale, as [0, 100]"
            ) from None
        return low, high

    def default_name(self) -> str:
        """The name of the folder, with `_` for characters that a name may not have."""
        return re.sub(r"[^\w-]+", "_", composed(self.root.resolve().name)) or "csv"

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
        where = f"data set {self.name!r}, {self.table_path}"
        try:
            ratings = read_ratings(Path(self.table_path), where)
        except FileNotFoundError as error:
            raise ValueError(
                f"data set {self.name!r}: {self.table_path} does not exist; {self._other_table()}"
                "write it with the header image,mos[,mos_std,group,distortion,level,scene], images "
                "relative to the folder"
            ) from error
        self.native_higher_is_better = self._direction(ratings.higher_is_better, where)
        table = ratings.table.rename(columns={"group": "reference"})
        table["image"] = [self._inside(k, name) for k, name in enumerate(table["image"], start=1)]
        table = check_table(self.name, self.table_path, table, ratings.names)
        mos = table["mos"]
        self.native_range = self._declared or (float(mos.min()), float(mos.max()))
        called = ratings.names["mos"]
        check_range(self.name, self.table_path, table, self.native_range, called)
        if not self.native_higher_is_better:
            table["mos"] = sum(self.native_range) - mos
        return table

    def _direction(self, said: bool | None, where: str) -> bool:
        """Whether a higher score is better: as the user says, else as the columns do."""
        if self.higher_is_better is not None:
            return self.higher_is_better
        if said is None:
            raise ValueError(
                f"{where}: 'mos' says that higher is better, 'dmos_std' that lower is; say "
                "higher_is_better, or rename one of them"
            )
        return said

    def _other_table(self) -> str:
        """A hint where the folder holds a table under another name, else nothing."""
        found = (entry for entry in sorted(self.root.iterdir()) if entry.suffix.lower() in TABLES)
        other = next(found, None)
        if other is None:
            return ""
        if other.suffix.lower() in TABLES[:3]:
            return f"{other.name} is there: call it ratings.csv, or "
        return f"{other.name} is there: save it as ratings.csv (CSV in UTF-8), or "

    def image_path(self, row: int) -> Path:
        """The file of image `row`, its accents composed or not, as the disk has them."""
        path = super().image_path(row)
        if path.exists() or (path.name.isascii() and str(path).isascii()):
            return path
        found = self.root
        for part in PurePosixPath(str(self.samples.table["image"].iloc[row])).parts:
            known = _spellings(found, found.stat().st_mtime_ns) if found.is_dir() else {}
            found /= known.get(part, part)
        return found

    def _inside(self, row: int, image: str) -> str:
        image = text_of(image.strip())
        path = PurePosixPath(composed(image).replace("\\", "/"))
        if path.is_absolute() or PureWindowsPath(image).drive or ".." in path.parts:
            raise ValueError(
                f"data set {self.name!r}, {self.table_path}, row {row}: the image {image!r} lies "
                "outside of the folder; "
                f"use paths relative to {self.root} without '..'"
            )
        return str(path) if path.parts else ""


@lru_cache(maxsize=256)
def _spellings(folder: Path, changed: int) -> dict[str, str]:  # noqa: ARG001 -- a changed folder is listed again
    return {composed(entry.name): entry.name for entry in sorted(folder.iterdir())}
