"""FLIVE: the documented layout, generated, with and without the tables of the official split."""

from pathlib import Path

import pytest

from iqa_lightning.datasets.flive import FLIVE
from iqa_lightning.images.transforms import View
from tests.datasets.layouts import write_flive


def test_generated_release(tmp_path: Path) -> None:
    data = FLIVE(write_flive(tmp_path / "FLIVE"), view=View(0, 32))
    data.setup()
    table = data.samples.table
    assert data.name == "flive"
    assert tuple(table.iloc[1][["image", "mos"]]) == ("database/voc_emotic_ava/AVA__1.jpg", 51)
    assert list(table["official"]) == ["test"] * 3 + ["val"] + ["train"] * 8


def test_tables_inside_the_database_folder(tmp_path: Path) -> None:
    root = write_flive(tmp_path / "FLIVE")
    for path in root.glob("*.csv"):
        path.rename(root / "database" / path.name)
    data = FLIVE(root)
    data.prepare_data()
    assert list(data.samples.table["official"]) == ["test"] * 3 + ["val"] + ["train"] * 8


def test_official_split_is_all_or_nothing(tmp_path: Path) -> None:
    root = write_flive(tmp_path / "FLIVE")
    (root / "labels>640.csv").unlink()
    with pytest.raises(ValueError, match=r"'flive': .*labels>640\.csv does not exist"):
        FLIVE(root).prepare_data()
    (root / "labels<=640_padded.csv").unlink()
    data = FLIVE(root)
    data.prepare_data()
    assert set(data.samples.table["official"]) == {""}
