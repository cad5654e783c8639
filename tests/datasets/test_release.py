"""What all official releases share: errors for people, line ends, letter case."""

import re
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.datasets.kadid10k import KADID10k
from iqa_lightning.datasets.release import find_file
from iqa_lightning.runs.building import build_stream
from tests.datasets import layouts
from tests.datasets.folders import write_clive
from tests.walks import ROOT, composed

TABLES = {
    "live": "dmos_realigned.mat",
    "csiq": "csiq.DMOS.xlsx",
    "bid": "DatabaseGrades.xls",
    "koniq10k": "koniq10k_scores_and_distributions.csv",
    "kadid10k": "dmos.csv",
    "tid2013": "mos_with_names.txt",
    "spaq": "Annotations/MOS and Image attribute scores.xlsx",
    "flive": "labels_image.csv",
    "agiqa3k": "data.csv",
    "pipal": "Train_Label/A0001.txt",
    "uhd_iqa": "uhd-iqa-metadata.csv",
}


@pytest.mark.parametrize("name", [*TABLES, "clive"])
def test_what_every_docstring_says(name: str, tmp_path: Path) -> None:
    """And where the user is sent to get the set."""
    data = build(name, tmp_path)
    text = " ".join((type(data).__doc__ or "").split())
    for words in (
        "Official layout",
        "MOS:",
        "standard deviation",
        "Licence: ",
        "Citation: ",
        "Args: ",
    ):
        assert words.lower() in text.lower(), f"{name}: no {words}"
    assert f"Home: {data.home}" in text
    first = "checked against the official table|as documented"
    assert re.search(rf"Format: ({first})", text), f"{name}: which of the two was it?"


def build(name: str, root: Path) -> IQADataModule:
    node = OmegaConf.load(ROOT / "conf" / "data" / f"{name}.yaml")
    return instantiate(OmegaConf.create({"paths": {"data": "x"}, "data": node}).data)(
        root=str(root)
    )


@pytest.mark.parametrize("name", TABLES)
def test_damaged_and_missing_parts(name: str, tmp_path: Path) -> None:
    """A table of garbage, an empty one, none, an image too few and no folder at all: each named,
    with the remedy.
    """
    root = getattr(layouts, f"write_{name}")(tmp_path / "set")
    data = build(name, root)
    data.prepare_data()
    assert data.samples.table["mos"].between(*data.native_range).all()
    data.image_path(4).unlink()
    with pytest.raises(
        ValueError, match=rf"data set '{name}': 1 of \d+ images are missing, .*\(row 5 of"
    ):
        build(name, root).prepare_data()
    for content in (b"garbage \xff\x00" * 60, b""):
        (root / TABLES[name]).write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"data set '{name}': .* cannot be read .*get it again from http"
        ):
            build(name, root).prepare_data()
    if name != "pipal":
        (root / TABLES[name]).unlink()
        with pytest.raises(
            ValueError, match=rf"data set '{name}': .* does not exist; get it from http"
        ):
            build(name, root).prepare_data()
    with pytest.raises(
        ValueError, match=rf"'{name}': the folder .* does not exist; .*stream\.tasks\.{name}\.root="
    ):
        build(name, tmp_path / "nowhere").prepare_data()


@pytest.mark.parametrize("name", [name for name, path in TABLES.items() if path.endswith("csv")])
def test_missing_columns(name: str, tmp_path: Path) -> None:
    root = getattr(layouts, f"write_{name}")(tmp_path / "set")
    (root / TABLES[name]).write_text("first,second\n1,2\n")
    with pytest.raises(
        ValueError, match=rf"data set '{name}': .*no column '\w+'; the columns are first, second"
    ):
        build(name, root).prepare_data()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks(end: str, mark: str, tmp_path: Path) -> None:
    root = layouts.write_kadid10k(tmp_path / "set")
    before = KADID10k(root).read_table()
    text = (root / "dmos.csv").read_text()
    (root / "dmos.csv").write_bytes((mark + text.replace("\n", end)).encode())
    assert KADID10k(root).read_table().equals(before)


def test_comma_decimals_are_refused(tmp_path: Path) -> None:
    root = layouts.write_kadid10k(tmp_path / "set")
    layouts.write_text(
        root / "dmos.csv", "dist_img,ref_img,dmos,var", 'I01_01_01.png,I01.png,"3,5",0.1'
    )
    with pytest.raises(ValueError, match=r"'kadid10k': .*dmos\.csv cannot be read \(.*3,5"):
        KADID10k(root).prepare_data()


def test_letter_case(tmp_path: Path) -> None:
    layouts.touch(tmp_path, ["Images/Sub/A.BMP", "Images/b.png", "Images/B.png"])
    assert find_file(tmp_path, "images/sub/a.bmp") == tmp_path / "Images" / "Sub" / "A.BMP"
    assert find_file(tmp_path, "Images/b.png").name == "b.png"
    assert find_file(tmp_path, "Images/B.png").name == "B.png"
    assert not find_file(tmp_path, "images/c.png").exists()
    assert not find_file(tmp_path, "images/b.png/deeper").exists()
    assert not find_file(tmp_path / "nowhere", "a.png").exists()
    layouts.touch(tmp_path, ["Images/C.PNG"])
    assert find_file(tmp_path, "images/c.png").name == "C.PNG", "a changed folder is listed again"


def test_streams_of_the_six_sets(tmp_path: Path) -> None:
    """Both orders, each set in a folder of its own."""
    six = ["live", "csiq", "bid", "clive", "koniq10k", "kadid10k"]
    roots = {
        name: getattr(layouts, f"write_{name}", write_clive)(tmp_path / f"my {name}")
        for name in six
    }
    words = [f"stream.tasks.{name}.root='{root}'" for name, root in roots.items()]
    forth, back = (
        build_stream(composed("stream=zhang2022", f"stream.order={order}", *words))
        for order in ("default", "reverse")
    )
    assert forth.datasets == six
    assert back.datasets == six[::-1]
    for stream in (forth, back):
        stream.prepare_data()
        assert all(stream.data[name].root == root for name, root in roots.items())
    assert forth.split_hash == back.split_hash
