"""Files as they lie on disks: what is read, what is refused, and with which words (others in test_base, test_csv)."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_lightning.data.csv import CSVData
from iqa_lightning.data.images import open_image
from tests.data.folders import noise, write_csv


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    noise(1).save(tmp_path / "1.jpg", "PNG")
    assert np.array_equal(np.asarray(open_image("set", tmp_path / "1.jpg", decode=True)), np.asarray(noise(1)))


def test_something_else_under_the_suffix_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_text("%PDF-1.7")
    with pytest.raises(ValueError, match=r"data set 'set': .*1\.png is not a readable image"):
        open_image("set", tmp_path / "1.png", decode=True)


def test_grey_with_alpha_becomes_rgb_without_it(tmp_path: Path) -> None:
    grey = noise(2).convert("LA")
    grey.putalpha(Image.fromarray(np.full((40, 48), 7, dtype=np.uint8)))
    grey.save(tmp_path / "1.png")
    found = np.asarray(open_image("set", tmp_path / "1.png", decode=True))
    assert np.array_equal(found, np.repeat(np.asarray(noise(2).convert("L"))[..., None], 3, axis=2))


def test_cmyk_is_converted_as_pillow_does(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "1.tif")
    found = np.asarray(open_image("set", tmp_path / "1.tif", decode=True))
    assert found.shape == (16, 16, 3)
    assert (found == (255, 0, 0)).all(), "magenta and yellow are red"


@pytest.mark.parametrize("decode", [True, False])
def test_sixteen_bits_and_floats_are_refused(decode: bool, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.float32)).save(tmp_path / "1.tif")
    Image.fromarray(np.zeros((8, 8), dtype=np.int32)).save(tmp_path / "2.tif")
    for name in ("1.tif", "2.tif"):
        with pytest.raises(ValueError, match=rf"{name} has more than 8 bits per channel; convert it"):
            open_image("set", tmp_path / name, decode=decode)


def test_a_bomb_is_refused_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(1).save(tmp_path / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    with pytest.raises(ValueError, match=r"1\.png is too large .*1920 pixels.*replace the file"):
        open_image("set", tmp_path / "1.png", decode=True)


def test_upper_and_lower_case_of_a_missing_file_is_pointed_out(tmp_path: Path) -> None:
    root = write_csv(tmp_path / "set")
    (root / "images/7.png").rename(root / "images/7.PNG")
    if (root / "images/7.png").exists():
        pytest.skip("this disk does not tell upper from lower case")
    with pytest.raises(
        ValueError, match=r"1 of 20 images are missing.*7\.png \(row 8.*, where 7\.PNG is: upper and lower"
    ):
        CSVData(root).prepare_data()
    (root / "images/7.PNG").unlink()
    with pytest.raises(ValueError, match=r"7\.png \(row 8 of [^,]*ratings\.csv\); complete"):
        CSVData(root).prepare_data()


def test_links_that_lead_in_circles(tmp_path: Path) -> None:
    root = write_csv(tmp_path / "set")
    path = root / "images/7.png"
    path.unlink()
    path.symlink_to("8.png")
    (root / "images/8.png").unlink()
    (root / "images/8.png").symlink_to("7.png")
    with pytest.raises(ValueError, match=r"2 of 20 images are missing.*7\.png"):
        CSVData(root).prepare_data()
    with pytest.raises(ValueError, match=r"7\.png does not exist"):
        open_image("set", path, decode=True)


def test_a_folder_that_contains_itself_does_no_harm(tmp_path: Path) -> None:
    root = write_csv(tmp_path / "set")
    (root / "images/again").symlink_to(root, target_is_directory=True)
    CSVData(root).setup()


@pytest.mark.parametrize("score", ['"3,5"', "3;5", '"1.000,5"'])
def test_comma_decimals_are_refused_and_not_guessed(score: str, tmp_path: Path) -> None:
    root = write_csv(tmp_path / "set")
    text = (root / "ratings.csv").read_text().replace("images/7.png,1.75,", f"images/7.png,{score},")
    (root / "ratings.csv").write_text(text)
    with pytest.raises(ValueError, match=r"row 8 \('images/7\.png'\): mos is .*not a finite number"):
        CSVData(root).prepare_data()


def test_a_comma_decimal_without_quotation_marks(tmp_path: Path) -> None:
    root = write_csv(tmp_path / "set")
    (root / "ratings.csv").write_text((root / "ratings.csv").read_text().replace("7.png,1.75,", "7.png,1,75,"))
    with pytest.raises(ValueError, match="row 8: 4 cells, 3 in the header"):
        CSVData(root).prepare_data()
