"""AGIQA-3K: the layout generated, the official table whole."""

from pathlib import Path

import pytest

from iqa_lightning.datasets.agiqa3k import AGIQA3K
from iqa_lightning.images.transforms import View
from tests.datasets.layouts import write_agiqa3k


def test_generated_release(tmp_path: Path) -> None:
    data = AGIQA3K(write_agiqa3k(tmp_path / "AGIQA-3K"), view=View(0, 32))
    data.setup()
    table = data.samples.table
    assert data.name == "agiqa3k"
    last = ("sd1.5_lowstep_007.jpg", 3.6, 0.3, "a cat, number 7", "sd1.5_lowstep")
    assert tuple(table.iloc[-1])[:5] == last
    assert table["reference"].nunique() == 8


def test_official_table(shared_data: Path) -> None:
    """Rows copied by hand."""
    table = AGIQA3K(shared_data / "tables" / "agiqa3k").read_table()
    assert len(table) == 2982
    assert table["reference"].nunique() == 300
    assert table["reference"].value_counts().max() == 10
    assert sorted(table["distortion"].value_counts()) == [290, 296, 296] + [300] * 7
    assert (table["mos"].min(), table["mos"].max()) == (0, pytest.approx(4.488741, abs=1e-6))
    first = (
        "AttnGAN_normal_000.jpg",
        0.965602553,
        0.223270101,
        "statue of a man",
        "AttnGAN_normal",
    )
    assert tuple(table.iloc[0]) == first
    best = table.set_index("image").loc["midjourney_normal_000.jpg"]
    assert tuple(best[["mos", "mos_std", "reference"]]) == (
        pytest.approx(4.324875, abs=1e-6),
        pytest.approx(0.596422, abs=1e-6),
        "statue of a man",
    )
    assert table.groupby("distortion")["mos"].mean().idxmin() == "AttnGAN_normal"
