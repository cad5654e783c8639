"""Turned and mirrored twins, the groups that are proposed for them, and what a split makes of these."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_lightning.audit.duplicates import find_duplicates, near_pairs
from iqa_lightning.audit.groups import check_families, proposed_groups, write_groups
from iqa_lightning.datasets.csv import CSVData
from tests.audit.test_audit import audited, photograph, write_photographs
from tests.datasets.folders import write_csv

WAYS = {
    Image.Transpose.FLIP_LEFT_RIGHT: "mirrored",
    Image.Transpose.FLIP_TOP_BOTTOM: "upside down and mirrored",
    Image.Transpose.ROTATE_90: "turned by 90 degrees",
    Image.Transpose.ROTATE_180: "turned by 180 degrees",
    Image.Transpose.ROTATE_270: "turned by 90 degrees",
    Image.Transpose.TRANSPOSE: "turned and mirrored",
    Image.Transpose.TRANSVERSE: "turned and mirrored",
}


@pytest.mark.parametrize("way", WAYS)
def test_turned_and_mirrored_twins(way: Image.Transpose, tmp_path: Path) -> None:
    root = write_photographs(tmp_path / "set", 0)
    photograph(4).transpose(way).resize((80, 80)).save(root / "images/11.png")
    (found,) = find_duplicates([audited(CSVData(root))])
    assert found.images == ("images/4.png", "images/11.png")
    assert found.turn == WAYS[way]
    assert found.turn in str(found)
    photograph(4).save(root / "images/11.png")
    (plain,) = find_duplicates([audited(CSVData(root))])
    assert plain.turn == ""


def test_a_picture_with_an_exif_turn_is_the_upright_one(tmp_path: Path) -> None:
    root = write_photographs(tmp_path / "set", 0)
    turn = Image.Exif()
    turn[274] = 6
    photograph(4).transpose(Image.Transpose.ROTATE_90).save(root / "images/11.png", exif=turn)
    audit = audited(CSVData(root))
    (found,) = find_duplicates([audit])
    assert found.turn == ""
    assert audit.facts["decisions"] == {"turned": ["images/11.png"]}
    audit = audited(CSVData(root, exif_turn=False))
    (found,) = find_duplicates([audit])
    assert found.turn == "turned by 90 degrees"
    assert audit.facts["decisions"] == {"not turned": ["images/11.png"]}


def folder_of_twins(root: Path) -> Path:
    """Twenty photographs, of which 0 to 4 come again mirrored as 10 to 14, and 4 once more as 15."""
    write_photographs(root, 0)
    for i in range(5):
        photograph(i).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / f"images/{10 + i}.png")
    photograph(4).resize((60, 45)).save(root / "images/15.png")
    return root


def test_the_proposal_keeps_twins_in_one_part(tmp_path: Path) -> None:
    root, file = folder_of_twins(tmp_path / "set"), tmp_path / "groups.csv"
    audit = audited(CSVData(root))
    assert write_groups(file, [audit], find_duplicates([audit])) == 5
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    group = {row["image"]: row["group"] for row in rows}
    assert {row["dataset"] for row in rows} == {"set"}
    assert [group[f"images/{i}.png"] for i in (0, 10)] == ["images/0.png"] * 2
    assert len({group[f"images/{i}.png"] for i in (4, 14, 15)}) == 1
    assert len(set(group.values())) == 14
    for split in range(1, 11):
        data = CSVData(root, group_file=file, split=split)
        data.prepare_data()
        part = np.empty(20, dtype=int)
        for k, held in enumerate(data.parts):
            part[held] = k
        assert all(part[i] == part[10 + i] for i in range(5))
        assert part[4] == part[15]
    assert find_duplicates([audited(CSVData(root, group_file=file))]) == []


def test_the_groups_of_a_table_are_never_parted(tmp_path: Path) -> None:
    root = folder_of_twins(tmp_path / "set")
    rows = [f"images/{i}.png,{i},g{i % 10 // 5 if i < 10 else i}" for i in range(20)]
    (root / "ratings.csv").write_text("\n".join(["image,mos,group", *rows]))
    audit = audited(CSVData(root))
    groups = proposed_groups(audit, find_duplicates([audit]))
    assert len({groups[f"images/{i}.png"] for i in (*range(5), *range(10, 16))}) == 1
    assert {groups[f"images/{i}.png"] for i in range(5, 10)} == {"g1"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,group\nimages/99.png,a\n", r"no image 'images/99\.png'"),
        ("image,name\nimages/9.png,a\n", "the columns are image, name; give image,group"),
        (None, "does not exist; `check write_groups=<file>` writes one"),
    ],
)
def test_a_table_of_groups_that_is_none(text: str | None, words: str, tmp_path: Path) -> None:
    root, file = write_csv(tmp_path / "set"), tmp_path / "groups.csv"
    if text:
        file.write_text(text)
    with pytest.raises(ValueError, match=f"data set 'set', group_file=.*{words}"):
        CSVData(root, group_file=file).prepare_data()


def test_groups_of_other_sets_do_not_count(tmp_path: Path) -> None:
    root, file = write_csv(tmp_path / "set"), tmp_path / "groups.csv"
    file.write_text(
        "dataset;image;group\nother;images/1.png;a\nset;images/2.png;b\nset;images/3.png;\n"
    )
    data = CSVData(root, group_file=file)
    data.prepare_data()
    assert data.samples.table["reference"][:4].tolist() == [
        "images/0.png",
        "images/1.png",
        "b",
        "images/3.png",
    ]


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (("AU-IQA", "koniq10k"), 1),
        (("koniq-10k", "au_iqa"), 1),
        (("live", "tid2013"), 1),
        (("live", "clive"), 0),
        (("au_iqa",), 0),
    ],
)
def test_families_that_share_contents(names: tuple[str, ...], count: int, tmp_path: Path) -> None:
    import yaml

    from tests.walks import ROOT

    families = yaml.safe_load((ROOT / "conf/families.yaml").read_text())
    audits = [audited(CSVData(tmp_path / name, name=name)) for name in names]
    found = check_families(audits, families)
    assert len(found) == count
    assert all(finding.severity == "warning" for finding in found)
    assert all(name in finding.text for finding in found for name in names)


def test_no_two_photographs_are_near_by_a_turn(shared_data: Path) -> None:
    """Of 324 stills of 38 clips, none is another one turned; near are only those of one clip."""
    audit = audited(CSVData(shared_data / "ttl"))
    references = audit.column("reference")
    for turned in audit.turned:
        pairs = near_pairs(audit.hashes, turned, same=True)
        assert all(references[i] == references[j] for i, j, _ in pairs)


def test_a_name_that_a_spreadsheet_would_calculate(tmp_path: Path) -> None:
    root, file = write_photographs(tmp_path / "set", 0), tmp_path / "groups.csv"
    name = "=1+cmd.png"
    (root / "images/4.png").rename(root / name)
    photograph(4).resize((60, 45)).save(root / "images/11.png")
    table = (root / "ratings.csv").read_text()
    (root / "ratings.csv").write_text(table.replace("images/4.png", name))
    audit = audited(CSVData(root))
    write_groups(file, [audit], find_duplicates([audit]))
    with file.open(newline="") as text:
        cells = [value for row in csv.reader(text) for value in row]
    assert f"'{name}" in cells
    assert not any(value.startswith(("=", "+", "-", "@")) for value in cells)
    data = CSVData(root, group_file=file)
    data.prepare_data()
    reference = dict(zip(data.samples.table["image"], data.samples.table["reference"], strict=True))
    assert reference[name] == reference["images/11.png"]


def test_a_direction_that_the_table_says_is_told(tmp_path: Path) -> None:
    root = write_photographs(tmp_path / "set", 0)
    table = (root / "ratings.csv").read_text()
    (root / "ratings.csv").write_text(table.replace("image,mos,mos_std", "Image,DMOS,DMOS_std"))
    audit = audited(CSVData(root))
    assert audit.facts["direction"].endswith("; lower is better in the table, turned here")
    assert audit.findings == []
