"""Workbooks and configs that a stranger sent: bounded, whatever they say of themselves."""

import zipfile
from pathlib import Path

import openpyxl
import pytest

from iqa_lightning.configs import read_yaml
from iqa_lightning.datasets.release import check_workbook, read_workbook
from iqa_lightning.datasets.spaq import SPAQ


def workbook(path: Path, rows: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def test_a_sheet_as_it_is(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "a.xlsx", [["name", "MOS", None], ["1.jpg", 2.5], [None, None], ["2", 3]]
    )
    table = read_workbook(path)
    assert list(table) == ["name", "MOS"]
    assert table["MOS"].tolist() == [2.5, 3]
    assert read_workbook(path, skip=1).shape == (1, 2)
    with pytest.raises(ValueError, match="no sheet 'x'; there are Sheet"):
        read_workbook(path, "x")


def test_one_cell_at_the_far_end(tmp_path: Path) -> None:
    """The whole of it would be 17 thousand million cells."""
    book = openpyxl.Workbook()
    book.active.append(["Image name", "MOS"])
    book.active.append(["1.jpg", 2.5])
    book.active.cell(1_048_576, 16_384, "far")
    book.save(tmp_path / "a.xlsx")
    assert read_workbook(tmp_path / "a.xlsx").shape == (1, 2)


def test_a_workbook_that_unpacks_to_much(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", [["Image name", "MOS"], ["1.jpg", 2.5]])
    check_workbook(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as book:
        book.writestr("xl/sharedStrings.xml", b"x" * (70 << 20))
    assert path.stat().st_size < 200_000
    with pytest.raises(ValueError, match="unpacks to 70 MiB"):
        read_workbook(path)
    (tmp_path / "Annotations").mkdir()
    path.rename(tmp_path / "Annotations/MOS and Image attribute scores.xlsx")
    with pytest.raises(
        ValueError, match=r"data set 'spaq': .*scores\.xlsx cannot be read \(it unp"
    ):
        SPAQ(tmp_path).read_table()


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 9)),
        "a: &a [1, *a]\n",
        "a: &a {b: *a}\n",
    ],
)
def test_aliases_of_aliases(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml stands for more than 1000000 values"):
        read_yaml(file)


def test_yaml_is_data(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("a: &a [1, 2]\nb: *a\nc: ${oc.env:HOME}\n")
    assert read_yaml(file) == {"a": [1, 2], "b": [1, 2], "c": "${oc.env:HOME}"}
    file.write_text("")
    assert read_yaml(file) == {}
    file.write_text("a: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(Exception, match="could not determine a constructor"):
        read_yaml(file)
    file.write_text("a: " + "x" * 1_000_001)
    with pytest.raises(ValueError, match="more than 1000000 bytes"):
        read_yaml(file)
