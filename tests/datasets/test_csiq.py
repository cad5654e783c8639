"""CSIQ: the workbook generated, both official tables whole."""

from pathlib import Path
from shutil import copy

import pytest

from iqa_lightning.datasets.csiq import CSIQ
from iqa_lightning.images.transforms import View
from tests.datasets.layouts import assert_as_listed, write_csiq, write_text


def test_generated_release(tmp_path: Path) -> None:
    data = CSIQ(write_csiq(tmp_path / "CSIQ"), view=View(0, 32))
    data.setup()
    table = data.samples.table
    assert data.name == "csiq"
    assert len(table) == 36
    assert tuple(table.iloc[0])[:6] == (
        "dst_imgs/awgn/1600.AWGN.1.png",
        0.9,
        0.01,
        "1600",
        "white_noise",
        1,
    )
    assert tuple(table.iloc[-1])[3:6] == ("ref_3", "contrast_change", 3)
    assert tuple(table.iloc[12][["image", "distortion"]]) == (
        "dst_imgs/jpeg2000/1600.jpeg2000.1.png",
        "jpeg2000",
    )
    assert table["mos"].iloc[-1] == pytest.approx(0.67)
    assert data.image_path(0) == data.root / "dst_imgs" / "AWGN" / "1600.AWGN.1.png"


def test_unknown_distortion_and_text_among_the_scores(tmp_path: Path) -> None:
    write_text(
        tmp_path / "csiq.beta.txt", "1600\t1\tnoise\t1\t0.1\t0.1", "1600\t9\tsnow\t1\t0.1\t0.2"
    )
    with pytest.raises(
        ValueError, match=r"'csiq': row 2 of .*csiq\.beta\.txt names the distortion 'snow'"
    ):
        CSIQ(tmp_path).prepare_data()
    write_text(tmp_path / "csiq.beta.txt", "1600\t1\tnoise\t1\t0.1\t0,1")
    with pytest.raises(ValueError, match=r"'csiq': .*csiq\.beta\.txt cannot be read \(.*0,1"):
        CSIQ(tmp_path).prepare_data()


@pytest.mark.parametrize("table", ["csiq.beta.txt", "csiq.beta.xlsx"])
def test_official_tables(table: str, shared_data: Path, tmp_path: Path) -> None:
    """Rows copied by hand from the text; the workbook has more digits."""
    copy(shared_data / "tables" / "unique" / "IQA_database" / "CSIQ" / "splits2" / table, tmp_path)
    rows = CSIQ(tmp_path).read_table()
    assert len(rows) == 866
    assert rows["reference"].nunique() == 30
    assert sorted(rows["distortion"].value_counts()) == [116, 150, 150, 150, 150, 150]
    assert rows["mos"].between(0, 1).all()
    found = rows.set_index("image")
    for image, dmos, deviation, distortion, level in (
        ("dst_imgs/awgn/1600.AWGN.1.png", 0.062, 0.061, "white_noise", 1),
        ("dst_imgs/jpeg/native_american.JPEG.5.png", 0.827, 0.036, "jpeg", 5),
        ("dst_imgs/contrast/woman.contrast.4.png", 0.469, 0.226, "contrast_change", 4),
        ("dst_imgs/blur/snow_leaves.BLUR.5.png", 0.696, 0.079, "gaussian_blur", 5),
    ):
        row = found.loc[image]
        assert (row["mos"], row["mos_std"]) == pytest.approx((1 - dmos, deviation), abs=6e-4)
        assert (row["distortion"], row["level"]) == (distortion, level)
    stronger = rows.groupby("level")["mos"].mean()
    assert stronger.is_monotonic_decreasing, "a stronger distortion must look worse"
    if table == "csiq.beta.txt":
        assert (rows["mos_std"] == 0).sum() == 25
        # In the lists of LIQE and BIQA_CL these six have deviations of other references (geckos
        # those of bridge).
        mixed = rows["reference"].isin(
            ["elk", "family", "foxy", "geckos", "roping", "sunset_sparrow"]
        )
        assert_as_listed(
            rows.assign(mos_std=rows["mos_std"].mask(mixed)), shared_data, "CSIQ", "csiq"
        )
