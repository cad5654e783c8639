"""Audits of gates and uncertainties from records alone, against numbers by hand and naive loops."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from iqa_lightning.metrics import audits as module
from iqa_lightning.metrics.matrices import derive
from iqa_lightning.records import RunFolder
from iqa_lightning.report.text.terminal import audit_text


def frame(seed: int, heads: list[str]) -> pd.DataFrame:
    """Predictions of two data sets, `a` and `b`, 12 test images each and one of validation."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {"dataset": ["a"] * 13 + ["b"] * 13, "split": (["val"] + ["test"] * 12) * 2}
    )
    rows["image"] = [f"{i}.png" for i in range(26)]
    rows["mos"] = np.random.default_rng(0).normal(size=26)
    rows["latest"], rows["gated"] = rng.normal(size=(2, 26)).astype(np.float32)
    rows["oracle"] = rng.normal(size=26).astype(np.float32)
    rows.loc[~rows["dataset"].isin(heads), "oracle"] = np.nan
    weights = rng.dirichlet(np.ones(max(len(heads), 1)), 26).astype(np.float32)
    for k, head in enumerate(heads):
        rows[f"score/{head}"], rows[f"gate/{head}"] = rows["latest"], weights[:, k]
    return rows


@pytest.fixture
def predictions() -> dict[str, pd.DataFrame]:
    return {"start": frame(0, []), "a": frame(1, ["a"]), "b": frame(2, ["a", "b"])}


def test_gate_confusion_and_regret(predictions: dict[str, pd.DataFrame]) -> None:
    table = derive(predictions)["audits"]["gate"]
    assert table[["after", "dataset"]].to_numpy().tolist() == [
        ["a", "a"],
        ["a", "b"],
        ["b", "a"],
        ["b", "b"],
    ]
    test = predictions["b"].query("split == 'test' and dataset == 'a'")
    row = table.iloc[2]
    assert row["n"] == 12
    assert (
        row["own"] == row["weight/a"] == pytest.approx(float(test["gate/a"].astype(float).mean()))
    )
    assert row["weight/a"] + row["weight/b"] == pytest.approx(1, abs=1e-6)
    expected = (
        stats.spearmanr(test["oracle"], test["mos"])[0]
        - stats.spearmanr(test["gated"], test["mos"])[0]
    )
    assert row["regret"] == pytest.approx(expected)
    unseen = table.iloc[1]  # b, after a
    assert (unseen["weight/a"], math.isnan(unseen["own"]), math.isnan(unseen["regret"])) == (
        1.0,
        True,
        True,
    )
    assert table["weight/b"].isna().tolist() == [True, True, False, False]


def test_gate_accuracy_entropy_and_the_control(predictions: dict[str, pd.DataFrame]) -> None:
    rng = np.random.default_rng(5)
    predictions["b"]["score/b"] = rng.normal(size=26).astype(np.float32)
    table = derive(predictions)["audits"]["gate"]
    test, row = predictions["b"].query("split == 'test' and dataset == 'b'"), table.iloc[3]
    right, total = 0, 0.0
    for one, two in test[["gate/a", "gate/b"]].to_numpy(float):
        right += two > one
        total -= (one * math.log2(one) + two * math.log2(two)) / 12  # two heads: in bits
    assert row["accuracy"] == right / 12
    assert row["entropy"] == pytest.approx(total)
    plain = stats.spearmanr(test["score/a"] + test["score/b"], test["mos"])[0]
    assert row["regret_uniform"] == pytest.approx(
        stats.spearmanr(test["oracle"], test["mos"])[0] - plain
    )
    alone = table.iloc[0]
    assert (alone["accuracy"], math.isnan(alone["entropy"])) == (1.0, True)
    assert math.isnan(table.iloc[1]["accuracy"])


def test_records_and_text(predictions: dict[str, pd.DataFrame], tmp_path: object) -> None:
    folder = RunFolder(str(tmp_path))
    for t, (task, rows) in enumerate(predictions.items()):
        folder.write_predictions(t, task, rows)
    derived = derive(folder.predictions())
    folder.write_derived(derived)
    found = pd.read_csv(folder.path / "gate.csv")
    pd.testing.assert_frame_equal(found, derived["audits"]["gate"], check_dtype=False)
    assert not (folder.path / "uncertainty.csv").exists()
    text = audit_text(derived["audits"]["gate"], "gate").splitlines()
    assert text[0] == "gate, after b"
    assert [line.split()[0] for line in text[2:4]] == ["a", "b"]


def test_runs_without_a_gate_have_no_audit(predictions: dict[str, pd.DataFrame]) -> None:
    plain = {
        task: rows.drop(columns=[c for c in rows if c == "gated" or c.startswith("gate/")])
        for task, rows in predictions.items()
    }
    assert derive(plain)["audits"] == {}


def uncertain(seed: int, std: float | None = None) -> pd.DataFrame:
    """Predictions of one data set with deviations."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"dataset": "a", "split": "test", "image": [f"{i}.png" for i in range(9)]})
    table["mos"] = np.random.default_rng(0).normal(size=9).round(1)
    table["single"] = rng.normal(size=9).astype(np.float32)
    table["sigma"] = rng.uniform(0.2, 1, 9).astype(np.float32)
    table["mos_std"] = (np.random.default_rng(0).uniform(0.1, 1, 9) if std is None else std).astype(
        np.float32
    )
    return table


def test_uncertainty_equals_a_naive_loop() -> None:
    rows = uncertain(1)
    derived = derive({"start": uncertain(0), "a": rows})
    assert list(derived["srcc"]) == ["single"]
    table = derived["audits"]["uncertainty"]
    m, s, y, d = (rows[c].to_numpy(float) for c in ("single", "sigma", "mos", "mos_std"))
    total = []
    for i in range(9):
        for j in range(i):
            p = stats.norm.cdf((m[i] - m[j]) / math.sqrt(s[i] ** 2 + s[j] ** 2))
            q = stats.norm.cdf((y[i] - y[j]) / math.sqrt(d[i] ** 2 + d[j] ** 2))
            total.append(1 - math.sqrt(p * q) - math.sqrt((1 - p) * (1 - q)))
    assert table["fidelity"].iloc[1] == pytest.approx(np.mean(total), rel=1e-6)
    assert table["sigma_srcc"].iloc[1] == pytest.approx(stats.spearmanr(s, d)[0])
    assert table["after"].tolist() == ["start", "a"]


def test_blocks_do_not_change_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [uncertain(1)[c].to_numpy(float) for c in ("single", "sigma", "mos", "mos_std")]
    whole = module.mean_fidelity(*columns)
    monkeypatch.setattr(module, "BLOCK", 20)
    assert module.mean_fidelity(*columns) == pytest.approx(whole, rel=1e-12)


def test_unknown_human_deviations() -> None:
    rows = uncertain(1, std=np.full(9, np.nan))  # type: ignore[arg-type]
    table = derive({"start": rows, "a": rows})["audits"]["uncertainty"]
    assert table["sigma_srcc"].isna().all()
    assert table["fidelity"].notna().all()  # the sign of the difference is the target
    first, second = np.array([0, 1]), np.array([1, 0])
    assert module.prefer(np.array([2.0, 1.0]), np.zeros(2), first, second).tolist() == [1.0, 0.0]
    assert module.prefer(np.array([1.0, 1.0]), np.zeros(2), first, second).tolist() == [0.5, 0.5]


def test_deviations_are_stored(tmp_path: object) -> None:
    folder = RunFolder(str(tmp_path))
    folder.write_predictions(0, "start", uncertain(0))
    stored = folder.predictions()["start"]
    assert list(stored.columns[-2:]) == ["mos_std", "sigma"]
    assert stored["sigma"].dtype == np.float32
