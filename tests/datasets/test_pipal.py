"""PIPAL: the documented layout, generated, images in one folder or in those of the archives."""

from pathlib import Path

import pytest

from iqa_lightning.datasets.pipal import PIPAL
from iqa_lightning.images.transforms import View
from tests.datasets.layouts import write_pipal, write_text


def test_generated_release(tmp_path: Path) -> None:
    data = PIPAL(write_pipal(tmp_path / "PIPAL"), view=View(0, 32))
    data.setup()
    table = data.samples.table
    assert data.name == "pipal"
    assert len(table) == 36
    assert tuple(table.iloc[0][["image", "mos", "reference", "distortion"]]) == (
        "Train_Dist/A0001_00_00.bmp",
        1401.5,
        "A0001",
        "kind_00",
    )
    assert tuple(table.iloc[-1][["image", "mos"]]) == ("Train_Dist/A0006_06_02.bmp", 1456.5)
    assert data.image_path(35) == data.root / "Distortion_2" / "A0006_06_02.bmp"


def test_missing_labels_images_and_unknown_names(tmp_path: Path) -> None:
    root = write_pipal(tmp_path / "PIPAL")
    (root / "Distortion_2" / "A0006_06_02.bmp").unlink()
    with pytest.raises(
        ValueError, match=r"1 of 36 images are missing, the first is .*Train_Dist/A0006_06_02\.bmp"
    ):
        PIPAL(root).prepare_data()
    write_text(root / "Train_Label" / "A0007.txt", "A0007.bmp,1500")
    with pytest.raises(ValueError, match=r"'pipal': .*A0007\.txt names the image 'A0007\.bmp'"):
        PIPAL(root).prepare_data()
    for path in (root / "Train_Label").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"'pipal': no \*\.txt in .*Train_Label"):
        PIPAL(root).prepare_data()
