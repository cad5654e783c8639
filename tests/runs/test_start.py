"""A start that fails: one line, status 2, nothing left behind."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import InstantiationException

from iqa_lightning import signals
from iqa_lightning.runs import start
from iqa_lightning.runs.folder import BUSY, BusyError, sole_owner
from tests.walks import IN_BATCH, TINY, call, composed, stream_of_folders


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["split=99"], "split is 99; it is a whole number from 1 to 10"),
        (["split=abc"], "split is 'abc'"),
        (["split='1/../..'"], "split is '1/../..'"),
        (["seed=1.5"], "seed is 1.5"),
        (["seed=-1"], "seed is -1"),
        (["trainer.max_epochs=5"], "trainer.max_epochs is 5"),
        (["+trainer.max_steps=5"], "trainer.max_steps is 5"),
        (["trainer.num_sanity_val_steps=1"], "trainer.num_sanity_val_steps is 1"),
        (["stream=folders"], "stream.folders is missing"),
        (["stream=folders", "stream.folders=[no/such/place]"], "no/such/place"),
        (["paths.output=/proc/out"], "paths.output is /proc/out"),
        (["stream.order=[zebra]"], "zebra"),
        (["variant=a/b"], "variant='a/b'"),
    ],
)
def test_values_that_no_run_can_have_are_named(words: list[str], said: str) -> None:
    from iqa_lightning.train import run

    with pytest.raises(ValueError, match=r".") as error:
        run(composed(*TINY, "paths.output=unwritten", *words))
    assert said in str(error.value)
    assert len(start.one_line_of(error.value).splitlines()) == 1
    assert not Path("unwritten").exists()


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "has_gpu", lambda: False)
    with pytest.raises(ValueError, match=r"no GPU.*trainer=cpu"):
        start.check_trainer({"accelerator": "gpu"}, True)
    start.check_trainer({"accelerator": "auto"}, True)
    monkeypatch.setattr(start, "has_gpu", lambda: True)
    start.check_trainer({"accelerator": "gpu"}, True)


def test_what_a_pre_training_sets_by_itself() -> None:
    with pytest.raises(
        ValueError, match=r"max_epochs is 5, but a pre-training .* trains is epochs"
    ):
        start.check_trainer({"max_epochs": 5}, False)
    start.check_trainer({"max_epochs": -1, "limit_val_batches": 0}, False)


def instantiation() -> InstantiationException:
    error = InstantiationException("Error in call\nfull_key: method.gate")
    error.__cause__ = TypeError("no such\n  argument")
    return error


@pytest.mark.parametrize(
    ("error", "begun", "status", "said"),
    [
        (ValueError("a\n  b"), False, 2, "error: a b"),
        (ValueError("a"), True, 1, "error: a"),
        (OSError(errno.ENOSPC, "No space left", "run/last.ckpt"), True, 1, "free some space"),
        (OSError(errno.ENOSPC, "No space left", "run/last.ckpt"), True, 1, "run/last.ckpt"),
        (BusyError("at work"), False, BUSY, "error: at work"),
        (instantiation(), False, 2, "error: method.gate: TypeError: no such argument"),
        (RuntimeError("Connection closed by peer"), True, 1, "another process of this run"),
        (RuntimeError("DataLoader worker (pid 7) is killed"), True, 1, "stream.num_workers=0"),
        (
            RuntimeError("CUDA out of memory. Tried\nto"),
            True,
            1,
            "out of memory. Tried: the memory",
        ),
        (MemoryError(), True, 1, "MemoryError: the memory is not enough"),
        (
            signals.Interrupted(15, "in task 2 of 4"),
            True,
            143,
            "interrupted in task 2 of 4; the same",
        ),
        (signals.Interrupted(2), True, 130, "interrupted; the same command goes on"),
    ],
)
def test_one_line_and_a_status(
    error: BaseException, begun: bool, status: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left, start.one_line() as state:
        state.yes = begun
        raise error
    assert left.value.code == status
    text = capfd.readouterr().err
    assert said in text
    assert len(text.splitlines()) == 1


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(KeyError), start.one_line() as state:
        state.yes = True
        raise KeyError("x")


def test_the_traceback_is_there_on_demand(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit), start.one_line():
        raise ValueError("wrong")
    said = capfd.readouterr().err
    assert said.startswith("Traceback")
    assert said.endswith("error: wrong\n")


def test_a_folder_in_which_nothing_was_recorded_goes_with_its_parents(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "demo" / "seed0"
    with pytest.raises(ValueError, match="no"), sole_owner(folder):
        (folder / "config.yaml").write_text("seed: 0")
        (folder / "csv").mkdir()
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="no"), sole_owner(folder):
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    with pytest.raises(ValueError, match="no"), sole_owner(folder):
        (folder / "predictions").mkdir()
        (folder / "predictions" / "after_0_start.parquet").touch()
        raise ValueError("no")
    assert (folder / "predictions" / "after_0_start.parquet").is_file()


SPEAKS = """
import sys
from iqa_lightning.runs.start import one_line
if sys.argv[1] == "rich":
    from rich.console import Console
    say = Console().print
else:
    def say(text):
        print(text, flush=True)
with one_line() as begun:
    begun.yes = True
    while True:
        say("a line")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
@pytest.mark.parametrize("way", ["rich", "print"])
def test_output_that_nobody_reads_any_more(way: str) -> None:
    """As with `| head -1`, or a log's disk that was taken away."""
    command = [sys.executable, "-c", SPEAKS, way]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr.read().splitlines() == [
            "interrupted: nobody reads what it says any more; the same command goes on"
        ]
        assert process.wait(60) == 141


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to this user")
def test_a_read_only_place(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ValueError, match="no folder can be made"):
        start.check_writable(tmp_path / "out")


@pytest.mark.slow
def test_a_failed_start_as_typed(folders: list[Path], tmp_path: Path) -> None:
    words = [*TINY, IN_BATCH, *stream_of_folders(folders), f"paths.output={tmp_path / 'out'}"]
    done = call(*words, "split=11", check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: split is 11; it is a whole number from 1 to 10, as in split=1"
    ]
    assert list(tmp_path.iterdir()) == []
