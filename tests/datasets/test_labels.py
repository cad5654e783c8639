"""Labels of images: the authors' 180 lists, what they say of LIVE, and what is refused."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from iqa_lightning.datasets.clive import CLIVE
from iqa_lightning.datasets.labels import LabelLists, read_labels
from iqa_lightning.datasets.samples import Samples, check_table
from iqa_lightning.metrics.liqe_labels import CLASS_OF

ROWS = ("a/1.png\t10\tlens\tnight\tinvalid\tinvalid", "a/2.png\t20\tfnoise\thuman\tindoor\tinvalid")
FADED = "fastfading/3.png\t30\twhite noise\tplant\tinvalid\tinvalid"


def write(folder: Path, *parts: str) -> Path:
    place = folder / "X" / "splits2" / "1"
    place.mkdir(parents=True)
    for part, rows in zip(("train", "val", "test"), parts, strict=True):
        (place / f"x_{part}_clip.txt").write_text(rows)
    return folder


def samples(*images: str) -> Samples:
    table = pd.DataFrame({"image": images, "mos": range(len(images)), "distortion": "its own"})
    return Samples("x", check_table("x", "here", table))


def test_all_official_lists(shared_data: Path) -> None:
    """specs/liqe.md, section 5: scenes per image 1/2/3 and fine labels of each set, the same in
    each of ten splits.
    """
    folder = shared_data / "splits" / "liqe" / "IQA_Database"
    files = sorted(folder.glob("*/splits2/[0-9]*/*_clip.txt"))
    assert len(files) == 180
    scenes: dict[tuple[str, str], Counter[int]] = {}
    kinds: dict[tuple[str, str], Counter[str]] = {}
    for file in files:
        key = file.parents[2].name, file.parent.name
        for _, distortion, shown in read_labels(file):
            scenes.setdefault(key, Counter())[len(shown)] += 1
            kinds.setdefault(key, Counter())[distortion] += 1
    expected = {
        "databaserelease2": (347, 432, 0),
        "CSIQ": (576, 232, 58),
        "BID": (377, 163, 46),
        "ChallengeDB_release": (629, 450, 83),
        "koniq-10k": (8224, 1629, 220),
        "kadid10k": (7625, 2375, 125),
    }
    for name, counts in expected.items():
        for split in range(1, 11):
            assert [scenes[name, str(split)][m] for m in (1, 2, 3)] == list(counts), (name, split)
            assert kinds[name, str(split)] == kinds[name, "1"]
    assert kinds["databaserelease2", "1"] == {
        "jpeg2000 compression": 169,
        "jpeg compression": 175,
        "gaussian blur": 145,
        "white noise": 290,
    }
    assert set(kinds["kadid10k", "1"].values()) == {405}
    assert len(kinds["kadid10k", "1"]) == 25
    clive = {CLASS_OF[label]: n for label, n in kinds["ChallengeDB_release", "1"].items()}
    assert clive == {
        "blur": 499,
        "other": 437,
        "underexposure": 105,
        "noise": 62,
        "contrast": 30,
        "overexposure": 29,
    }


def test_fast_fading_can_be_corrected(shared_data: Path) -> None:
    folder = shared_data / "splits" / "liqe" / "IQA_Database" / "databaserelease2" / "splits2" / "7"
    rows = [
        row
        for file in sorted(folder.glob("*_clip.txt"))
        for row in read_labels(file, correct_fast_fading=True)
    ]
    assert Counter(row.distortion for row in rows)["fastfading"] == 145
    assert Counter(row.distortion for row in rows)["white noise"] == 145
    assert {CLASS_OF[row.distortion] for row in rows if "fastfading" in row.row.cells[0]} == {
        "jpeg2000 compression"
    }


def test_labels_of_clive_reach_its_table(shared_data: Path) -> None:
    data = CLIVE(
        shared_data / "clive" / "ChallengeDB_release",
        labels=shared_data / "splits" / "liqe",
        split=4,
    )
    data.tabulate()
    table = data.samples.table.set_index("image")
    assert table.loc["Images/509.bmp", "distortion"] == "realistic blur"
    assert table.loc["Images/211.bmp", "scene"] == "human+landscape"
    assert (table["scene"] != "").all()


def test_lists_take_the_place_of_the_table(tmp_path: Path) -> None:
    write(tmp_path, *ROWS, FADED)
    found = (
        LabelLists(tmp_path)
        .label(samples("a/1.png", "a/2.png", "fastfading/3.png", "a/4.png"), ["x"], 1)
        .table
    )
    assert found["distortion"].tolist() == ["lens", "fnoise", "white noise", ""]
    assert found["scene"].tolist() == ["night", "human+indoor", "plant", ""]
    lists = LabelLists(tmp_path, correct_fast_fading=True)
    assert (
        lists.label(samples("a/1.png", "a/2.png", "fastfading/3.png"), ["x"], 1).table[
            "distortion"
        ][2]
        == "fastfading"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "a/1.png\t1\tfog\tnight\tinvalid\tinvalid",
            r"x_val_clip\.txt, row 1 \('a/1\.png'\): the distortion 'fog'",
        ),
        ("a/1.png\t1\tlens\tbeach\tinvalid\tinvalid", "the scene 'beach' is not one of animal"),
        ("a/1.png\t1\tlens\tinvalid\tinvalid\tinvalid", "the scene 'none'"),
        ("a/1.png\t1\tlens", "3 cells separated by tabs, at least 6"),
        ("a/9.png\t1\tlens\tnight\tinvalid\tinvalid", r"the image 'a/9\.png' is not in the table"),
    ],
)
def test_what_is_refused(row: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, ROWS[1], row, FADED)
    with pytest.raises(ValueError, match=message):
        LabelLists(tmp_path).label(samples("a/1.png", "a/2.png", "fastfading/3.png"), ["x"], 1)


def test_no_lists(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no lists x_train_clip\.txt of split 3 with labels under"
    ):
        LabelLists(tmp_path).label(samples("a/1.png", "a/2.png"), ["y", "x"], 3)
