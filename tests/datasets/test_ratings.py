"""Tables as spreadsheets and editors save them: recognised, or named with what to do."""

import csv
import gzip
import io
import unicodedata
from pathlib import Path

import pytest

from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.datasets.ratings import read_ratings
from tests.datasets.folders import write_csv

SCORES = [1.5 + i * 0.25 for i in range(12)]
NAMES = [f"images/{i}.png" for i in range(12)]


def text(
    delimiter: str = ",",
    point: str = ".",
    header: tuple[str, ...] = ("image", "mos"),
    end: str = "\r\n",
    tail: str = "",
) -> str:
    """The table as a program with these settings writes it."""
    file = io.StringIO()
    rows = [
        (name, str(score).replace(".", point)) for name, score in zip(NAMES, SCORES, strict=True)
    ]
    csv.writer(file, delimiter=delimiter, lineterminator=f"{tail}{end}").writerows([header, *rows])
    return file.getvalue()


def read(root: Path, content: bytes | str, **options: object) -> CSVData:
    if not root.is_dir():
        write_csv(root, 12)
    (root / "ratings.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    data = CSVData(root, name="set", **options)
    data.prepare_data()
    return data


RECOGNISED = {
    "plain": text(),
    "semicolons": text(";"),
    "German Excel": text(";", ",").encode("utf-8-sig"),
    "tabs": text("\t"),
    "tabs, commas": text("\t", ","),
    "bars": text("|"),
    "quoted decimal commas": text(",", ",").encode("utf-8"),
    "Excel, Unicode text": text("\t").encode("utf-16"),
    "UTF-16 BE": b"\xfe\xff" + text(";", ",").encode("utf-16-be"),
    "UTF-16 without a mark": text().encode("utf-16-le"),
    "UTF-16 BE without a mark": text().encode("utf-16-be"),
    "sep=,": "sep=,\r\n" + text(),
    "sep=;": "sep=;\r\n" + text(";", ","),
    "sep= of a tab": "sep=\t\n" + text("\t"),
    "SEP in quotes": '"SEP=|"\n' + text("|"),
    "sep line saved again": "sep=;,\n" + text(";"),
    "a mark and sep": ("sep=;\n" + text(";")).encode("utf-8-sig"),
    "capitals": text(header=("Image", "MOS")),
    "spaces": text(header=(" image ", "mos ")).replace(",", " , "),
    "quotes after a space": text().replace(",", ', "').replace("\r\n", '"\r\n'),
    "empty cells at the ends": text(tail=",,"),
    "empty cells at the ends of rows": text(tail=";;", delimiter=";").replace("mos;;", "mos"),
    "rows of empty cells": text() + ",\r\n,\r\n , \r\n",
    "an index": "\n".join([",image,mos", *(f"{i},{NAMES[i]},{SCORES[i]}" for i in range(12))]),
    "old Mac": text(end="\r"),
    "backslashes": text().replace("/", "\\"),
    "dots": text().replace("images", "./images"),
    "spaces between": text(" "),
    "columns of spaces": text(",").replace(",", "    "),
    "colons": text(":"),
    "carets": text("^"),
    "Chinese commas": text(",").replace(",", "\uff0c"),
    "sep= of a space": "sep= \n" + text(" "),
    "sep in a comment": "# sep=;\n" + text(";"),
    "a comment above": "# ratings of June, mean of 20 people\n" + text(),
    "a title above": "Study 1;;\r\n;;\r\n" + text(";"),
    "two marks": b"\xef\xbb\xbf" + text().encode("utf-8-sig"),
    "signs of no width": text(header=("image\u200b", "\u200emos")),
}


@pytest.mark.parametrize("case", RECOGNISED)
def test_recognised(case: str, tmp_path: Path) -> None:
    data = read(tmp_path / "set", RECOGNISED[case])
    assert data.samples.table["image"].tolist() == NAMES
    assert data.samples.table["mos"].tolist() == SCORES
    assert data.native_higher_is_better


def other(old: str, new: str) -> str:
    assert old in text()
    return text().replace(old, new)


REFUSED = {
    "other names": (
        text(header=("image_name", "MOS")),
        "no column 'image'; the columns are image_name, MOS; if 'image_name' is meant, call it",
    ),
    "score": (
        text(header=("image", "score")),
        "no column 'mos'; the columns are image, score; if 'score' is meant, call it 'mos', or "
        "'dmos' where lower is better",
    ),
    "Quality": (text(header=("Image", "Quality")), "if 'Quality' is meant, call it 'mos'"),
    "no word": (text(header=("image", "x")), "the header is image,mos"),
    "with its range": (
        text(header=("image", "MOS (1-5)")),
        r"if 'MOS \(1-5\)' is meant, call it 'mos'",
    ),
    "an identity": (text(header=("ImageID", "mos")), "if 'ImageID' is meant, call it 'image'"),
    "another delimiter": (
        text().replace(",", "->"),
        "the columns are image->mos, which is one cell; part cells with a comma, .* as in sep=;",
    ),
    "whole rows in quotes": (
        '"' + text().strip().replace("\r\n", '"\r\n"') + '"',
        "the columns are image,mos, which is one cell; take away the quotation marks around whole rows",
    ),
    "no header": (
        text().split("\r\n", 1)[1],
        r"the first line, images/0\.png, 1\.5, is a row and no header; write image,mos above it",
    ),
    "a long header": (
        text(header=("x", "y" * 9999)),
        r"the columns are x, y+\.\.\.; the header is",
    ),
    "compressed": (gzip.compress(text().encode()), "is compressed and not a readable table; save"),
    "a page": ("<html><table>", "is a web page or XML and not a readable table"),
    "JSON": ('[{"image": "1.png"}]', "is JSON and not a readable table"),
    "Parquet": (b"PAR1" + bytes(9), "is a Parquet file and not a readable table"),
    "an empty file": ("", "no column 'image'; the columns are none"),
    "GBK": (other("3.png", "图3.png").encode("gb18030") + b"\x81\x20", "line 14 is not UTF-8"),
    "Latin-1": (
        other("3.png", "é3.png").encode("latin-1"),
        "line 5 is not UTF-8, it may be Latin-1",
    ),
    "what to do": (other("3.png", "é3.png").encode("latin-1"), "iconv -f WINDOWS-1252 -t UTF-8"),
    "UTF-16 cut": (text().encode("utf-16")[:-1], "is not UTF-16"),
    "a workbook": (b"PK\x03\x04" + bytes(99), "is a workbook and not a readable table; save it"),
    "zeros": (text().encode() + bytes(9), "zero bytes"),
    "a giant cell": (other("images/3.png", "x" * 200_000), "field larger than field limit"),
    "open quotes": (text() + '"images', "not a readable table"),
    "NaN": (other(",2.25", ",nan"), r"row 4 .*: mos is 'nan', not a finite number; correct or"),
    "Excel's errors": (other(",2.25", ",#DIV/0!"), r"row 4 .*'#DIV/0!'.*an error of a spreadsheet"),
    "thousands": (other(",2.25", ',"1,234.5"'), r"row 4 .*'1,234\.5'.*without marks between"),
    "one decimal comma": (other(",2.25", ',"2,25"'), r"row 4 .*'2,25'.*with a decimal point"),
    "thousands or decimals": (
        "image;mos\n" + "".join(f"{name};1,{i:03}\n" for i, name in enumerate(NAMES)),
        r"row 1 .*'1,000'.*with a decimal point and without marks between thousands",
    ),
    "their word for it": (
        other(",2.25", ",").replace("image,mos", "Image,MOS"),
        r"row 4 \('images/3\.png'\): MOS is missing",
    ),
    "without suffix": (
        text().replace(".png", ""),
        r"where 0\.png is: write names with their suffix",
    ),
    "without folder": (
        text().replace("images/", ""),
        r"but images/0\.png is there: names are relative",
    ),
    "two of one name": (
        text(header=("image", "mos"), tail=",1").replace("mos,1", "mos,MOS"),
        "'mos' and 'MOS'",
    ),
    "both scores": (
        text(tail=",1").replace("mos,1", "mos,dmos"),
        "'mos' and 'dmos' are one column",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str, tmp_path: Path) -> None:
    content, words = REFUSED[case]
    with pytest.raises(ValueError, match=f"(?s)data set 'set'.*{words}") as caught:
        read(tmp_path / "set", content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "ratings.xlsx",
            r"ratings\.xlsx is there: save it as ratings\.csv \(CSV in UTF-8\), or write",
        ),
        (
            "Ratings.CSV",
            r"Ratings\.CSV is there: call it ratings\.csv, or write it with the header",
        ),
        ("mos.tsv", r"mos\.tsv is there: call it ratings\.csv"),
        ("readme.md", r"ratings\.csv does not exist; write it with the header"),
    ],
)
def test_a_table_of_another_name(name: str, words: str, tmp_path: Path) -> None:
    root = write_csv(tmp_path / "set", 12)
    (root / "ratings.csv").rename(root / name)
    with pytest.raises(ValueError, match=words):
        CSVData(root).prepare_data()


def test_the_sign_for_minus_is_a_minus(tmp_path: Path) -> None:
    data = read(tmp_path / "set", other(",2.25", ",\u22122.25"))
    assert data.samples.table["mos"][3] == -2.25


@pytest.mark.parametrize(
    ("header", "given", "higher"),
    [
        (("image", "mos"), None, True),
        (("image", "dmos"), None, False),
        (("IMAGE", "DMOS"), None, False),
        (("image", "dmos"), True, True),
        (("image", "mos"), False, False),
    ],
)
def test_a_column_says_the_direction(
    header: tuple[str, str], given: bool | None, higher: bool, tmp_path: Path
) -> None:
    data = read(tmp_path / "set", text(header=header), higher_is_better=given)
    low, high = SCORES[0], SCORES[-1]
    expected = SCORES if higher else [low + high - score for score in SCORES]
    assert data.samples.table["mos"].tolist() == expected
    assert data.native_higher_is_better is higher
    assert data.native_range == (low, high)


def test_a_deviation_that_contradicts_the_score(tmp_path: Path) -> None:
    table = text(tail=",0.5").replace("mos,0.5", "mos,dmos_std")
    with pytest.raises(ValueError, match="'dmos_std' that lower is; say higher_is_better"):
        read(tmp_path / "set", table)
    data = read(tmp_path / "set", table, higher_is_better=True)
    assert data.samples.table["mos_std"].eq(0.5).all()
    both = read(
        tmp_path / "set", table.replace("mos,", "DMOS,", 1).replace("image,DMOS", "image,dmos")
    )
    assert not both.native_higher_is_better


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_composed_or_not(forms: tuple[str, str], tmp_path: Path) -> None:
    """A Mac writes names with accents apart; tables have them in one sign."""
    on_disk, in_table = ("images/" + unicodedata.normalize(form, "3 é ü.png") for form in forms)
    root = write_csv(tmp_path / "set", 12)
    (root / "images/3.png").rename(root / on_disk)
    data = read(root, other("images/3.png", in_table))
    assert data.image_path(3) == root / on_disk
    assert data.image_path(3).is_file()
    assert data.samples.table["image"][3] == unicodedata.normalize("NFC", in_table), "in records"
    assert data.load_image(3).size


def test_a_level_is_read(tmp_path: Path) -> None:
    table = text(";", tail=";3").replace("mos;3", "mos;level")
    assert read(tmp_path / "set", table).samples.table["level"].eq(3).all()


@pytest.mark.parametrize("size", [1 << 29])
def test_a_file_of_any_size_is_not_read_into_memory(size: int, tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    with path.open("wb") as file:
        file.truncate(size)
    with pytest.raises(ValueError, match="here has 512 MiB"):
        read_ratings(path, "here")
