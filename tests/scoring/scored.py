"""What scoring promises of every finished run, as a check of the contract of methods."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from iqa_lightning import export
from iqa_lightning.records import RunFolder
from iqa_lightning.scoring.scorer import Scorer


def image_files(rows: pd.DataFrame, folders: list[Path]) -> list[str]:
    """Files of rows of predictions; `a_2` is `a` once more."""
    roots = {folder.name: folder for folder in folders}
    return [
        str(roots[dataset.split("_")[0]] / image)
        for dataset, image in zip(rows["dataset"], rows["image"], strict=True)
    ]


def check_scored(run: Path, folders: list[Path], tmp: Path) -> None:
    """Scores of a run are those of its evaluation, bit for bit, and so are those of its bundle."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        compare(run, folders, tmp)
    finally:
        torch.set_num_threads(threads)


def compare(run: Path, folders: list[Path], tmp: Path) -> None:
    predictions = RunFolder(run).predictions()
    last = list(predictions.values())[-1]
    scorer = Scorer.load(run, "cpu")
    assert scorer.tasks == [task for task in predictions if task != "start"]
    columns = [name for name in last if name.startswith(("score/", "gate/"))]
    columns = ["single"] if "single" in last else columns
    tables, files = [], []
    for _, rows in last.groupby(["dataset", "split"], sort=False):
        files.append(image_files(rows, folders))
        table = scorer(files[-1])
        for name in columns:
            own = "score/single" if name == "single" else name
            assert np.array_equal(
                table[own].to_numpy(np.float32), rows[name].to_numpy(np.float32)
            ), f"{name} of {rows['dataset'].iloc[0]}"
        tables.append(table)
    for table in tables:
        assert (table["error"] == "").all()
        assert table["outside"].between(0, 100).all()
        assert ((table["low"] <= table["score"]) & (table["score"] <= table["high"])).all()
    bundle = tmp / "model.iqa"
    words = {"run": run, "output": bundle, "size": None}
    try:
        assert export.main(words) == 0
    except ValueError as refusal:  # scored by its run folder alone; whose, test_describe.py says
        if "cannot be exported" not in str(refusal) or bundle.exists():
            raise
        return
    again = Scorer.load(bundle, "cpu")
    pd.testing.assert_frame_equal(again(files[0]), tables[0], check_exact=True)
    assert again.card == scorer.card
