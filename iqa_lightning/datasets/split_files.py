"""Published split lists: which image of a data set is in which part, read from the files of their
authors.

Two formats, tab separated, without a header, rows ended by LF, CR LF or a bare CR:

- LIQE (https://github.com/zwx8981/LIQE): `<data set>_{train,val,test}_clip.txt` with image, MOS and
  labels;
- BIQA_CL and TSN-IQA (https://github.com/zwx8981/BIQA_CL): `<data set>_{train_score,val,test}.txt`
  with image, MOS and standard deviation; beside them `<data set>_train.txt` with pairs: image 1,
  image 2, g, deviation 1, deviation 2, y.

Lists of split k lie in `<k>/`, `splits2/<k>/` or up to two folders deeper, as in
`IQA_Database/CSIQ/splits2/1/`.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from iqa_lightning.datasets.samples import Samples
from iqa_lightning.datasets.splits import Split, check_parts

FORMATS = (
    ("{tag}_train_clip.txt", "{tag}_val_clip.txt", "{tag}_test_clip.txt"),
    ("{tag}_train_score.txt", "{tag}_val.txt", "{tag}_test.txt"),
)


PAIRS = "{tag}_train.txt"


PLACES = ("{split}", "splits2/{split}", "*/splits2/{split}", "*/*/splits2/{split}")


MOS_TOLERANCE = 1e-4  # of the range of the scores


SAME_RATINGS = 0.98
"""Rank correlation above which scores on unlike scales are taken for those of the same raters."""


class Row(NamedTuple):
    """A row of a list and where it stands."""

    file: Path
    number: int
    cells: list[str]

    def __str__(self) -> str:
        return f"{self.file}, row {self.number} ({self.cells[0]!r})"


class ImageIndex:
    """Row numbers of a table by image path: folders in front and upper or lower case do not matter.

    As many last components of a path count as are needed to tell the images of the table apart.
    """

    def __init__(self, name: str, images: Sequence[str]) -> None:
        self.name = name
        folded = len({image.casefold() for image in images}) == len(images)
        self._fold = str.casefold if folded else str
        paths = [_components(image) for image in images]
        for self._depth in range(1, max(map(len, paths), default=1) + 1):
            self._rows = {self._key(path): i for i, path in enumerate(paths)}
            if len(self._rows) == len(paths):
                break

    def _key(self, path: list[str]) -> str:
        return self._fold("/".join(path[-self._depth :]))

    def find(self, row: Row, cell: int = 0) -> int:
        """The row of the table that a cell of a list names.

        Raises:
            ValueError: the table has no such image.
        """
        image = row.cells[cell]
        found = self._rows.get(self._key(_components(image)))
        if found is None:
            raise ValueError(
                f"data set {self.name!r}: {row.file}, row {row.number}: the image {image!r} is "
                "not in the table of the "
                f"data set; check that the list belongs to it, and that the data set is complete"
            )
        return found


def split_from_files(samples: Samples, folder: Path, tags: Sequence[str], split: int) -> Split:
    """The published split number `split` of a data set.

    The scores in the lists are only compared (see `check_mos`); those of the table are used.

    Args:
        samples: the data set.
        folder: the folder that holds the lists, see above.
        tags: names that the lists may begin with, the first that is found counts.
        split: number of the split.

    Raises:
        ValueError: naming file, row and remedy: no lists, an unknown image, an image in two parts
            or in none, scores that are not those of the table, a reference in two parts.
    """
    files = find_lists(samples.name, folder, tags, split)
    index = ImageIndex(samples.name, list(samples.table["image"]))
    owner: dict[int, Row] = {}
    parts: list[NDArray[np.int64]] = []
    for file in files:
        rows = read_rows(file, 2)
        found = [index.find(row) for row in rows]
        for row, i in zip(rows, found, strict=True):
            if i in owner:
                raise ValueError(
                    f"data set {samples.name!r}: {row}: the image is already in "
                    f"{owner[i].file.name}, row "
                    f"{owner[i].number}; an image belongs to one part once, get the lists again"
                )
            owner[i] = row
        parts.append(np.sort(np.array(found, dtype=np.int64)))
    absent = sorted(set(range(len(samples))) - owner.keys())
    if absent:
        raise ValueError(
            f"data set {samples.name!r}: {len(absent)} of {len(samples)} images are in none of "
            "the lists in "
            f"{files[0].parent}, the first is {samples.table['image'].iloc[absent[0]]!r}; get the "
            "lists that belong "
            f"to this version of the data set, or use splits=generated"
        )
    check_mos(samples, owner)
    check_parts(samples, Split(*parts), str(files[0].parent))
    return Split(*parts)


def find_lists(name: str, folder: Path, tags: Sequence[str], split: int) -> list[Path]:
    """The lists of train, val and test.

    Raises:
        ValueError: there are none, more than one set of them, or one of the three is missing.
    """
    for tag in dict.fromkeys(tags):
        firsts = [
            (kind, path)
            for kind in FORMATS
            for path in find_list(folder, kind[0].format(tag=tag), split)
        ]
        if len(firsts) > 1:
            raise ValueError(
                f"data set {name!r}: lists of split {split} lie in {firsts[0][1]} and in "
                f"{firsts[1][1]}; "
                f"set split_files to the folder of one of them"
            )
        for kind, first in firsts:
            files = [first.with_name(pattern.format(tag=tag)) for pattern in kind]
            missing = next((file for file in files if not file.is_file()), None)
            if missing is not None:
                raise ValueError(
                    f"data set {name!r}: {missing} does not exist, {first.name} does; complete "
                    "the lists"
                )
            return files
    raise ValueError(
        f"data set {name!r}: no lists of split {split} under {folder}; they are called "
        f"{tags[0]}_train_clip.txt (LIQE) "
        f"or {tags[0]}_train_score.txt (BIQA_CL) in a folder splits2/{split}: get them from "
        f"https://github.com/zwx8981/LIQE (IQA_Database), set split_files to their folder, or use splits=generated"
    )


def find_list(folder: Path, file: str, split: int) -> list[Path]:
    """Every list of this name and split under a folder."""
    return [
        path
        for place in PLACES
        for path in sorted(folder.glob(f"{place.format(split=split)}/{file}"))
    ]


def read_rows(file: Path, cells: int) -> list[Row]:
    """The rows of a list, each with at least so many cells.

    Raises:
        ValueError: the file cannot be read, is empty, or has a shorter row.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split(
            "\n"
        )  # every kind of row end has become LF
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not a readable list ({error}); get it again") from error
    rows = [Row(file, i, line.split("\t")) for i, line in enumerate(lines, start=1) if line.strip()]
    short = next((row for row in rows if len(row.cells) < cells), None)
    if short is not None:
        raise ValueError(
            f"{short}: {len(short.cells)} cells separated by tabs, at least {cells} expected"
        )
    if not rows:
        raise ValueError(f"{file} has no rows; get it again")
    return rows


def number(row: Row, cell: int) -> float:
    """A cell as a finite number.

    Raises:
        ValueError: it is none.
    """
    try:
        value = float(row.cells[cell])
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(
            f"{row}: {row.cells[cell]!r} in column {cell + 1} is not a finite number; get the "
            "list again"
        )
    return value


def check_mos(samples: Samples, rows: dict[int, Row]) -> None:
    """Refuse lists whose scores are not those of the table, which is how lists of another data set
    are noticed.

    Lists may count on another scale (LIVE: shifted): they are brought to the table's by the
    straight line that fits most rows best. A row is the same where it then differs by less than
    1e-4 of the range, or than the rounding of the list (CSIQ: three decimals). If most rows agree,
    one that does not is an error. If most do not, but the ranks correlate above 0.98, the scores
    were computed otherwise from the same ratings (KonIQ-10k: the lists hold the means on 1 to 5,
    the newer tables z-scores on 1 to 100, no line leads from one to the other): that is a warning.

    Raises:
        ValueError: naming the row that differs most.
    """
    order = sorted(rows)
    listed = np.array([number(rows[i], 1) for i in order])
    mos = samples.table["mos"].to_numpy(dtype=np.float64)[order]
    rounding = 0.51 * 10.0 ** -max(_decimals(rows[i].cells[1]) for i in order)
    least = MOS_TOLERANCE * float(np.ptp(mos))
    slope, shift = _line(listed, mos, max(least, rounding))
    tolerance = max(least, rounding * abs(slope))
    difference = np.abs(slope * listed + shift - mos)
    wrong = difference > tolerance
    worst = rows[order[int(difference.argmax())]]
    where = f"data set {samples.name!r}: {worst}: the score {worst.cells[1]}"
    row = order[int(difference.argmax())] + 1
    if slope <= 0:
        raise ValueError(
            f"{where} and the others run against those of the table; one of the two is lower is "
            "better"
        )
    if (
        wrong.mean() > 0.5
        and (agreement := float(spearmanr(listed, mos).statistic)) >= SAME_RATINGS
    ):
        warnings.warn(
            f"data set {samples.name!r}: the scores in {worst.file.parent} are not those of the "
            "table on any linear "
            f"scale, but rank the images alike (SRCC {agreement:.4f}); the split is taken, the "
            "table's scores are used",
            stacklevel=2,
        )
    elif wrong.any():
        raise ValueError(
            f"{where} differs from {mos[difference.argmax()]:g} in row {row} of the table, as do "
            f"{wrong.sum() - 1} "
            f"other rows; check that the lists belong to this version of the data set"
        )


def _line(x: NDArray[np.float64], y: NDArray[np.float64], tolerance: float) -> tuple[float, float]:
    """1 and 0 where most y are x, else slope and shift over the three quarters of the points
    nearest to the line.
    """
    if np.median(np.abs(x - y)) <= tolerance:
        return 1.0, 0.0
    keep = np.arange(len(x))
    for _ in range(20):
        slope, shift = np.polyfit(x[keep], y[keep], 1)
        keep = np.argsort(np.abs(slope * x + shift - y), kind="stable")[: max(2, len(x) * 3 // 4)]
    return float(slope), float(shift)


def _components(image: str) -> list[str]:
    return [part for part in image.replace("\\", "/").split("/") if part not in ("", ".")]


def _decimals(cell: str) -> int:
    return len(cell.strip().partition(".")[2].rstrip("0"))
