"""Sweeps (`-m`) under every launcher: two runs, each a process of its own, and what became of them."""

import json
from pathlib import Path

import pytest

from iqa_lightning.report.jobs import Outcome, note, report, sole_owner
from tests.walks import IN_BATCH, TINY, call, results, stream_of_folders, walk, write_folder

WORDS = (*TINY, IN_BATCH, "method=sh_cl", "schedule.finetune.epochs=1")
TWO_RANKS = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "method.bn_stats=frozen")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("sweep")
    return [write_folder(root / name, seed) for seed, name in enumerate("ab")]


def outcomes(output: Path) -> list[dict[str, str]]:
    """What the last sweep in a folder wrote down of its runs."""
    last = max(output.glob(".sweeps/sweep_*"), key=lambda path: path.stat().st_mtime)
    return [json.loads(file.read_text()) for file in sorted(last.glob("*.json"))]


def run_folder(output: Path, order: str) -> Path:
    return output / "none" / "sh_cl" / order / "split1" / "seed0"


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "words"), [("cores", ()), ("ray_local", TWO_RANKS), ("slurm_local", TWO_RANKS)])
def test_a_sweep_makes_every_run(launcher: str, words: tuple[str, ...], folders: list[Path], tmp_path: Path) -> None:
    chosen = [*WORDS, *words, *stream_of_folders(folders), f"paths.output={tmp_path}"]
    done = call("-m", f"hydra/launcher={launcher}", *chosen, "stream.order=[a],[b]")
    assert "sweep of 2 runs" in done.stdout
    assert [outcome["state"] for outcome in outcomes(tmp_path)] == ["finished"] * 2
    for order in "ab":
        assert json.loads((run_folder(tmp_path, order) / "summary.json").read_text())["finished"]


@pytest.mark.slow
def test_one_run_fails_one_is_busy_and_one_was_there(folders: list[Path], tmp_path: Path) -> None:
    words = [*WORDS, *stream_of_folders(folders)]
    there = walk(tmp_path, *words[len(TINY) :], "stream.order=[a]")
    before = results(there)
    busy = run_folder(tmp_path, "b")
    with sole_owner(busy):
        orders = "stream.order=[a],[b],[nobody],[b,a]"
        done = call("-m", "hydra/launcher=cores", *words, f"paths.output={tmp_path}", orders, check=False)
    assert done.returncode == 1
    found = outcomes(tmp_path)
    assert [outcome["state"] for outcome in found] == ["skipped", "busy", "failed", "finished"]
    assert "another process is at work" in found[1]["reason"]
    assert "'nobody', which is not in the stream" in found[2]["reason"]
    assert "Traceback" not in done.stdout + done.stderr
    assert results(there) == before
    assert not (busy / "summary.json").is_file()
    assert json.loads((run_folder(tmp_path, "b-a") / "summary.json").read_text())["finished"]


@pytest.mark.slow
def test_a_run_of_a_sweep_is_the_run_by_itself(folders: list[Path], tmp_path: Path) -> None:
    words = [*WORDS, *stream_of_folders(folders), "stream.order=[b,a]"]
    call("-m", *words, f"paths.output={tmp_path / 'swept'}")
    call(*words, f"paths.output={tmp_path / 'alone'}")
    assert results(run_folder(tmp_path / "swept", "b-a")) == results(run_folder(tmp_path / "alone", "b-a"))


def test_the_report_counts_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("method=x", "split=1")
    note(Outcome("finished", "", 61.4, "0.log", (*common, "stream.order=[a,b]")), tmp_path / "0.json")
    note(Outcome("failed", "error: [c] is unknown", 2.0, "1.log", (*common, "stream.order=[c]")), tmp_path / "10.json")
    note(Outcome("busy", "wait", 2.0, "2.log", (*common, "stream.order=[b]")), tmp_path / "2.json")
    assert report(tmp_path) == 1
    printed = capsys.readouterr().out
    assert "stream.order=[a,b]" in printed
    assert "all that it said: 1.log" in printed
    assert "0.log" not in printed
    assert printed.index("stream.order=[b]") < printed.index("stream.order=[c]")
    assert printed.count("method=x") == 1
