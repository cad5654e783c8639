"""`watch` on pictures: what it says, what is to be rated, the command that learns it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from iqa_lightning import watch
from iqa_lightning.models.outside import Outside
from iqa_lightning.records import RunFolder
from iqa_lightning.scoring.watching import drift_of
from iqa_lightning.scoring.words import read_words

pytestmark = pytest.mark.slow


def values(**given: Any) -> dict[str, Any]:
    return read_words("watch", []) | given


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a kind that was not learnt: stripes."""
    folder = tmp_path_factory.mktemp("strange")
    rng = np.random.default_rng(0)
    for i in range(24):
        stripes = 255 * (np.arange(40) // (1 + i % 4) % 2)
        pixels = np.broadcast_to(stripes[None, :, None], (36, 40, 3)) * rng.uniform(0.5, 1, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02d}.png")
    return folder


def test_held_out_pictures_are_in_range_and_stripes_are_new(
    run: Path,
    places: list[Path],
    strange: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    last = list(RunFolder(run).predictions().values())[-1]
    held_out = last[last["split"] == "test"]
    roots = {place.name: place for place in places}
    files = [str(roots[d] / i) for d, i in zip(held_out["dataset"], held_out["image"], strict=True)]
    found = tmp_path / "drift.json"
    todo = tmp_path / "todo.csv"
    assert watch.main(values(run=run, images=files, output=found, label=todo)) == 0
    assert json.loads(found.read_text())["verdict"] == "in range"
    assert not todo.exists()
    capsys.readouterr()
    page = tmp_path / "page.html"
    given = values(run=run, images=str(strange), label=todo, count=5, report=page, output=found)
    assert watch.main(given) == 0
    said = capsys.readouterr().out
    assert "verdict: new" in said
    assert json.loads(found.read_text())["outside"] > 0.5
    learns = f"iqa-lightning train from={run} stream=folders 'stream.folders=[{strange}]'"
    assert learns in said
    table = pd.read_csv(todo)
    assert list(table) == ["image", "mos"]
    assert len(table) == 5
    assert all((strange / name).is_file() for name in table["image"])
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_sets_are_told_by_name_in_whatever_order_they_were_learnt() -> None:
    rng = np.random.default_rng(0)
    centres = {"zebra": 0.0, "ape": 4.0, "mole": -4.0}
    learnt = {name: rng.normal(centre, 1, (60, 6)) for name, centre in centres.items()}
    near = Outside.fit({name: torch.from_numpy(part).float() for name, part in learnt.items()})
    by_name = dict(sorted(learnt.items()))
    for name, centre in centres.items():
        batch = rng.normal(centre, 1, (40, 6)).astype(np.float32)
        usual = rng.normal(next(c for c in centres.values() if c != centre), 1, (40, 6))
        assert drift_of(near, by_name, batch, usual).nearest[name] > 0.9
        assert drift_of(near, by_name, batch, usual + 40).verdict == f"drifting to {name}"
