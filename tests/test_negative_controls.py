"""Walks whose outcome is known beforehand, whatever the numbers are otherwise."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import Tensor

from iqa_lightning.models.heads import CosineHeads
from tests.walks import IN_BATCH, stream_of_folders, walk, write_folder

pytestmark = pytest.mark.slow

LEARNS = ("schedule.finetune.epochs=6", "method.optimizer.lr=0.003", IN_BATCH)
BRIEF = ("schedule.warmup.epochs=0", "schedule.finetune.epochs=1", IN_BATCH)


def matrix(folder: Path, readout: str = "single", kind: str = "srcc") -> pd.DataFrame:
    return pd.read_csv(folder / f"{kind}_{readout}.csv", index_col="after")


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def predictions(folder: Path, after: str) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions" / f"after_{after}.parquet")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that can be learnt."""
    return write_folder(tmp_path_factory.mktemp("good") / "a", 0, images=60)


def test_a_task_that_comes_again_is_not_forgotten_and_its_opposite_is(
    good: Path, tmp_path: Path
) -> None:
    """The opposite has the images of the first and its scores turned round, so every SRCC has the
    other sign.
    """
    again = walk(
        tmp_path / "again",
        "method=sh_cl",
        *LEARNS,
        *stream_of_folders([good]),
        "stream.order=[a,a]",
    )
    srcc = matrix(again)
    assert list(srcc.columns) == ["a", "a_2"]
    assert srcc.loc["a", "a"] > 0.8
    assert summary(again)["readouts"]["single"]["forgetting"] < 0.05
    assert matrix(again, kind="stability").loc["a_2", "a"] > 0.85

    opposite = tmp_path / "opposite"
    shutil.copytree(good, opposite)
    table = pd.read_csv(opposite / "ratings.csv")
    table.assign(mos=100 - table["mos"]).to_csv(opposite / "ratings.csv", index=False)
    words = ["method=sh_cl", *LEARNS, *stream_of_folders([good, opposite])]
    turned = matrix(walk(tmp_path / "turned", *words))
    np.testing.assert_allclose(turned["opposite"], -turned["a"], atol=1e-12)
    assert turned.loc["a", "a"] == srcc.loc["a", "a"]
    assert turned.loc["opposite", "opposite"] > 0.6
    assert turned.loc["opposite", "a"] < -0.6


def test_shuffled_scores_cannot_be_learnt(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", 0, images=150, shuffled=True)
    run = walk(tmp_path / "out", "method=sh_cl", *LEARNS, *stream_of_folders([folder]))
    (cell,) = pd.read_csv(run / "cells.csv").query("after == 'a'").to_dict("records")
    assert cell["n"] == 30
    assert cell["srcc_low"] < 0 < cell["srcc_high"]
    assert abs(summary(run)["readouts"]["single"]["mpi"]) < 0.35


@pytest.mark.parametrize(("method", "readout"), [("sh_cl", "single"), ("mh_cl", "oracle")])
def test_a_frozen_model_is_stable_and_learns_nothing(
    method: str, readout: str, folders: list[Path], tmp_path: Path
) -> None:
    words = [f"method={method}", "method.optimizer.lr=0", "method.bn_stats=frozen", *BRIEF]
    run = walk(tmp_path, *words, *stream_of_folders(folders))
    measures = summary(run)["readouts"][readout]
    assert measures["msi"] == 1
    assert measures["bwt"] == measures["forgetting"] == 0
    assert matrix(run, readout, "stability").loc["b", "a"] == 1
    before, after = predictions(run, "1_a"), predictions(run, "2_b")
    known = before["dataset"] == "a"
    assert before[known][readout].equals(after[known][readout])
    if method == "sh_cl":
        assert predictions(run, "0_start")["single"].equals(after["single"])


def test_constant_predictions_have_no_correlation(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(self: CosineHeads, feature: Tensor, head: int) -> Tensor:
        return (0 * feature).sum(dim=1) + 0.25

    monkeypatch.setattr(CosineHeads, "forward", constant)
    run = walk(tmp_path, "method=sh_cl", *BRIEF, *stream_of_folders(folders))
    assert (predictions(run, "2_b")["single"] == 0.25).all()
    assert matrix(run).isna().all(axis=None)
    assert (run / "srcc_single.csv").read_text() == "after,a,b\nstart,,\na,,\nb,,\n"
    measures = summary(run)["readouts"]["single"]
    assert measures["msrcc"] is measures["mpi"] is measures["msi"] is measures["mpsi"] is None
    assert summary(run)["finished"] is True


@pytest.mark.parametrize("method", ["tsn_iqa", "sh_cl"])
def test_a_joint_task_is_learnt_at_once(method: str, folders: list[Path], tmp_path: Path) -> None:
    run = walk(
        tmp_path, f"method={method}", *BRIEF, *stream_of_folders(folders), "stream.order=[[a,b]]"
    )
    readout = "oracle" if method == "tsn_iqa" else "single"
    assert summary(run)["order"] == [["a", "b"]]
    assert summary(run)["cost"]["images_seen"] == 2 * 28
    srcc = matrix(run, readout)
    assert list(srcc.index) == ["start", "a+b"]
    frame = predictions(run, "1_a+b")
    assert frame[readout].notna().all(), "one head has learnt both"
    for name in ("a", "b"):
        test = frame[(frame["dataset"] == name) & (frame["split"] == "test")]
        expected = test[readout].astype(float).rank().corr(test["mos"].rank())
        assert srcc.loc["a+b", name] == pytest.approx(expected, abs=1e-12)
