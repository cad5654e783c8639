"""The files of a run folder: what is written comes back, what is wrong is refused by name, a crash
leaves nothing.
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iqa_lightning.files import write_bytes
from iqa_lightning.records import RunFolder


def frame(**columns) -> pd.DataFrame:
    table = {
        "dataset": ["a", "a", "b", "b"],
        "split": ["val", "test", "val", "test"],
        "image": ["1.png", "2.png", "1.png", "bäum/2.png"],
        "mos": [10.0, 20.5, 30.0, 1 / 3],
        "latest": [0.1, 0.2, 0.3, 0.4],
        "gated": [0.1, 0.2, math.nan, math.nan],
        "score/a": [0.1, 0.2, 0.3, 0.4],
        "gate/a": [1.0, 1.0, 1.0, 1.0],
    }
    return pd.DataFrame(
        {name: value for name, value in {**table, **columns}.items() if value is not None}
    )


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_predictions_come_back_in_the_order_of_the_tasks(folder: RunFolder) -> None:
    names = [
        "start",
        *(f"t{10 - i}" for i in range(10)),
        "x-1+y_2",
    ]  # task 10 sorts before 2 by name
    for t, task in reversed(list(enumerate(names))):
        assert folder.write_predictions(t, task, frame()).name == f"after_{t}_{task}.parquet"
    assert list(folder.predictions()) == names


def test_predictions_keep_values_types_and_rows(folder: RunFolder) -> None:
    folder.write_predictions(0, "start", frame().iloc[::-1])
    stored = folder.predictions()["start"]
    assert list(stored["image"]) == ["bäum/2.png", "1.png", "2.png", "1.png"]
    assert list(stored.columns) == list(frame().columns)
    assert stored["mos"].dtype == np.float64
    assert stored["mos"][0] == 1 / 3
    for name in ("latest", "gated", "score/a", "gate/a"):
        assert stored[name].dtype == np.float32
    np.testing.assert_array_equal(
        stored["gated"], np.array([math.nan, math.nan, 0.2, 0.1], np.float32)
    )


def test_the_content_of_an_image_may_be_stored_and_comes_after_its_rating(
    folder: RunFolder,
) -> None:
    path = folder.write_predictions(
        0, "start", frame().assign(**{"image/reference": ["x", "y", "x", "z"]})
    )
    stored = pq.read_table(path)
    assert stored.column_names[3:6] == ["mos", "image/reference", "latest"]
    assert stored["image/reference"].to_pylist() == ["x", "y", "x", "z"]
    folder.write_predictions(1, "a", frame())  # records of an older version hold none
    assert list(folder.predictions()) == ["start", "a"]
    folder.write_predictions(
        1, "a", frame().assign(**{"image/reference": ["x", "y", "x", "other"]})
    )
    with pytest.raises(ValueError, match="'other'"):
        folder.predictions()


def test_what_is_known_of_an_image_may_be_stored(folder: RunFolder) -> None:
    known = {"mos_std": [1.0, 2.0, math.nan, 4.0], "image/scene": ["city+night", "", "", ""]}
    path = folder.write_predictions(
        0, "start", frame(**known, **{"image/distortion": ["blur", "", "noise", ""]})
    )
    stored = pq.read_table(path)
    assert stored.column_names[4:6] == ["image/distortion", "image/scene"]
    assert stored["image/scene"].to_pylist() == ["city+night", "", "", ""]
    assert folder.predictions()["start"]["mos_std"].dtype == np.float32
    with pytest.raises(ValueError, match="column 'image/scene' holds something that is not text"):
        folder.write_predictions(0, "start", frame(**{"image/scene": ["x", None, "y", "z"]}))


def test_columns_are_stored_in_one_order(folder: RunFolder) -> None:
    path = folder.write_predictions(0, "start", frame())
    once = path.read_bytes()
    folder.write_predictions(
        0,
        "start",
        frame()[["gated", "score/a", "mos", "gate/a", "image", "latest", "split", "dataset"]],
    )
    assert path.read_bytes() == once


def test_the_same_predictions_give_the_same_bytes(folder: RunFolder, tmp_path: Path) -> None:
    one, other = (
        folder.write_predictions(1, "a", frame()),
        RunFolder(tmp_path / "other").write_predictions(1, "a", frame()),
    )
    assert one.read_bytes() == other.read_bytes()
    RunFolder(tmp_path / "again").write_predictions(1, "a", pd.read_parquet(one))
    assert (tmp_path / "again/predictions" / one.name).read_bytes() == one.read_bytes()
    assert pq.read_schema(one).metadata is None  # pandas would write its version


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"mos": None}, "column 'mos' is missing"),
        (
            {"latest": None, "gated": None},
            "no readout column; expected one or more of single, latest, oracle, gated",
        ),
        ({"gatd": [0.0] * 4}, "column 'gatd' is not known"),
        ({"score/": [0.0] * 4}, "column 'score/' is not known"),
        ({"scene/still life": [0.0] * 4}, "column 'scene/still life' is not known"),
        ({"scene/night": ["x"] * 4}, "column 'scene/night' holds"),
        ({"split": ["val", "test", "train", "test"]}, "column 'split' holds 'train'"),
        ({"mos": [1.0, math.nan, 2.0, 3.0]}, r"column 'mos' holds nan for image '2.png' \(row 1\)"),
        ({"mos": ["1", "2", "3", "4"]}, "column 'mos' holds (object|str), expected numbers"),
        ({"latest": [True] * 4}, "column 'latest' holds bool"),
        (
            {"image": ["1.png"] * 4, "split": ["test"] * 4},
            r"image '1.png' of 'a' \(test\) is there twice",
        ),
        ({"image": ["1.png", None, "3", "4"]}, "column 'image' holds something that is not text"),
        ({"dataset": ["a b"] * 4, "image": list("1234")}, "'a b' cannot name a data set"),
        ({"dataset": ["start"] * 4, "image": list("1234")}, "'start' cannot name a data set"),
    ],
)
def test_wrong_tables_are_refused_by_file_and_column(
    folder: RunFolder, columns, message: str
) -> None:
    with pytest.raises(ValueError, match=f"after_1_a.parquet: {message}"):
        folder.write_predictions(1, "a", frame(**columns))
    assert not folder.path.exists()


def test_no_rows_and_two_columns_of_one_name_are_refused(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match="no rows"):
        folder.write_predictions(1, "a", frame().iloc[:0])
    with pytest.raises(ValueError, match="two columns have one name"):
        folder.write_predictions(1, "a", pd.concat([frame(), frame()[["mos"]]], axis=1))


@pytest.mark.parametrize(("t", "task"), [(1, "a/b"), (1, ""), (0, "a"), (1, "start"), (-1, "a")])
def test_names_that_make_no_file_are_refused(folder: RunFolder, t: int, task: str) -> None:
    with pytest.raises(ValueError, match="cannot name task"):
        folder.write_predictions(t, task, frame())


def test_folders_that_are_no_run_are_refused(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match=r"there is no run folder .*run"):
        folder.predictions()
    folder.path.mkdir()
    with pytest.raises(
        ValueError, match=r"holds no predictions/after_<t>_<task>.parquet: is it a run folder\?"
    ):
        folder.predictions()


def test_missing_and_doubled_tasks_are_refused(folder: RunFolder) -> None:
    folder.write_predictions(2, "b", frame())
    folder.write_predictions(0, "start", frame())
    with pytest.raises(ValueError, match=r"lacks after_1_<task>.parquet"):
        folder.predictions()
    folder.write_predictions(1, "a", frame())
    assert list(folder.predictions()) == ["start", "a", "b"]
    folder.write_predictions(1, "c", frame())
    with pytest.raises(
        ValueError, match=r"after_1_c.parquet and after_1_a.parquet are both task 1"
    ):
        folder.predictions()


def test_a_task_that_comes_twice_needs_two_names(folder: RunFolder) -> None:
    for t, task in enumerate(("start", "a", "a")):
        folder.write_predictions(t, task, frame())
    with pytest.raises(
        ValueError, match=r"after_2_a.parquet: another file in this folder is after 'a' too"
    ):
        folder.predictions()


def test_runs_without_a_start_are_refused(folder: RunFolder) -> None:
    folder.write_predictions(1, "a", frame())
    with pytest.raises(ValueError, match=r"lacks after_0_start.parquet"):
        folder.predictions()


def test_strange_and_broken_files_are_refused(folder: RunFolder) -> None:
    path = folder.write_predictions(0, "start", frame())
    stray = path.with_name("after_1_a (copy).parquet")
    stray.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"after_1_a \(copy\).parquet is not named"):
        folder.predictions()
    stray.rename(path.with_name("after_1_a.parquet"))
    path.with_name("after_1_a.parquet").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"after_1_a.parquet cannot be read as parquet"):
        folder.predictions()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"gated": None},
            r"after_1_a.parquet holds the readouts \['latest'\], after_0_start.parquet holds",
        ),
        (
            {"image": ["1.png", "3.png", "1.png", "bäum/2.png"]},
            "disagree in row 1, column 'image': '3.png' and '2.png'",
        ),
        ({"mos": [10.0, 20.5, 30.0, 0.3]}, "disagree in row 3, column 'mos'"),
    ],
)
def test_files_of_two_runs_are_refused(folder: RunFolder, columns, message: str) -> None:
    folder.write_predictions(0, "start", frame())
    folder.write_predictions(1, "a", frame(**columns))
    with pytest.raises(ValueError, match=message):
        folder.predictions()


def test_files_of_different_length_are_refused(folder: RunFolder) -> None:
    folder.write_predictions(0, "start", frame())
    folder.write_predictions(1, "a", frame().iloc[:3])
    with pytest.raises(ValueError, match=r"holds 3 rows, after_0_start.parquet holds 4"):
        folder.predictions()


CELL = st.floats(-1, 1) | st.just(math.nan)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=4))
def test_matrices_come_back_bit_for_bit(folder: RunFolder, rows) -> None:
    names = ["start", "NA", "null", "007"][: len(rows)]
    matrix = pd.DataFrame(rows, index=pd.Index(names, name="after"), columns=["nan", "b", "c"])
    folder.write_matrix("srcc_latest", matrix)
    pd.testing.assert_frame_equal(folder.read_matrix("srcc_latest"), matrix, check_exact=True)
    assert list(folder.matrices("srcc")) == ["latest"]


def test_the_text_of_a_matrix(folder: RunFolder) -> None:
    matrix = pd.DataFrame(
        [[math.nan, 0.1], [2 / 3, -1.0]], index=["start", "a"], columns=["a", "b"]
    )
    folder.write_matrix("srcc_single", matrix)
    assert (
        folder.path / "srcc_single.csv"
    ).read_bytes() == b"after,a,b\nstart,,0.1\na,0.6666666666666666,-1.0\n"


def test_missing_matrices_are_named(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match=r"stability_single.csv is missing: .*evaluate run="):
        folder.matrices("stability")


def test_summary_keeps_what_is_not_rewritten(folder: RunFolder) -> None:
    assert folder.read_summary() == {}
    folder.write_summary(
        {
            "cost": {"train_seconds": np.float64(1.5), "images_seen": np.int64(7)},
            "method": "x",
            "seed": 0,
        }
    )
    folder.write_summary(
        {
            "readouts": {"single": {"msrcc": 0.5, "bwt": math.nan}},
            "finished": True,
            "order": ("a", "b"),
        }
    )
    summary = json.loads((folder.path / "summary.json").read_text())
    assert summary == folder.read_summary() == {
        "method": "x",
        "order": ["a", "b"],
        "seed": 0,
        "finished": True,
        "readouts": {"single": {"msrcc": 0.5, "bwt": None}},
        "cost": {"train_seconds": 1.5, "images_seen": 7},
    }  # fmt: skip
    assert list(summary) == ["method", "order", "seed", "finished", "readouts", "cost"]
    before = (folder.path / "summary.json").read_bytes()
    folder.write_summary(summary)
    assert (folder.path / "summary.json").read_bytes() == before


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_broken_summary_is_named(folder: RunFolder, text: str) -> None:
    folder.path.mkdir()
    (folder.path / "summary.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"summary.json cannot be read"):
        folder.read_summary()


def test_a_crash_in_the_middle_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "summary.json"
    write_bytes(path, b"old")

    def power_cut(*_: object) -> None:
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", power_cut)
        with pytest.raises(OSError, match="power cut"):
            write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_clean_removes_what_a_killed_writer_left(folder: RunFolder) -> None:
    path = folder.write_predictions(0, "start", frame())
    for left in (path.with_name(f".{path.name}.1.part"), folder.path / ".summary.json.2.part"):
        left.write_bytes(b"half")
    assert list(folder.predictions()) == ["start"]
    folder.clean()
    assert sorted(p.name for p in folder.path.rglob("*")) == [
        "after_0_start.parquet",
        "checksums.json",
        "predictions",
    ]
