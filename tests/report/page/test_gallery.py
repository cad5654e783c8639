"""Images that a run forgot, and their pictures."""

import base64
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from iqa_lightning.report.page.gallery import below, gallery
from tests.test_reproduce import ORDER, write_run

Predictions = dict[str, pd.DataFrame]


@pytest.fixture
def predictions(tmp_path: Path) -> Predictions:
    """A run that ends with the best image of `noise` (by rank of the rating) in the last place."""
    frames = write_run(tmp_path / "run", "tsn_iqa", ORDER, noise=10).predictions()
    row = frames["tone"].index[
        (frames["tone"]["dataset"] == "noise") & (frames["tone"]["image"] == "test7")
    ][0]
    for t, frame in enumerate(frames.values()):
        frame.loc[row, "mos"] = 1000.0
        frame.loc[row, "gated"] = -1e6 if t == 4 else 1e6
    return frames


def test_the_worst_forgotten_images_by_hand(predictions: Predictions) -> None:
    frames = predictions
    found = gallery({("tsn_iqa", ">".join(ORDER), 1, 0): frames}, {})["images"]
    assert [found[0][key] for key in ("dataset", "image", "picture")] == ["noise", "test7", None]
    growth = [image["growth"] for image in found]
    assert growth == sorted(growth, reverse=True)
    assert growth[-1] > 0
    assert len(found) <= 50
    assert "tone" not in {image["dataset"] for image in found}  # learnt last
    row, expected = found[3], []
    for frame, column in (
        (frames["start"], "mos"),
        (frames[row["dataset"]], "gated"),
        (frames["tone"], "gated"),
    ):
        rows = frame[
            (frame["dataset"] == row["dataset"]) & (frame["split"] == "test")
        ].reset_index()
        rank = stats.rankdata(rows[column])[rows.index[rows["image"] == row["image"]][0]]
        expected.append((rank - 0.5) / len(rows))
    assert [row[key] for key in ("rank_mos", "rank_before", "rank_after")] == pytest.approx(
        expected, abs=6e-4
    )
    assert row["growth"] == pytest.approx(
        abs(expected[2] - expected[0]) - abs(expected[1] - expected[0]), abs=6e-4
    )


def test_an_image_of_several_runs_is_there_once(predictions: Predictions) -> None:
    again = {task: frame.copy() for task, frame in predictions.items()}
    found = gallery(
        {("x", "o", split, 0): frames for split, frames in enumerate((predictions, again))}, {}
    )["images"]
    names = [(image["dataset"], image["image"]) for image in found]
    assert len(names) == len(set(names)) > 10
    assert gallery({}, {}) == {"images": [], "pictures": []}


def test_pictures_come_from_the_data_set_within_a_budget(
    predictions: Predictions, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 500, 3), np.uint8)
    for i in range(36):
        Image.fromarray(pixels).save(tmp_path / f"test{i}", "PNG")
    runs = {("tsn_iqa", ">".join(ORDER), 1, 0): predictions}
    roots = {"blur": tmp_path}
    found = gallery(runs, roots)
    with_picture = [image for image in found["images"] if image["picture"] is not None]
    assert {image["dataset"] for image in with_picture} == {"blur"}
    assert len(with_picture) == len(found["pictures"]) > 3
    kind, coded = found["pictures"][0].split(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(coded)[:3] == b"\xff\xd8\xff"
    budget = 2 * len(found["pictures"][0]) + 100
    few = gallery(runs, roots, budget)
    assert sum(map(len, few["pictures"])) <= budget
    assert len(few["pictures"]) == 2
    assert [image["picture"] for image in few["images"] if image["picture"] is not None] == [0, 1]


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "a/../../secret.png", "{root}/secret.png", "..\\secret.png", "C:\\s.png"],
)
def test_a_name_that_leads_out_of_the_folder(
    name: str, predictions: Predictions, tmp_path: Path
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "secret.png")
    (tmp_path / "set").mkdir()
    name = name.replace("{root}", str(tmp_path))
    led = {task: frame.assign(image=name) for task, frame in predictions.items()}
    roots = dict.fromkeys(
        {str(name) for frame in led.values() for name in frame["dataset"]}, tmp_path / "set"
    )
    found = gallery({("m", "o", 1, 0): led}, roots)
    assert found["images"]
    assert found["pictures"] == []
    assert below(tmp_path / "set", name) is None
