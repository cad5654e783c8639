"""KonIQ-10k: both tables, the official one with its split whole."""

from pathlib import Path
from shutil import copy

import pytest

from iqa_lightning.datasets.koniq10k import KonIQ10k
from iqa_lightning.images.transforms import View
from tests.datasets.layouts import assert_as_listed, write_koniq10k, write_text


def test_generated_release(tmp_path: Path) -> None:
    """Image 0 has 2, 3, 4 and 5 ratings of 2 to 5: 54 / 14."""
    data = KonIQ10k(write_koniq10k(tmp_path / "koniq"), view=View(0, 32))
    data.setup()
    table = data.samples.table
    assert data.name == "koniq10k"
    assert tuple(table.iloc[0][["image", "mos_std", "official"]]) == ("1024x768/0.jpg", 0.5, "")
    assert table["mos"].iloc[[0, 10]].tolist() == pytest.approx([54 / 14, 64 / 24])


@pytest.mark.parametrize("image", ["../../etc/passwd", "/etc/passwd", "x/../../secret.jpg"])
def test_no_way_out_of_the_folder(image: str, tmp_path: Path) -> None:
    root = write_koniq10k(tmp_path / "koniq")
    rows = [f"{name},0,0,{i},1,0,9,50,0.5,test" for i, name in enumerate(("1.jpg", f"../{image}"))]
    write_text(
        root / "koniq10k_distributions_sets.csv",
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set",
        *rows,
    )
    with pytest.raises(ValueError, match=r"'koniq10k', .*row 2 .*outside of the folder"):
        KonIQ10k(root).prepare_data()


def test_official_table(shared_data: Path, tmp_path: Path) -> None:
    """Rows copied by hand."""
    copy(
        shared_data / "tables" / "koniq" / "metadata" / "koniq10k_distributions_sets.csv", tmp_path
    )
    table = KonIQ10k(tmp_path).read_table()
    assert len(table) == 10073
    assert dict(table["official"].value_counts()) == {"train": 7058, "val": 1000, "test": 2015}
    assert (table["mos"].min(), table["mos"].max()) == pytest.approx((1.096154, 4.31), abs=1e-6)
    found = table.set_index("image")
    first = found.loc["1024x768/10004473376.jpg"]
    assert first["mos"] == pytest.approx(
        3 * 0.238095238095 + 4 * 0.695238095238 + 5 * 0.0666666666667
    )
    assert (first["mos_std"], first["official"]) == (pytest.approx(0.527277894494), "train")
    assert found.loc["1024x768/10007357496.jpg", "official"] == "test"
    assert found.loc["1024x768/9996001596.jpg", "mos"] == pytest.approx(3.417476, abs=1e-6)
    assert_as_listed(table, shared_data, "koniq-10k", "koniq10k")
