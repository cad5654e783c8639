"""The evaluate command, run as a user runs it, on a machine where torch cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iqa_lightning.metrics.matrices import derive
from iqa_lightning.records import RunFolder
from iqa_lightning.report.figures import heat_maps

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_TORCH = """
import runpy, sys
class Missing:
    def find_spec(self, name, *_):
        if name.split(".")[0] in {"torch", "torchvision", "pytorch_lightning", "lightning", "timm", "wandb"}:
            raise ModuleNotFoundError(f"No module named {name!r}")
sys.meta_path.insert(0, Missing())
sys.argv[0] = "evaluate"
runpy.run_module("iqa_lightning.evaluate", run_name="__main__")
"""
DERIVED = ["cells.csv", "srcc.png", "srcc_gated.csv", "srcc_latest.csv", "stability_gated.csv"]
DERIVED += ["stability_latest.csv", "summary.json"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run of two tasks."""
    random, folder = np.random.default_rng(3), RunFolder(tmp_path / "run")
    base = pd.DataFrame(
        {
            "dataset": ["a"] * 30 + ["b"] * 20,
            "split": "test",
            "image": [f"{i}.png" for i in range(50)],
        }
    )
    base["mos"] = random.uniform(0, 100, 50)
    for t, task in enumerate(("start", "a", "b")):
        scores = {name: base["mos"] / 30 + random.normal(size=50) for name in ("latest", "gated")}
        folder.write_predictions(t, task, base.assign(**scores))
    return folder


def evaluate(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.glob("[!.]*"))
        if path.name != "checksums.json" and path.is_file()
    }


@pytest.mark.slow
def test_predictions_alone_are_enough_and_a_second_time_changes_no_byte(
    run: RunFolder, tmp_path: Path
) -> None:
    (work := tmp_path / "elsewhere").mkdir()
    first = evaluate(f"run={run.path}", cwd=work)
    assert first.returncode == 0, first.stderr
    written = contents(run.path)
    assert list(written) == DERIVED
    again = evaluate("run=../run", cwd=work)
    assert again.returncode == 0, again.stderr
    assert contents(run.path) == written
    assert list(work.iterdir()) == []  # nothing is left where the command was typed
    assert "\nlatest:  mSRCC 0." in first.stdout
    assert "SRCC, gated; zero-shot in parentheses" in first.stdout
    assert "\x1b" not in first.stdout


@pytest.mark.slow
def test_what_a_training_wrote_comes_out_again_byte_for_byte(run: RunFolder) -> None:
    run.write_summary(
        {
            "method": "tsn_iqa",
            "seed": 0,
            "finished": True,
            "synthetic": True,
            "cost": {"train_seconds": 0.1},
        }
    )
    derived = derive(run.predictions())
    run.write_derived(derived)
    run.write_figure("srcc", heat_maps(derived["srcc"], "SRCC", synthetic=True))
    trained = contents(run.path)
    for name in ("srcc_gated.csv", "stability_latest.csv", "cells.csv"):
        (run.path / name).unlink()
    run.write_summary({"readouts": {"latest": {"msrcc": 99}}})
    result = evaluate(f"run={run.path}", cwd=run.path.parent)
    assert result.returncode == 0, result.stderr
    assert contents(run.path) == trained
    assert result.stdout.count("(synthetic target)") == 6  # four matrices, two lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=nowhere"], "there is no run folder nowhere"),
        (["run=."], ". holds no predictions/after_<t>_<task>.parquet: is it a run folder?"),
        ([], "which run folder? iqa-lightning evaluate <folder>"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = evaluate(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr.strip()) == (2, f"error: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_broken_file_is_named_in_one_line(run: RunFolder) -> None:
    (run.path / "predictions" / "after_1_a.parquet").write_bytes(b"PAR1 not much else")
    result = evaluate(f"run={run.path}", cwd=run.path.parent)
    assert result.returncode == 2
    assert "after_1_a.parquet is not what was written" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (run.path / "summary.json").exists()


@pytest.mark.slow
def test_unknown_keys_are_refused(run: RunFolder) -> None:
    result = evaluate(f"rum={run.path}", cwd=run.path.parent)
    assert result.returncode == 2
    assert "rum" in result.stderr


@pytest.mark.slow
def test_help_does_not_wait_for_heavy_libraries(tmp_path: Path) -> None:
    assert "run: null" in evaluate("--help", cwd=tmp_path).stdout
    code = "import sys, iqa_lightning.evaluate\nprint({'torch', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
