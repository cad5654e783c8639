"""LIVE in the Wild: the official layout, generated and real."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from iqa_lightning.datasets.clive import CLIVE
from iqa_lightning.images.transforms import View
from tests.datasets.folders import write_clive


def test_generated_release(tmp_path: Path) -> None:
    data = CLIVE(write_clive(tmp_path / "release"), view=View(0, 32))
    data.prepare_data()
    data.setup()
    table = data.samples.table
    assert data.name == "clive"
    assert list(table["image"][:3]) == ["Images/1.bmp", "Images/2.JPG", "Images/3.bmp"]
    assert list(table["mos"]) == [3.5 * (7 + i) for i in range(14)]
    assert table["mos_std"][0] == pytest.approx(10 + 10 * 7 / 20)
    palette = Image.open(data.root / "Images" / "1.bmp")
    assert palette.mode == "P"
    assert np.array_equal(np.asarray(data.load_image(0)), np.asarray(palette.convert("RGB")))


def test_missing_root_says_where_to_get_it_and_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist") as error:
        CLIVE(tmp_path / "nowhere", name="wild").prepare_data()
    for word in ("'wild'", "nowhere", "ChallengeDB", "stream.tasks.wild.root", "paths.data"):
        assert word in str(error.value)


@pytest.mark.parametrize("key", ["AllImages", "AllMOS", "AllStdDev"])
@pytest.mark.parametrize("damage", ["missing", "garbage", "other name", "short"])
def test_damaged_tables(key: str, damage: str, tmp_path: Path) -> None:
    root = write_clive(tmp_path / "release")
    path = root / "Data" / f"{key}_release.mat"
    if damage == "missing":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"garbage" * 50)
    else:
        savemat(path, {f"{key}_release" if damage == "short" else "x": np.array([[1.0, 2.0]])})
    with pytest.raises(ValueError, match=r"data set 'clive': .*ChallengeDB/index\.html"):
        CLIVE(root).prepare_data()


def test_missing_image(tmp_path: Path) -> None:
    root = write_clive(tmp_path / "release")
    (root / "Images" / "4.JPG").unlink()
    with pytest.raises(
        ValueError, match=r"1 of 14 images are missing, the first is .*4\.JPG \(row 4"
    ):
        CLIVE(root).prepare_data()


def test_real_release(shared_data: Path) -> None:
    """Values read by hand from the tables of the release; the one test that decodes all images."""
    data = CLIVE(shared_data / "clive" / "ChallengeDB_release", view=View(0, 224))
    data.setup()
    table = data.samples.table
    assert len(table) == 1162
    assert (table["mos"].min(), table["mos"].max()) == (
        pytest.approx(3.42),
        pytest.approx(92.431953, abs=1e-6),
    )
    assert tuple(map(len, data.parts)) == (813, 116, 233)
    published = table.set_index("image").loc["Images/908.JPG"]
    assert tuple(published[["mos", "mos_std"]]) == pytest.approx((73.242105, 18.324365), abs=1e-6)
    assert table["image"].str.endswith((".bmp", ".JPG")).all()
    assert not table["image"].str.contains("training").any()
    assert data.part("train").sizes.min() == 224
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (16, 3, 224, 224)


def test_published_lists_agree(shared_data: Path) -> None:
    """The scores of the split lists of LIQE and BIQA_CL are those of the release."""
    table = CLIVE(shared_data / "clive" / "ChallengeDB_release").read_table().set_index("image")
    folder = (
        shared_data
        / "splits"
        / "biqa_cl"
        / "IQA_Database"
        / "ChallengeDB_release"
        / "splits2"
        / "1"
    )
    lines = (folder / "clive_val.txt").read_text().splitlines()
    assert len(lines) == 116
    for line in lines:
        image, mos, deviation = line.split("\t")
        assert tuple(table.loc[image, ["mos", "mos_std"]]) == pytest.approx(
            (float(mos), float(deviation)), abs=1e-6
        )
