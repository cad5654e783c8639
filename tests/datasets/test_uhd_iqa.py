"""UHD-IQA: the documented layout, generated."""

from pathlib import Path

import pytest

from iqa_lightning.datasets.uhd_iqa import UHDIQA
from iqa_lightning.images.transforms import View
from tests.datasets.layouts import write_text, write_uhd_iqa


def test_generated_release(tmp_path: Path) -> None:
    data = UHDIQA(write_uhd_iqa(tmp_path / "UHD-IQA-database"), view=View(0, 32))
    data.setup()
    table = data.samples.table
    assert data.name == "uhd_iqa"
    assert list(table["image"][:4]) == [
        "training/0.jpg",
        "training/1.jpg",
        "validation/2.jpg",
        "test/3.jpg",
    ]
    assert list(table["official"][:4]) == ["train", "train", "val", "test"]
    assert table["mos"].iloc[3] == pytest.approx(0.35)


def test_unknown_set(tmp_path: Path) -> None:
    write_text(
        tmp_path / "uhd-iqa-metadata.csv",
        "image_name,quality_mos,set",
        "1.jpg,0.1,training",
        "2.jpg,0.2,spare",
    )
    with pytest.raises(
        ValueError, match=r"'uhd_iqa', .*row 2 \('spare/2.jpg'\): official is 'spare'"
    ):
        UHDIQA(tmp_path).prepare_data()
