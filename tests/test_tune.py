"""Trials: what they ask for, what they may not, what they cost nothing twice, and what they leave."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy.stats import spearmanr

from iqa_lightning.datasets.splits import generate_split, tuning_split
from iqa_lightning.report.numbers.trials import Trial, read_trials, winner, write_trials
from iqa_lightning.runs.grid import GRID
from iqa_lightning.tune import checked, distribution, planned, space, tune
from tests.walks import ROOT, TINY

METHODS = sorted(
    path.stem for path in (ROOT / "conf" / "method").glob("*.yaml") if path.stem != "base"
)
TUNE = {"trials": 2, "order": ["noise"], "split": 3}
GIVEN = GRID | {"experiment": "demo", "methods": ["sh_cl_cpu"], "tune": TUNE}


@pytest.fixture
def conf():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


def test_splits_for_trials_are_none_of_the_ten() -> None:
    references = [f"r{i}" for i in range(40)]
    splits = [generate_split("set", references, k) for k in range(1, 11)]
    splits += [tuning_split("set", references, k) for k in range(1, 11)]
    assert len({tuple(map(tuple, split)) for split in splits}) == 20
    for split in splits:
        assert sorted(row for rows in split for row in rows) == list(range(40))
    with pytest.raises(ValueError, match="split is 11"):
        tuning_split("set", references, 11)


@pytest.mark.parametrize("method", METHODS)
def test_every_range_names_a_value_and_holds_it(method: str, conf: None) -> None:
    config = OmegaConf.to_container(compose("train", [f"method={method}"]), resolve=True)["method"]
    free = space(method, config)
    for key, values in free.items():
        start = config
        for part in key.split("."):
            start = start[part]
        kept = distribution(values, start)
        assert kept.low <= start <= kept.high
        assert kept.log


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tune": {}}, "expected tune:"),
        ({"tune": TUNE | {"trials": 0}}, "tune.trials is 0"),
        ({"tune": TUNE | {"split": 11}}, "tune.split is 11"),
        ({"tune": TUNE | {"order": ["nois"]}}, "expected one or two of"),
        ({"tune": TUNE | {"order": []}}, "expected one or two of"),
        ({"orders": [["noise", "blur"]]}, "an order of the table begins so"),
    ],
)
def test_what_the_table_may_not_ask(change: dict, words: str, conf: None) -> None:
    grid = GIVEN | change
    with pytest.raises(ValueError, match=words):
        checked(grid, planned(grid, "sh_cl_cpu", []), Path("runs.yaml"))


@pytest.mark.parametrize(
    ("free", "words"),
    [
        ({"rate": [1, 2]}, "names 'rate', which has no value"),
        ({"lr": [1]}, "expected a list of choices"),
        ({"lr": {"low": 2, "high": 1}}, "expected a list of choices"),
        ({"lr": {"low": 1, "up": 2}}, "expected a list of choices"),
    ],
)
def test_ranges_that_are_none(free: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        space("lwf", {"lr": 1.0, "tune": free})


def test_trials_come_back(tmp_path: Path) -> None:
    trials = [
        Trial("a", 1, {"optimizer.lr": 0.001}, 0.5, 3.0),
        Trial("a", 2, {"optimizer.lr": 0.01}, float("nan"), 0.0),
        Trial("a", 3, {"optimizer.lr": 0.02}, 0.5, 4.0),
    ]
    write_trials(tmp_path, trials)
    assert repr(read_trials(tmp_path)) == repr(trials)
    assert winner(trials).number == 1, "the first of equals"
    with pytest.raises(ValueError, match="no trial ended"):
        winner(trials[1:2])
    (tmp_path / "tuning.csv").write_text("method,trial\na,1\n")
    with pytest.raises(ValueError, match="is not what `tune` writes"):
        read_trials(tmp_path)


@pytest.mark.slow
def test_a_table_is_tuned_once(
    tmp_path: Path, conf: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real trials; scores as pandas and scipy find them in the predictions; the second call trains nothing."""
    pytest.importorskip("optuna")
    table = tmp_path / "experiments" / "small"
    table.mkdir(parents=True)
    grid = {"experiment": "demo", "methods": ["sh_cl_cpu", "ridge"], "overrides": list(TINY)}
    grid["overrides"] = [
        *(word for word in TINY if not word.startswith(("variant", "method."))),
        "schedule.finetune.epochs=1",
        "pairs.min_images=0",
    ]
    (table / "runs.yaml").write_text(json.dumps(grid | {"tune": TUNE}))
    (tmp_path / "method").mkdir()
    cfg = compose("tune", ["table=small", "jobs=1"])
    cfg.experiments, cfg.output = str(tmp_path / "experiments"), str(tmp_path / "trials")
    cfg.methods = str(tmp_path / "method")
    found = tune(cfg)
    said = capsys.readouterr().out
    assert "ridge: no free values" in said
    assert [trial.number for trial in found] == [1, 2]
    assert found[0].values == {"optimizer.lr": 1e-4, "head_lr_factor": 300.0}, "as it stands"
    assert found[1].values != found[0].values
    runs = sorted((tmp_path / "trials" / "small").rglob("after_1_noise.parquet"))
    assert len(runs) == 2
    naive = set()
    for file in runs:
        frame = pd.read_parquet(file)
        val = frame[frame["split"] == "val"]
        readout = "single" if "single" in val else "latest"
        score = float(spearmanr(val[readout], val["mos"]).statistic)
        naive.add(round(score, 6))
    assert {round(trial.score, 6) for trial in found} == naive
    rows = list(csv.DictReader((table / "tuning.csv").read_text().splitlines()))
    best = max(rows, key=lambda row: float(row["score"]))
    text = (tmp_path / "method" / "sh_cl_cpu_small.yaml").read_text()
    assert text.startswith("# sh_cl_cpu for the table small: the best of 2 trials")
    values = OmegaConf.create(text)
    assert values.optimizer.lr == json.loads(best["values"])["optimizer.lr"]
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "trials").rglob("*.parquet")}
    csv_before = (table / "tuning.csv").read_text()
    tune(cfg)
    assert (table / "tuning.csv").read_text() == csv_before
    assert before == {
        file: file.stat().st_mtime_ns for file in (tmp_path / "trials").rglob("*.parquet")
    }
    # a trial that was lost is made again, and gives the same
    shutil.rmtree(runs[1].parents[1])
    tune(cfg)
    again = csv.DictReader((table / "tuning.csv").read_text().splitlines())
    assert [row["score"] for row in again] == [row["score"] for row in rows]
