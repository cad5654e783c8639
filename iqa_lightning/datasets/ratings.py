"""A table of ratings as spreadsheets and editors save it: what is recognised, and what is refused
by its name with the remedy.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

COLUMNS = ("image", "mos", "mos_std", "group", "distortion", "level", "scene")
"""What a table may say of an image."""

NUMBERS = ("mos", "mos_std", "level")

LOWER_IS_BETTER = {"dmos": "mos", "dmos_std": "mos_std"}
"""Columns that say by their name that a lower score is a better image."""

LIKELY = {
    "image": ("image", "file", "name", "path", "img", "picture", "stimul", "photo"),
    "mos": ("mos", "score", "rating", "quality", "mean", "opinion", "label"),
}
"""Parts of the names that other tables give to the columns that have to be there."""

DELIMITERS = (",", ";", "\t", "|")

RARE = (" ", ":", "^", "~", "，", "；", "、")  # noqa: RUF001  # Chinese marks
"""What parts cells too, where it parts a header into both columns that have to be there."""

ABOVE = 20
"""Lines above a header that are read past: titles, comments."""

PART = (
    "part cells with a comma, a semicolon, a tab or |, or say in a first line what parts them, as "
    "in sep=;"
)

SHOWN = 200
"""Signs of a header that a message repeats."""

UNSEEN = "\ufeff\u200b\u200e\u200f\u2060"
"""Signs of no width, which some programs leave around a word."""

LARGEST = 1 << 28
"""Bytes of a table that is read: some millions of rows."""

SAVE = "save it as CSV in UTF-8"

OTHERS = (
    (b"PK\x03\x04", "a workbook"),
    (b"\xd0\xcf\x11\xe0", "a workbook"),
    (b"\x1f\x8b", "compressed"),
    (b"PAR1", "a Parquet file"),
    (b"%PDF", "a PDF"),
    (b"MATLAB", "a MATLAB file"),
    (b"<", "a web page or XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)
"""First bytes of what is often called a table."""


@dataclass(frozen=True)
class Ratings:
    """A table as text, its columns in the words of this package.

    Args:
        table: those of `COLUMNS` that are there, texts; decimal points.
        names: what the file calls them.
        higher_is_better: what the names of the columns say; null where they contradict each other.
    """

    table: pd.DataFrame
    names: Mapping[str, str]
    higher_is_better: bool | None


def read_ratings(path: Path, where: str) -> Ratings:
    """Read a table of ratings.

    Recognised are: UTF-8 and UTF-16, with and without a byte order mark; `,`, `;`, tab and `|`
    between cells, or what a first line `sep=` says; any line ends; upper and lower case and spaces
    in the header; empty cells at the end of rows, rows of empty cells; decimal commas, where all
    numbers of a column have them.

    Args:
        path: the file.
        where: data set and file, for messages.

    Raises:
        ValueError: the file is none, or a column is there twice or missing.
        FileNotFoundError: there is no such file.
    """
    text = decoded(path, where)
    try:
        header, rows = cells(text)
    except csv.Error as error:
        raise ValueError(f"{where} is not a readable table ({error}); {SAVE}") from error
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(
                f"{where}, row {number}: {len(row)} cells, {len(header)} in the header; put "
                "quotation marks around a cell that holds a comma"
            )
    names = named_columns(header, where)
    positions = {column: header.index(name) for column, name in names.items()}
    table = pd.DataFrame(
        {column: [row[k] for row in rows] for column, k in positions.items()}, dtype=str
    )
    for column in NUMBERS:
        if column in table:
            table[column] = with_points(table[column].tolist())
    said = {
        column: name.casefold() not in LOWER_IS_BETTER
        for column, name in names.items()
        if column in LOWER_IS_BETTER.values()
    }
    # a deviation without a D says nothing
    contradictory = said.get("mos") is True and said.get("mos_std") is False
    return Ratings(table, names, None if contradictory else said["mos"])


def read_groups(path: Path, where: str, datasets: Sequence[str]) -> dict[str, str]:
    """The group of each image of a table with the columns `image` and `group`, without empty cells.

    Args:
        path: the file.
        where: data set and file, for messages.
        datasets: names of the set, where the table has a column `dataset`.

    Raises:
        ValueError: there is no such table.
    """
    try:
        header, rows = cells(decoded(path, where))
    except FileNotFoundError as error:
        raise ValueError(
            f"{where} does not exist; `check write_groups=<file>` writes one"
        ) from error
    except csv.Error as error:
        raise ValueError(f"{where} is not a readable table ({error}); {SAVE}") from error
    names = [name.casefold() for name in header]
    if not {"image", "group"} <= {*names}:
        raise ValueError(f"{where}: the columns are {', '.join(header)}; give image,group")
    found = [dict(zip(names, row, strict=False)) for row in rows]
    return {
        composed(text_of(row["image"])): text_of(row["group"])
        for row in found
        if row.get("group") and row.get("dataset", datasets[0]) in datasets
    }


def decoded(path: Path, where: str) -> str:
    """The text of a file.

    Raises:
        ValueError: it is too large, no text, or in another encoding.
        FileNotFoundError: there is no such file.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(
                f"{where} has {path.stat().st_size >> 20} MiB; no table of ratings is so large, "
                "take out what is not a rating"
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{where} is not a readable table ({error.strerror}); {SAVE}") from error
    if (
        kind := next((kind for sign, kind in OTHERS if content.startswith(sign)), None)
    ) is not None:
        raise ValueError(f"{where} is {kind} and not a readable table; {SAVE}")
    encoding = encoding_of(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{where} is not a readable table (line {line} is not "
            f"{encoding.removesuffix('-sig').upper()}, it may be Latin-1, Windows-1252 or GBK); "
            f"{SAVE}, in Excel 'CSV UTF-8', or by "
            "`iconv -f WINDOWS-1252 -t UTF-8`"
        ) from error
    if "\0" in text:
        raise ValueError(f"{where} is not a readable table (it holds zero bytes); {SAVE}")
    return text


def encoding_of(content: bytes) -> str:
    """UTF-16 where a mark or the zero bytes of its ASCII letters say so, else UTF-8."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    start = content[:200]
    if start[1::2].count(0) > len(start) / 4:
        return "utf-16-le"
    if start[::2].count(0) > len(start) / 4:
        return "utf-16-be"
    return "utf-8-sig"


def cells(text: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows, without what is empty at their ends and without lines above the header.

    Raises:
        csv.Error: quotation marks that do not close, or a giant cell.
    """
    lines = io.StringIO(text, newline=None).read().split("\n")
    first = next((k for k, line in enumerate(lines) if line.strip()), 0)
    said = re.fullmatch(r'["#\s]*sep=(.)"?[,;\s]*', lines[first].strip(UNSEEN), re.IGNORECASE)
    lines = lines[first + (said is not None) :]
    filled = [k for k, line in enumerate(lines) if line.strip()][:ABOVE]
    is_header = (k for k in filled if both_columns(lines[k], said[1] if said else None))
    lines = lines[next(is_header, 0) :]
    header = next((line for line in lines if line.strip()), "")
    delimiter = said[1] if said else delimiter_of(header)
    found = [[plain(cell) for cell in row] for row in parted(lines, delimiter)]
    found = [row for row in found if any(row)]
    if not found:
        return [], []
    width = max(k + 1 for k, cell in enumerate(found[0]) if cell)
    return found[0][:width], [row[:width] if not any(row[width:]) else row for row in found[1:]]


def parted(lines: Sequence[str], delimiter: str) -> Iterator[list[str]]:
    """The cells of lines; spaces after a delimiter are none of a cell."""
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)


def plain(cell: str) -> str:
    """A cell without spaces and signs of no width around it."""
    return cell.strip().strip(UNSEEN).strip()


def known_in(line: str, delimiter: str) -> tuple[set[str], int]:
    """The columns of ours that a line names, and its cells; none where quotation marks stay
    open.
    """
    try:
        row = next(parted([line], delimiter), [])
    except csv.Error:
        return set(), 0
    names = {plain(cell).casefold() for cell in row}
    return {LOWER_IS_BETTER.get(name, name) for name in names} & {*COLUMNS}, len(row)


def both_columns(line: str, delimiter: str | None) -> bool:
    """Whether a line names the image and its score, as a header does."""
    tried = (*DELIMITERS, *RARE) if delimiter is None else (delimiter,)
    return any({"image", "mos"} <= known_in(line, sign)[0] for sign in tried)


def delimiter_of(header: str) -> str:
    """What parts a header into the most columns that are known, then into the most; a rare sign
    only where no usual one finds both columns that have to be there.
    """

    def fit(delimiter: str) -> tuple[int, int]:
        known, count = known_in(header, delimiter)
        return len(known), count

    usual = max(DELIMITERS, key=fit)
    if both_columns(header, usual):
        return usual
    return next((sign for sign in RARE if both_columns(header, sign)), usual)


def named_columns(header: Sequence[str], where: str) -> dict[str, str]:
    """What the header calls each of `COLUMNS`.

    Raises:
        ValueError: one is there twice, or one that has to be there is not.
    """
    names: dict[str, str] = {}
    for name in header:
        small = name.casefold()
        column = LOWER_IS_BETTER.get(small, small)
        if column in names:
            twice = (
                f"two columns {name!r}"
                if names[column] == name
                else f"{names[column]!r} and {name!r}"
            )
            raise ValueError(
                f"{where}: {twice}{'' if names[column] == name else ' are one column'}; keep one "
                "of them"
            )
        if column in COLUMNS:
            names[column] = name
    for column in ("image", "mos"):
        if column not in names:
            raise ValueError(f"{where}: {missing_column(column, header, names)}")
    return names


def missing_column(column: str, header: Sequence[str], names: Mapping[str, str]) -> str:
    """That a column is missing, and which one may be meant."""
    free = [name for name in header if name and name not in names.values()]
    likely = [name for name in free if any(part in name.casefold() for part in LIKELY[column])]
    seen = ", ".join(name for name in header if name) or "none"
    seen = seen if len(seen) <= SHOWN else f"{seen[:SHOWN]}..."
    text = f"no column {column!r}; the columns are {seen}"
    if len(header) == 1 and re.search(r"\W", header[0]):
        quoted = any(both_columns(header[0], sign) for sign in DELIMITERS)
        remedy = "take away the quotation marks around whole rows" if quoted else PART
        return f"{text}, which is one cell; {remedy}"
    if not names and any(re.fullmatch(r"[+-]?\d+([.,]\d+)?", cell) for cell in header):
        return f"the first line, {seen}, is a row and no header; write image,mos above it"
    if not likely:
        return f"{text}; the header is image,mos[,mos_std,group,distortion,level,scene]"
    meant = f"{text}; if {likely[0]!r} is meant, call it {column!r}"
    lower = ", or 'dmos' where lower is better" if column == "mos" else ""
    return meant + lower


def with_points(column: Sequence[str]) -> list[str]:
    """A column of numbers with decimal points, where all its fractions are written with commas.

    Left as they are, so that they are refused: points and commas in one column, and commas that
    may part thousands, which is where three digits follow each.
    """
    column = [cell.replace("\u2212", "-") for cell in column]  # the sign for minus
    commas = [cell for cell in column if re.fullmatch(r"[+-]?\d*,\d+(e[+-]?\d+)?", cell, re.I)]
    thousands = all(re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", cell) for cell in commas)
    points = any("." in cell for cell in column)
    if not commas or points or thousands:
        return list(column)
    return [cell.replace(",", ".") if cell in commas else cell for cell in column]


FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(text: str) -> str:
    """A text as a cell: with an apostrophe before it where a spreadsheet would calculate it."""
    return f"'{text}" if text.startswith(FORMULA) else text


def text_of(cell: str) -> str:
    """The text of a cell that `cell` made."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def composed(name: str) -> str:
    """A name whose accents are composed (NFC), as they are in most tables and on most disks."""
    return unicodedata.normalize("NFC", name)
