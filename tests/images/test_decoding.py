"""Several processes decode what one does, name what they cannot read, and leave nothing behind when
they are killed.
"""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.images import decoding
from iqa_lightning.images.cache import build_cache, find_caches, verify_cache
from iqa_lightning.images.decoding import sensible_processes
from tests.datasets.folders import noise, write_csv
from tests.images.slow_files import SlowFiles
from tests.walks import ROOT, environment

COUNT = 40


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Forty images of differing sizes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(COUNT):
        noise(i, 30 + i % 3, 28 + i % 5).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("count", "cpus", "processes"), [(20, 8, 1), (399, 8, 1), (400, 8, 2), (10**5, 6, 6)]
)
def test_as_many_processes_as_pay(
    count: int, cpus: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_cpus", lambda: cpus)
    assert sensible_processes(count) == processes
    assert sensible_processes(10**6) <= 8
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    assert sensible_processes(10**6) == 1, "a daemon may have no children"


def test_a_bar_on_a_terminal_and_one_line_elsewhere(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, screen = SlowFiles(images, tmp_path / "log").source(), io.StringIO()
    build_cache(source, 24, "disk", tmp_path / "cache")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        f"set: 40 images are decoded once, into {find_caches(tmp_path / 'cache')[0]} (0.1 MB)"
    ]
    monkeypatch.setattr(
        decoding, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=80)
    )
    build_cache(source, 24, "ram")
    assert "decoding set" in screen.getvalue()
    assert "100%" in screen.getvalue()


@pytest.mark.slow
def test_processes_give_the_pixels_of_pillow(images: Path, tmp_path: Path) -> None:
    files = SlowFiles(images, tmp_path / "log")
    cache = build_cache(files.source(), 24, "disk", tmp_path / "cache", processes=2)
    for i in range(COUNT):
        height, width = 30 + i % 3, 28 + i % 5
        short, long = sorted((height, width))
        size = (24, int(24 * long / short)) if width <= height else (int(24 * long / short), 24)
        by_hand = np.asarray(
            noise(i, height, width).resize(size, Image.Resampling.BILINEAR)
        ).transpose(2, 0, 1)
        assert np.array_equal(cache[i].numpy(), by_hand)
    verify_cache(*find_caches(tmp_path / "cache"))
    (images / "5.png").write_bytes((images / "5.png").read_bytes()[:300])
    source = SlowFiles(images, tmp_path / "log").source()
    with pytest.raises(
        ValueError, match=r"data set 'set': .*images.5\.png is not a readable image"
    ):
        build_cache(source, 23, "disk", tmp_path / "cache", processes=2)
    assert len(list((tmp_path / "cache").iterdir())) == 2, "the cache of before and the lock"


@pytest.mark.slow
def test_a_data_set_travels_to_the_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is in a run: attached to a trainer, which cannot travel."""
    monkeypatch.setattr(decoding, "PER_PROCESS", 10)
    monkeypatch.setattr(decoding, "_cpus", lambda: 2)
    data = CSVData(write_csv(tmp_path / "set"), cache="disk", cache_dir=tmp_path / "cache")
    data.trainer = SimpleNamespace(callback=lambda: None)
    data.setup()
    part = data.part("train")
    row = int(part.rows[0])
    assert np.array_equal(
        part[0]["image"].numpy().transpose(1, 2, 0),
        np.asarray(noise(row, 40 + row % 3, 48 + row % 5)),
    )
    assert data.trainer is not None


# --- killed half way


def start(images: Path, seconds: float) -> subprocess.Popen[str]:
    words = [
        sys.executable,
        "-m",
        "tests.images.slow_files",
        str(images),
        str(images.parent / "cache"),
    ]
    words += [str(images.parent / "log"), str(seconds)]
    return subprocess.Popen(words, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)


def until(done: Callable[[], object], what: str) -> None:
    for _ in range(6000):  # five minutes: others may be at work on this machine
        if done():
            return
        time.sleep(0.05)
    pytest.fail(f"not within five minutes: {what}")


def decoders(parent: int) -> list[int]:
    """The processes that decode for another."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        int(child)
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def left(images: Path) -> set[str]:
    """What lies in the folder of the caches, the names of caches without their keys."""
    return {path.name.split("-")[0] for path in (images.parent / "cache").iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds children in /proc")
@pytest.mark.parametrize("victim", ["builder", "decoder"])
def test_a_kill_leaves_no_half_cache(victim: str, images: Path, tmp_path: Path) -> None:
    builder = start(images, 0.5)
    until(
        lambda: (tmp_path / "log").exists() and len((tmp_path / "log").read_text()) > 6,
        "some images decoded",
    )
    children = decoders(builder.pid)
    assert len(children) == 2
    assert left(images) == {".lock", ".building"}
    os.kill(builder.pid if victim == "builder" else children[0], signal.SIGKILL)
    said = builder.communicate(timeout=300)[1]
    until(lambda: not any(map(alive, children)), "the processes that decode end too")
    if victim == "builder":
        assert left(images) == {".lock", ".building"}, "nobody was left to remove it"
    else:
        assert builder.returncode == 1
        assert (
            "data set 'set': a process that decodes its images ended before its work, killed or "
            "out of" in said
        )
        assert left(images) == {".lock"}
    build_cache(SlowFiles(images, tmp_path / "log").source(), 24, "disk", tmp_path / "cache")
    assert left(images) == {".lock", "set"}, "what the dead left is removed"
    verify_cache(*find_caches(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds children in /proc")
@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_a_decoder_that_dies_while_others_start(
    seconds: float, images: Path, tmp_path: Path
) -> None:
    """Nobody waits for it, and nobody holds the lock of the caches."""
    with start(images, 0.2) as builder:
        until(lambda: decoders(builder.pid), "one has started")
        time.sleep(seconds)
        os.kill(decoders(builder.pid)[0], signal.SIGKILL)
        said = builder.communicate(timeout=300)[1]
    assert builder.returncode == 1
    assert "a process that decodes its images ended before its work" in said
    assert left(images) == {".lock"}


@pytest.mark.slow
def test_two_runs_that_need_one_cache_decode_it_once(images: Path, tmp_path: Path) -> None:
    builders = [start(images, 0.05) for _ in range(2)]
    said = [builder.communicate(timeout=600)[1] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], said
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(COUNT))
    assert left(images) == {".lock", "set"}
    verify_cache(*find_caches(tmp_path / "cache"))
