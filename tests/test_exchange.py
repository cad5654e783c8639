"""experiments/gates/exchange.py: the gate and the parts that a run had give what the run recorded."""

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra import initialize_config_dir
from scipy.stats import spearmanr

from iqa_lightning.runs.compose import CONF
from iqa_lightning.runs.grid import planned_runs, read_grid
from iqa_lightning.train import run
from tests.walks import ROOT, composed

GRID = """
experiment: demo
methods: [tsn_ridge]
splits: [1]
overrides: [backbone=tiny, trainer=cpu, logger=none, view.resize=0, view.crop=32, view.evaluation=center,
  pairs.min_images=0, "stream.order=[blur,noise]", schedule.finetune.epochs=1, method/gate=uniform]
orders: [[blur, noise]]
"""


def script() -> Any:
    """The script as a module."""
    file = ROOT / "experiments" / "gates" / "exchange.py"
    found = importlib.util.spec_from_file_location("exchange", file)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_what_a_run_had_gives_what_it_recorded(tmp_path: Path) -> None:
    table = tmp_path / "experiments" / "small"
    table.mkdir(parents=True)
    (table / "runs.yaml").write_text(GRID)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        (planned,) = planned_runs(read_grid(table / "runs.yaml"), [])
    run(composed(*planned.words, f"paths.output={tmp_path / 'runs'}"))
    (folder,) = (tmp_path / "runs").glob("*/*/*/split1/seed0")

    script().main(
        [
            *("--experiments", str(table.parent), "--table", "small"),
            *("--output", str(tmp_path / "runs"), "--results", str(tmp_path / "results")),
            *("--part", "val", "test"),
        ]
    )

    rows = pd.read_csv(tmp_path / "results" / "splits.csv")
    found = rows.set_index(["heads", "gate", "part"])["msrcc"]
    recorded = pd.read_parquet(folder / "predictions" / "after_2_noise.parquet")
    for part in ("val", "test"):
        for readout, gate in (("gated", "uniform"), ("oracle", "oracle")):
            each = [
                spearmanr(group[readout], group["mos"]).statistic
                for _, group in recorded[recorded["split"] == part].groupby("dataset")
            ]
            wanted = pytest.approx(sum(each) / len(each), abs=2e-3)  # ties of rounding
            assert found["as run", gate, part] == wanted
            assert found["trained + own", gate, part] == wanted  # the weights of conf/method
    assert len(found) == 2 * (1 + 8) * (8 + 1)
    summary = pd.read_csv(tmp_path / "results" / "summary.csv")
    assert summary.set_index(["heads", "part", "gate"])["mean"]["own", "test", "lda"] == (
        pytest.approx(found["own", "lda", "test"], abs=1e-6)
    )
