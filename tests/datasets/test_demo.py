"""The embedded stream: what its images and its synthetic targets are."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import convolve
from scipy.stats import spearmanr

from iqa_lightning.datasets import demo
from iqa_lightning.datasets.base import unlocked_test_set
from iqa_lightning.datasets.demo import (
    DEGRADATIONS,
    PHOTOGRAPHS,
    DemoData,
    generate,
    photograph,
    similarity,
)
from tests.walks import composed

TASKS = list(DEGRADATIONS)


def test_the_tasks_are_those_of_the_stream() -> None:
    first = ["compression", "blur", "noise", "tone"]
    assert [*first, "motion", "impulse", "jitter", "jpeg2000"] == TASKS
    assert list(composed().stream.tasks) == first
    assert list(composed("stream=demo_distortions").stream.tasks) == TASKS


@pytest.mark.parametrize("task", TASKS)
def test_images_targets_and_contents(task: str) -> None:
    data = DemoData(task)
    data.prepare_data()
    data.setup()
    table = data.samples.table
    assert (data.name, data.synthetic, len(table)) == (f"demo_{task}", True, 240)
    assert set(table["reference"]) == set(PHOTOGRAPHS)
    assert table["mos_std"].isna().all(), "nobody rated these images"
    assert table["mos"].between(0, 100).all()
    assert np.ptp(np.percentile(table["mos"], [10, 90])) > 45, (
        "a target without spread cannot be learnt"
    )
    assert table["mos"].nunique() > 230
    strength = np.tile(np.arange(20), len(PHOTOGRAPHS))
    assert spearmanr(table["mos"], strength).statistic < -0.85
    assert np.array_equal(
        data.part("train")[0]["image"].permute(1, 2, 0), generate(task).images[data.parts.train[0]]
    )


def test_a_photograph_is_in_the_same_part_of_all_tasks() -> None:
    for split in range(1, 11):
        parts = []
        for task in TASKS:
            data = DemoData(task, split=split)
            data.prepare_data()
            parts.append(
                [sorted(set(data.samples.table["reference"].iloc[rows])) for rows in data.parts]
            )
        assert all(part == parts[0] for part in parts)
        assert [len(part) for part in parts[0]] == [8, 1, 3]


@pytest.mark.parametrize("task", TASKS)
def test_made_again_bit_for_bit(task: str) -> None:
    first = DemoData(task).fingerprint(), generate(task).table
    generate.cache_clear()
    photograph.cache_clear()
    assert (DemoData(task).fingerprint(), None) == (first[0], None)
    assert generate(task).table.equals(first[1])


def naive_gmsd(one: np.ndarray, two: np.ndarray) -> float:
    """Xue et al. 2014, written out with two-dimensional filters."""
    prewitt = np.array([[1, 0, -1]] * 3) / 3
    maps = []
    for image in (one, two):
        luma = 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]
        half = (luma[::2, ::2] + luma[1::2, ::2] + luma[::2, 1::2] + luma[1::2, 1::2]) / 4
        maps.append(
            np.sqrt(convolve(half, prewitt) ** 2 + convolve(half, prewitt.T) ** 2)[1:-1, 1:-1]
        )
    agreement = (2 * maps[0] * maps[1] + 170) / (maps[0] ** 2 + maps[1] ** 2 + 170)
    return float(np.sqrt(((agreement - agreement.mean()) ** 2).mean()))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("strength", [0.05, 0.4, 1.0])
def test_target_is_one_minus_three_gmsd(task: str, strength: float) -> None:
    crop = np.asarray(photograph("coffee"))[100:260, 200:360]
    degraded = DEGRADATIONS[task](crop, strength, np.random.default_rng(0))
    expected = 100 * max(0.0, 1 - 3 * naive_gmsd(crop.astype(float), degraded.astype(float)))
    assert similarity(crop, degraded) == pytest.approx(expected, abs=1e-3)
    assert similarity(crop, crop) == 100


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", sorted(PHOTOGRAPHS))
def test_stronger_is_worse_on_one_crop(task: str, name: str) -> None:
    crop = np.asarray(photograph(name))[60:220, 70:230]
    scores = [
        similarity(crop, DEGRADATIONS[task](crop, s, np.random.default_rng(1)))
        for s in (0.05, 0.3, 0.6, 1.0)
    ]
    assert scores[0] > scores[-1]
    assert spearmanr(scores, [4, 3, 2, 1]).statistic >= 0.8


def test_photographs_are_colour_of_moderate_size() -> None:
    for name in PHOTOGRAPHS:
        image = photograph(name)
        assert image.mode == "RGB"
        assert 300 <= min(image.size) <= 480


def test_every_photograph_has_a_licence_in_the_docstring() -> None:
    assert DemoData.__doc__ is not None
    assert all(f"`{name}`" in DemoData.__doc__ for name in PHOTOGRAPHS)
    assert "synthetic target" in " ".join(DemoData.__doc__.split())


def test_a_missing_photograph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(demo.PHOTOGRAPHS, "moon", ("skimage", "data/nowhere.png"))
    with pytest.raises(ValueError, match=r"'moon': skimage has no data/nowhere\.png"):
        photograph("moon")
    monkeypatch.setitem(demo.PHOTOGRAPHS, "sun", ("no_such_package", "sun.png"))
    with pytest.raises(ValueError, match="'sun'"):
        photograph("sun")


def test_unknown_distortion() -> None:
    with pytest.raises(
        ValueError,
        match="'fog' is unknown; choose from compression, blur, noise, tone, motion, impulse, jitter",
    ):
        DemoData("fog")


def test_the_disk_cache_knows_its_pixels(tmp_path: Path) -> None:
    data = DemoData("blur", cache="disk", cache_dir=tmp_path)
    data.setup()
    with unlocked_test_set():
        part = data.part("test")
    image = Image.fromarray(part[5]["image"].permute(1, 2, 0).numpy())
    assert (
        hashlib.sha256(image.tobytes()).digest()
        == hashlib.sha256(data.load_image(int(part.rows[5])).tobytes()).digest()
    )
