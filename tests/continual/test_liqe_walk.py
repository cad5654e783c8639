"""A walk of LIQE: labels of a table reach the records, from them come accuracies, and wandb gets
the confusions.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iqa_lightning.metrics.liqe_labels import DISTORTIONS, SCENES
from tests.continual.test_loggers import Tracked
from tests.walks import IN_BATCH, stream_of_folders, suited, walk, write_folder

WORDS = [
    "method=liqe",
    *suited("liqe"),
    "schedule.warmup.epochs=0",
    "schedule.finetune.epochs=1",
    IN_BATCH,
]
WORDS += ["schedule.finetune.batch_size=14", "logger=wandb", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks, of which the first is labelled."""
    root = tmp_path_factory.mktemp("labelled")
    folders = [write_folder(root / name, seed) for seed, name in enumerate("ab")]
    table = pd.read_csv(folders[0] / "ratings.csv")
    table["distortion"] = ["white noise", "lens", "", "moire"] * 10
    table["scene"] = ["night", "human+indoor"] * 20
    table.to_csv(folders[0] / "ratings.csv", index=False)
    return walk(root / "out", *WORDS, *stream_of_folders(folders), draw=True)


@pytest.mark.slow
def test_accuracies_follow_from_the_records(run: Path) -> None:
    cells = pd.read_csv(run / "labels.csv").set_index(["after", "dataset"])
    assert list(cells.index) == [(after, name) for after in ("start", "a", "b") for name in "ab"]
    frame = pd.read_parquet(run / "predictions" / "after_1_a.parquet")
    rows = frame[(frame["dataset"] == "a") & (frame["split"] == "test")]
    kinds = rows[[f"distortion/{word.replace(' ', '_')}" for word in DISTORTIONS]].to_numpy()
    np.testing.assert_allclose(kinds.sum(axis=1), 1, atol=1e-5)
    index = (
        rows["image/distortion"].map({"white noise": 2, "lens": 3}).fillna(-1).to_numpy()
    )  # others have no class
    hits = kinds.argmax(axis=1)[index >= 0] == index[index >= 0]
    assert cells.loc[("a", "a"), "distortion_accuracy"] == pytest.approx(hits.mean())
    assert cells.loc[("a", "a"), "distortion_images"] == (index >= 0).sum() > 0
    shown = rows[[f"scene/{word}" for word in SCENES]].to_numpy()
    shares = []
    for p, cell in zip(shown, rows["image/scene"], strict=True):
        labels = [SCENES.index(word) for word in cell.split("+")]
        shares.append(len(set(np.argsort(-p)[: len(labels)]) & set(labels)) / len(labels))
    assert cells.loc[("a", "a"), "scene_accuracy"] == pytest.approx(np.mean(shares))
    assert cells.loc[("b", "b"), ["scene_images", "distortion_images"]].tolist() == [0, 0]
    assert cells.loc[("b", "b"), ["scene_accuracy", "distortion_accuracy"]].isna().all()
    assert rows["single"].between(1, 5).all()


@pytest.mark.slow
def test_confusions_and_parts_of_the_loss_reach_wandb(run: Path) -> None:
    tracked = Tracked(run)
    counts = pd.read_csv(run / "confusion.csv")
    counts = counts[(counts["after"] == "a") & (counts["kind"] == "distortion")]
    (path,) = tracked.values("confusion/distortion/a/after_1_a_table/path")
    table = json.loads(tracked.media(path).read_text())
    assert table["columns"] == ["actual", "predicted", "n"]
    assert table["data"] == counts[["actual", "predicted", "n"]].to_numpy().tolist()
    (accuracy,) = tracked.values("task/labels/scene_images/a")[:1]
    assert accuracy == 8
    assert len(tracked.values("train/quality")) > len(tracked.values("train/scene")) > 0, (
        "the second task has no labels"
    )
