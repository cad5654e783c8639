"""The test part is read by the evaluation alone: seen from what is read, and from what it could
change.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from iqa_lightning.datasets import base
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.images.cache import ImageCache
from tests.walks import IN_BATCH, stream_of_folders, walk, write_folder

METHODS = ("tsn_iqa", "sh_cl")


def rows_of(folder: Path, part: str) -> list[int]:
    """Rows of a part in the table of a folder."""
    data = CSVData(folder)
    data.prepare_data()
    return [int(row) for row in getattr(data.parts, part)]


def spoil(folder: Path, rows: list[int]) -> None:
    """Give rows other images of the same size and other scores."""
    table, random = pd.read_csv(folder / "ratings.csv"), np.random.default_rng(9)
    for row in rows:
        file = folder / table["image"][row]
        with Image.open(file) as image:
            size = image.height, image.width, 3
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(file)
    table.loc[rows, "mos"] = random.permutation(table["mos"][rows].to_numpy()) + 1
    table.to_csv(folder / "ratings.csv", index=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights after both tasks."""
    states = [
        torch.load(path, weights_only=True) for path in sorted((folder / "tasks").glob("*.ckpt"))
    ]
    return {f"{t} {key}": value for t, state in enumerate(states) for key, value in state.items()}


@pytest.mark.parametrize("method", METHODS)
def test_other_test_images_and_scores_leave_every_weight_as_it_is(
    method: str, tmp_path: Path
) -> None:
    words = [f"method={method}", IN_BATCH]
    words += ["method.init=nearest"] if method == "tsn_iqa" else []
    folders = [write_folder(tmp_path / name, seed) for seed, name in enumerate("ab")]
    found = {}
    for what in ("as it is", "test", "val"):
        if what != "as it is":
            for folder in folders:
                spoil(folder, rows_of(folder, what))
        run = walk(tmp_path / what, *words, *stream_of_folders(folders))
        scores = pd.read_parquet(run / "predictions" / "after_2_b.parquet")
        found[what] = weights(run), scores
    (before, scores), (after, others), (selected, _) = found.values()
    assert all(torch.equal(before[key], after[key]) for key in before | after)
    readout = "single" if method == "sh_cl" else "latest"
    differs = scores[readout] != others[readout]
    assert differs[scores["split"] == "test"].all()
    assert not differs[scores["split"] == "val"].any()
    # the control: what does take part in the training changes the weights
    assert not all(torch.equal(before[key], selected[key]) for key in before)


@pytest.mark.parametrize("method", METHODS)
def test_no_test_image_is_fetched_outside_of_an_evaluation(
    method: str, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: Counter[tuple[int, int, bool]] = Counter()
    caches: list[ImageCache] = []  # keeps them, so that an id is not given twice
    original = ImageCache.__getitem__

    def fetch(self: ImageCache, i: int) -> Any:
        if not any(self is cache for cache in caches):
            caches.append(self)
        number = next(k for k, cache in enumerate(caches) if cache is self)
        fetched[number, i, base._test_is_open.get()] += 1
        return original(self, i)

    monkeypatch.setattr(ImageCache, "__getitem__", fetch)
    walk(tmp_path, f"method={method}", IN_BATCH, *stream_of_folders(folders))
    assert len(caches) == 2
    for number, folder in enumerate(folders):
        test, open_rows = (
            rows_of(folder, "test"),
            {i for k, i, is_open in fetched if k == number and is_open},
        )
        closed = {i for k, i, is_open in fetched if k == number and not is_open}
        assert not closed & set(test)
        assert closed == set(rows_of(folder, "train")) | set(rows_of(folder, "val"))
        assert set(test) <= open_rows
