"""The check as a command: a report, and a status that a script can use."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from PIL import Image

from iqa_lightning.check import build, check, check_caches
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.images.cache import build_cache, find_caches
from iqa_lightning.runs.start import check_ranges
from tests.audit.test_audit import photograph, write_photographs
from tests.images.test_cache import SOURCE
from tests.walks import ROOT, call


def checked(*words: str) -> int:
    """The errors that the check counts, in this process."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("check", list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    check_ranges(cfg)
    return check(cfg)


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """Words that check two sound folders."""
    folders = [write_photographs(tmp_path / name, 100 * k) for k, name in enumerate("ab")]
    return [
        "stream=folders",
        f"stream.folders=[{','.join(map(str, folders))}]",
        f"paths.output={tmp_path / 'out'}",
    ]


def test_a_report_of_a_stream(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checked(*two) == 0
    folder = tmp_path / "out/check/folders"
    assert {path.name for path in folder.iterdir()} == {"report.json", "a.sha256", "b.sha256"}
    report = json.loads((folder / "report.json").read_text())
    assert [data["name"] for data in report["datasets"]] == ["a", "b"]
    assert report["errors"] == report["warnings"] == 0
    assert report["duplicates"] == report["findings"] == []
    said = capsys.readouterr().out
    assert "0 errors, 0 warnings" in said
    assert "72 x 96 (height x width); MOS 0 to 4.75" in said


def test_faults_are_counted_shown_and_waived(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a/images/5.png").unlink()
    for i in range(20):
        if i != 5:
            shutil.copy(tmp_path / f"a/images/{i}.png", tmp_path / f"b/images/{19 - i}.png")
    errors = checked(*two)
    assert errors > 1
    said = capsys.readouterr().out
    assert "1 of 20 images are missing" in said
    assert "a/images/0.png" in said
    waivers = tmp_path / "known.yaml"
    waivers.write_text("- {datasets: [a, b], reason: made so}")
    assert checked(*two, f"waivers={waivers}") == 1
    assert "made so" in capsys.readouterr().out
    waivers.write_text("- {datasets: [a, b]}")
    with pytest.raises(ValueError, match="waiver 1"):
        checked(*two, f"waivers={waivers}")
    with pytest.raises(ValueError, match="does not exist"):
        checked(*two, "waivers=no/such.yaml")


def test_one_data_set_and_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"paths.output={tmp_path}", f"paths.data={tmp_path}"]
    assert checked("data=clive", *words) == 1
    assert "live.ece.utexas.edu" in capsys.readouterr().out
    for split in ("1/../..", "abc", 11):
        with pytest.raises(ValueError, match=f"split is '?{split}'?; it is a whole number from 1"):
            checked(
                "data=clive",
                *words,
                f"split='{split}'" if isinstance(split, str) else f"split={split}",
            )
    for wrong in ([], ["data=clive", "stream=demo"]):
        with pytest.raises(ValueError, match="give data=<name> or stream=<name>"):
            checked(*wrong, *words)


def test_what_the_loader_decided_is_listed(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = Image.Exif()
    turn[274] = 3
    photograph(3).save(tmp_path / "a/images/3.png", exif=turn)
    photograph(4).convert("LA").save(tmp_path / "a/images/4.png")
    photograph(5).save(tmp_path / "b/images/5.png", "BMP")
    assert checked(*two, f"write_groups={tmp_path / 'groups.csv'}") == 0
    said = capsys.readouterr().out
    assert "a: 1 are turned upright, as their EXIF tag says: images/3.png" in said
    assert "a: 1 may be transparent: laid over white: images/4.png" in said
    assert "b: 1 are not what their suffix says: what the file holds counts: images/5.png" in said
    assert "groups.csv, 0 groups" in said
    report = json.loads((tmp_path / "out/check/folders/report.json").read_text())
    assert report["datasets"][0]["decisions"] == {
        "turned": ["images/3.png"],
        "alpha": ["images/4.png"],
    }


def cached(*words: str) -> int:
    """The damaged caches that the command counts, in this process."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("check", list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return check_caches(cfg)


def test_caches_are_verified_and_removed(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*two[:2], f"cache_dir={tmp_path / 'cache'}"]
    for name in "ab":
        CSVData(tmp_path / name, cache="disk", cache_dir=tmp_path / "cache").setup()
    assert cached(*words, "cache=verify") == 0
    assert "2 caches, 0 damaged" in capsys.readouterr().out
    (cache,) = find_caches(tmp_path / "cache", "b")
    pixels = bytearray((cache / "pixels.bin").read_bytes())
    pixels[5000] ^= 16
    (cache / "pixels.bin").write_bytes(pixels)
    assert cached(*words, "cache=verify") == cached(words[2], "cache=verify") == 1, (
        "with and without a stream"
    )
    said = capsys.readouterr().out
    assert f"error: the cache {cache} is damaged: image 1 is not the one decoded" in said
    assert "whole: " in said
    build_cache(replace(SOURCE, name="c"), 0, "disk", tmp_path / "cache")
    assert cached(*words, "cache=remove") == 0
    assert "2 caches removed" in capsys.readouterr().out
    kept = tmp_path / "cache/features-0123456789abcdef.sqlite"
    kept.write_bytes(b"")
    assert len(find_caches(tmp_path / "cache")) == 1, "that of a set which the stream does not have"
    assert cached(words[2], "cache=remove") == 0
    assert find_caches(tmp_path / "cache") == []
    assert "1 caches removed, 1 of features" in capsys.readouterr().out
    assert not kept.exists()
    with pytest.raises(ValueError, match="cache is 'empty'; it is verify, remove or null"):
        cached(*words, "cache=empty")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf/data").glob("*.yaml")))
def test_every_data_set_can_be_checked(name: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("check", [f"data={name}", "split=4"], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    found, datasets = build(cfg)
    assert found == name
    assert datasets[name].split == 4


@pytest.mark.slow
def test_the_status_of_the_command(two: list[str], tmp_path: Path) -> None:
    assert call(*two, module="check").returncode == 0
    (tmp_path / "b/images/5.png").write_bytes(b"")
    done = call(*two, module="check", check=False)
    assert done.returncode == 1
    assert "5.png is not a readable image" in done.stdout
    done = call("cache=verify", f"cache_dir={tmp_path / 'none'}", module="check")
    assert "0 caches, 0 damaged" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_real_stream(shared_data: Path, tmp_path: Path) -> None:
    """Two photographs of MMP-2K are one, and two files of CLIVE are the same; nothing is wrong
    otherwise.
    """
    assert checked("stream=open4", f"paths.data={shared_data}", f"paths.output={tmp_path}") == 0
    report = json.loads((tmp_path / "check/open4/report.json").read_text())
    assert {data["name"]: data["images"] for data in report["datasets"]} == {
        "clive": 1162,
        "mmp2k": 1200,
        "ttl": 324,
        "avt_ai": 145,
    }
    pairs = {tuple(pair["images"]) for pair in report["duplicates"]}
    assert {("Images/246.bmp", "Images/333.bmp"), ("images/952.jpg", "images/1649.jpg")} <= pairs
