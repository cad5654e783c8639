"""Ways out of a run, and what the same command makes of what they leave: signals, kills, damage,
changed data, a loss that is no number.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from iqa_lightning.continual import callback
from iqa_lightning.continual.stopping import LossError
from iqa_lightning.records import RunFolder
from tests.walks import (
    IN_BATCH,
    ROOT,
    TINY,
    call,
    command,
    environment,
    results,
    stream_of_folders,
    walk,
    write_folder,
)

LONG = (*TINY, IN_BATCH, "method=lwf", "schedule.warmup.epochs=0")


@pytest.fixture(scope="module")
def words(folders: list[Path]) -> list[str]:
    """A walk of two tasks."""
    return ["method=lwf", IN_BATCH, "schedule.warmup.epochs=0", *stream_of_folders(folders)]


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to."""
    return walk(tmp_path_factory.mktemp("whole"), *words)


class Killed(BaseException):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def broken_off(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in the first epoch of its second task; its `paths.output`."""
    output, original = tmp_path_factory.mktemp("broken"), callback.ContinualLearning.validate

    def validate(self, trainer, method, position) -> None:
        if position.task.t == 2:
            raise Killed
        original(self, trainer, method, position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callback.ContinualLearning, "validate", validate)
        with pytest.raises(Killed):
            walk(output, *words)
    return output


@pytest.fixture
def broken(broken_off: Path, tmp_path: Path) -> Path:
    """A copy of it; its folder."""
    shutil.copytree(broken_off, tmp_path / "copy")
    return next((tmp_path / "copy").glob("*/*/*/split*/seed*"))


def again(folder: Path, words: list[str]) -> Path:
    """The same command once more."""
    return walk(folder.parents[4], *words)


def flip(path: Path) -> None:
    """Turn one bit over."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


DAMAGES = {
    "flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "foreign": lambda path: path.write_bytes(b"something else altogether"),
    "deleted": Path.unlink,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_last_checkpoint_falls_back_to_the_last_task(
    damage: str, broken: Path, whole: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGES[damage](broken / "last.ckpt")
    assert results(again(broken, words)) == results(whole)
    said = capsys.readouterr().out
    assert "note: " in said
    assert "last.ckpt" in said
    assert "going on from the end of task 1" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "file"),
    [
        ("flipped", "predictions/after_1_a.parquet"),
        ("cut", "predictions/after_0_start.parquet"),
        ("empty", "tasks/1_a.ckpt"),
        ("deleted", "tasks/1_a.ckpt"),
    ],
)
def test_a_damaged_record_is_found_at_the_start_and_its_remedy_works(
    damage: str, file: str, broken: Path, whole: Path, words: list[str]
) -> None:
    DAMAGES[damage](broken / file)
    with pytest.raises(ValueError, match=rf"{Path(file).name}.*delete .*last.ckpt.*the start"):
        again(broken, words)
    (broken / "last.ckpt").unlink()
    assert results(again(broken, words)) == results(whole)


@pytest.mark.slow
def test_a_flipped_bit_in_a_finished_record_is_named_and_the_remedy_works(
    whole: Path, words: list[str], tmp_path: Path
) -> None:
    shutil.copytree(whole.parents[4], tmp_path / "copy")
    folder = next((tmp_path / "copy").glob("*/*/*/split*/seed*"))
    file = folder / "predictions" / "after_2_b.parquet"
    flip(file)
    with pytest.raises(ValueError, match=r"after_2_b.parquet is not what was written"):
        again(folder, words)
    for path in (file, folder / "summary.json", folder / "last.ckpt"):
        path.unlink()
    assert results(again(folder, words)) == results(whole)


@pytest.mark.slow
def test_a_run_killed_before_the_word_finished_finishes(
    words: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*args) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(callback.ContinualLearning, "on_fit_end", kill)
        with pytest.raises(Killed):
            walk(tmp_path, *words)
    (folder,) = tmp_path.glob("*/*/*/split*/seed*")
    assert json.loads((folder / "summary.json").read_text())["finished"] is False
    again(folder, words)
    assert json.loads((folder / "summary.json").read_text())["finished"] is True
    assert results(folder) == results(whole)

    before = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text("")
    with pytest.raises(ValueError, match=r"summary.json cannot be read .* delete it and run"):
        again(folder, words)
    (folder / "summary.json").unlink()
    again(folder, words)
    assert json.loads((folder / "summary.json").read_text()) == before


@pytest.mark.slow
def test_changed_data_are_refused_and_named(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / name, seed) for seed, name in enumerate("ab")]
    words = ["method=sh_cl", IN_BATCH, "schedule.warmup.epochs=0", *stream_of_folders(folders)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callback.ContinualLearning, "validate", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            walk(tmp_path / "out", *words)
    image, table = folders[1] / "images" / "003.png", folders[0] / "ratings.csv"
    kept = image.read_bytes(), table.read_text()

    Image.new("RGB", (40, 36), (9, 99, 200)).save(image)
    with pytest.raises(ValueError, match=r"003.png is not what it was"):
        walk(tmp_path / "out", *words)
    image.write_bytes(kept[0])  # another time of change, the same bytes

    lines = kept[1].splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[1], "1.5")
    table.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"ratings.csv is not what it was"):
        walk(tmp_path / "out", *words)
    table.write_text(kept[1])

    moved = shutil.move(folders[0], tmp_path / "elsewhere" / "a")  # the same data in another place
    words = [*words[:3], *stream_of_folders([Path(moved), folders[1]])]
    folder = walk(tmp_path / "out", *words)
    assert json.loads((folder / "summary.json").read_text())["finished"] is True


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run(folders: list[Path], tmp_path: Path) -> None:
    words = ["method=sh_cl", IN_BATCH, "method.optimizer.lr=1e30", *stream_of_folders(folders)]
    with pytest.raises(LossError, match=r"in task 1 of 2 \(a, .* epoch 1 of .*the loss is nan"):
        walk(tmp_path, *words, "schedule.warmup.epochs=0")
    (folder,) = tmp_path.glob("*/*/*/split*/seed*")
    assert json.loads((folder / "summary.json").read_text())["finished"] is False
    assert not list(folder.glob("tasks/*"))


@pytest.mark.slow
def test_small_data_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "ten", 0, images=10)
    words = ["method=sh_cl", IN_BATCH, "schedule.warmup.epochs=0", *stream_of_folders([folder])]
    run = walk(tmp_path / "out", *words, "schedule.finetune.batch_size=16")
    said = capsys.readouterr().out
    notes = json.loads((run / "summary.json").read_text())["notes"]
    assert "ten has 10 images, 2 of them to validate by" in notes[0]
    assert "less than a batch of finetune (16)" in notes[1]
    scores = pd.read_parquet(run / "predictions" / "after_1_ten.parquet")
    val = scores[scores["split"] == "val"]  # two images
    if (val["single"].diff() * val["mos"].diff()).iloc[1] < 0:  # in the wrong order
        assert "validation part of ten is -1" in notes.pop()
    assert len(notes) == 2
    assert all(f"note: {note}" in said for note in notes)


BEGIN, LEAVE = 400, 120
"""Seconds for a start and for an end: many times what they take where nothing else is at work."""


Start = Callable[[list[str], str, Path], subprocess.Popen]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a run in the background and returns it once it has said something; all that was
    started ends with the test.
    """
    started: list[subprocess.Popen] = []

    def begin(words: list[str], until: str, log: Path) -> subprocess.Popen:
        with log.open("w") as file:
            process = subprocess.Popen(
                command(*words),
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(),
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
            )
        started.append(process)
        wait_for(log, until, process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(log: Path, text: str, process: subprocess.Popen) -> None:
    """Wait until a log holds a text."""
    end = time.monotonic() + BEGIN
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


@pytest.mark.slow
def test_signals_have_a_status_and_a_line(
    start: Start, folders: list[Path], tmp_path: Path
) -> None:
    """SIGINT before the run began, SIGTERM in the first task, SIGINT in the second; then the bytes
    of a run that was left alone.
    """
    more = [*LONG, "schedule.finetune.epochs=6", *stream_of_folders(folders)]
    words, log = [*more, f"paths.output={tmp_path / 'out'}"], tmp_path / "log"
    early = start(words, "starting: ", log)
    early.send_signal(signal.SIGINT)
    assert early.wait(LEAVE) == 130
    assert "interrupted before the run began; the same command goes on" in log.read_text()
    assert not (tmp_path / "out").exists()
    for number, status, until, text in (
        (signal.SIGTERM, 143, "1/2 a, finetune 2/6", "interrupted in task 1 of 2 (a, "),
        (signal.SIGINT, 130, "2/2 b, finetune 1/6", "interrupted in task 2 of 2 (b, "),
    ):
        process = start(words, until, log)
        process.send_signal(number)
        assert process.wait(LEAVE) == status
        assert text in log.read_text().splitlines()[-1]
        assert log.read_text().splitlines()[-1].endswith("; the same command goes on")
        assert "Traceback" not in log.read_text()
    call(*words)
    call(*more, f"paths.output={tmp_path / 'whole'}")
    one, other = (next((tmp_path / name).glob("*/*/*/*/*")) for name in ("out", "whole"))
    assert results(one) == results(other)


TWO_RANKS = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


def children(process: subprocess.Popen) -> list[int]:
    """The ranks that a run started."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds ranks in /proc")
def test_no_rank_is_left_behind(start: Start, folders: list[Path], tmp_path: Path) -> None:
    """Both ranks told to end, one told to end, one killed."""
    words = [*LONG, "schedule.finetune.epochs=60", *stream_of_folders(folders), *TWO_RANKS]
    words, log = [*words, f"paths.output={tmp_path / 'out'}"], tmp_path / "log"
    for whom, number, status, text in (
        ("all", signal.SIGTERM, 143, "interrupted in task 1 of 2"),
        ("first", signal.SIGTERM, 143, "interrupted in task 1 of 2"),
        ("second", signal.SIGKILL, 1, "the same command goes on"),
    ):
        process = start(words, "1/2 a, finetune", log)
        (second,) = children(process)
        for pid in {"all": (process.pid, second), "first": (process.pid,)}.get(whom, (second,)):
            os.kill(pid, number)
        assert process.wait(LEAVE) == status, log.read_text()
        assert text in log.read_text()
        end = time.monotonic() + LEAVE
        while Path(f"/proc/{second}").exists() and time.monotonic() < end:
            time.sleep(0.1)
        assert not Path(f"/proc/{second}").exists()


@pytest.mark.slow
def test_a_sweep_believes_the_record(start: Start, folders: list[Path], tmp_path: Path) -> None:
    """A run that is told to end is unfinished, the next one goes its way; so does the sweep itself."""
    words = [*LONG, "schedule.finetune.epochs=30", *stream_of_folders(folders), "seed=0,1"]
    words, log = ["-m", *words, f"paths.output={tmp_path / 'out'}"], tmp_path / "log"
    sweep = start(words, "task 1/2 a", log)
    (run,) = children(sweep)
    os.kill(run, signal.SIGTERM)
    wait_for(log, "seed1: training", sweep)
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait(LEAVE) == 130
    text = log.read_text()
    assert "2 runs: 2 unfinished" in text
    assert "interrupted in task 1 of 2" in text.split("2 runs:")[1]
    assert "Traceback" not in text
    assert not any(
        folder.finished for folder in map(RunFolder, (tmp_path / "out").glob("*/*/*/*/*"))
    )
