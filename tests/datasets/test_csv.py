"""Folders with a `ratings.csv`: tolerant of editors, strict with what cannot be meant (more in
test_bad_input).
"""

from pathlib import Path

import numpy as np
import pytest

from iqa_lightning.datasets.csv import CSVData
from tests.datasets.folders import write_csv

CLIP = "BennuProRes4444.mov"
ROWS = "".join(f"images/{i}.png,{i}\n" for i in range(12))


def table(root: Path, text: str | bytes, **options: object) -> CSVData:
    write_csv(root, 12)
    (root / "ratings.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    data = CSVData(root, **options)
    data.prepare_data()
    return data


@pytest.mark.parametrize(
    "text",
    [
        "mos , image\n" + "".join(f" {i} ,images\\{i}.png\n" for i in range(12)),
        "image,mos,comment\n" + "".join(f'"./images/{i}.png",{i},"a, b"\n' for i in range(12)),
        "\n\nimage,mos\n\n" + ROWS + "\n\n",
    ],
)
def test_what_editors_do_is_tolerated(text: str | bytes, tmp_path: Path) -> None:
    data = table(tmp_path / "my set", text)
    assert data.name == "my_set"
    assert list(data.samples.table["image"]) == [f"images/{i}.png" for i in range(12)]
    assert list(data.samples.table["mos"]) == list(range(12))
    assert data.native_range == (0, 11)


def test_all_columns(tmp_path: Path) -> None:
    rows = "".join(f"images/{i}.png,{i},{i / 10 if i else ''},g{i % 6},jpeg\n" for i in range(12))
    samples = table(tmp_path / "set", "image,mos,mos_std,group,distortion\n" + rows).samples.table
    assert np.isnan(samples["mos_std"][0])
    assert samples["mos_std"][3] == 0.3
    assert list(samples["reference"][:3]) == ["g0", "g1", "g2"]
    assert set(samples["distortion"]) == {"jpeg"}


@pytest.mark.parametrize(("limits", "first"), [(None, 11), ((0, 100), 100), ([-1, 11], 10)])
def test_lower_is_better_is_mirrored(
    limits: tuple[float, float] | None, first: float, tmp_path: Path
) -> None:
    data = table(
        tmp_path / "set", "image,mos\n" + ROWS, higher_is_better=False, native_range=limits
    )
    assert list(data.samples.table["mos"]) == [first - i for i in range(12)]
    assert not data.native_higher_is_better


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no column 'image'"),
        ("image,mos\n", "no rows"),
        (
            "picture,mos\n" + ROWS,
            "no column 'image'; the columns are picture, mos; if 'picture' is",
        ),
        ("image/mos\n" + ROWS.replace(",", "/"), "no column 'image'; the columns are image/mos"),
        ("image,mos\n" + ROWS.replace(",3\n", ",3,4\n"), "row 4: 3 cells, 2 in the header"),
        ("image,mos\n" + ROWS.replace(",3\n", "\n"), "row 4: 1 cells, 2 in the header"),
        ("image,mos,mos\n" + ROWS.replace(",", ",1,"), "two columns 'mos'"),
        ("image,mos\n" + ROWS.replace(",3\n", ",\n"), r"row 4 \('images/3.png'\): mos is missing"),
        ("image,mos\n" + ROWS.replace(",3\n", ",n/a\n"), r"row 4 \('images/3.png'\): mos is 'n/a'"),
        ("image,mos\n" + ROWS.replace("images/3.png", "images/1.png"), "already in row 2"),
        ("image,mos\n" + ROWS.replace("images/3.png", "images//1.png"), "already in row 2"),
        ("image,mos\n" + ROWS.replace("images/3.png", ""), "row 4: the image has no name"),
        (
            "image,mos\n" + ROWS.replace("3.png", "33.png"),
            r"1 of 12 images are missing.*33\.png \(row 4",
        ),
        ("image,mos\n" + "".join(f"images/{i}.png,5\n" for i in range(12)), "all 12 mos are 5"),
        ("image,mos\nimages/1.png,1\nimages/2.png,2\n", "2 images in 2 groups .* cannot be split"),
        (
            "image,mos,group\n" + ROWS.replace("\n", ",one\n"),
            "12 images in 1 groups .* cannot be split",
        ),
        ("image,mos\n" + ROWS + '"images', "not a readable table"),
        (b"image,mos\n" + b"\xff\xfe\xfa,1\n", "not a readable table.*UTF-8"),
    ],
)
def test_bad_tables_are_refused_before_anything_is_decoded(
    text: str | bytes, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"data set 'set'.*{words}"):
        table(tmp_path / "set", text)


def test_missing_table_and_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"ratings\.csv does not exist; write it with the header image,mos"
    ):
        CSVData(tmp_path).prepare_data()
    with pytest.raises(ValueError, match=r"stream\.tasks\.gone\.root=.*paths\.data"):
        CSVData(tmp_path / "gone").prepare_data()
    (tmp_path / "ratings.csv").mkdir()
    with pytest.raises(ValueError, match="not a readable table"):
        CSVData(tmp_path).prepare_data()


def test_declared_range_is_checked_before_mirroring(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"row 12 \('images/11.png'\): mos 11 is outside the range 0 to 10"
    ):
        table(tmp_path / "set", "image,mos\n" + ROWS, higher_is_better=False, native_range=(0, 10))
    with pytest.raises(ValueError, match="lower score first"):
        CSVData(tmp_path, native_range=(5, 1))


@pytest.mark.parametrize(
    ("name", "count", "groups", "limits", "row"),
    # rows copied by hand from the files
    [
        ("mmp2k", 1200, 1200, (0.0, 86.76), ("images/2.jpg", 58.82, 17.5472, "2", "underexposure")),
        (
            "ttl",
            324,
            38,
            (1.0, 4.619048),
            (
                f"images/{CLIP}_1frame_crf_03_height_0864.jpg",
                3.095238,
                0.768424,
                CLIP,
                "hevc_downscale",
            ),
        ),
        (
            "avt_ai",
            145,
            27,
            (1.28, 4.32),
            ("images/craiyon/p01.jpg", 2.28, 0.979796, "p01", "craiyon"),
        ),
    ],
)
def test_real_folders(
    shared_data: Path, name: str, count: int, groups: int, limits: tuple, row: tuple
) -> None:
    for split in range(1, 11):
        data = CSVData(shared_data / name, split=split, native_range=(0, 100))
        data.prepare_data()
        samples, parts = data.samples.table, data.parts
        assert len(samples) == count
        assert samples["reference"].nunique() == groups
        assert (samples["mos"].min(), samples["mos"].max()) == pytest.approx(limits)
        assert tuple(samples.iloc[0])[:5] == row
        sides = [set(samples["reference"].iloc[rows]) for rows in parts]
        assert sum(map(len, sides)) == groups, "a group straddles two parts"
        shares = np.array(list(map(len, parts))) / count
        assert np.abs(shares - (0.7, 0.1, 0.2)).max() < 0.03


def test_zero_deviations_are_kept(shared_data: Path) -> None:
    """Nineteen images of TTL on whose score all raters agreed."""
    assert (CSVData(shared_data / "ttl").read_table()["mos_std"] == 0).sum() == 19
