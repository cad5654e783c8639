"""Words, classes and accuracies of scenes and distortions."""

import math

import numpy as np
import pandas as pd
import pytest

from iqa_lightning.metrics.liqe_labels import (
    CLASS_OF,
    DISTORTIONS,
    SCENES,
    column,
    distortion_accuracy,
    distortion_index,
    label_tables,
    scene_accuracy,
    scene_targets,
)


def test_the_words() -> None:
    """specs/liqe.md, section 2."""
    assert (
        ", ".join(SCENES)
        == "animal, cityscape, human, indoor, landscape, night, plant, still_life, others"
    )
    assert ", ".join(DISTORTIONS) == (
        "jpeg2000 compression, jpeg compression, noise, blur, color, contrast, overexposure, "
        "underexposure, spatial, "
        "quantization, other"
    )
    assert len(CLASS_OF) == 33
    assert [list(CLASS_OF.values()).count(name) for name in DISTORTIONS] == [
        2,
        1,
        7,
        5,
        3,
        3,
        2,
        2,
        4,
        2,
        2,
    ]


@pytest.mark.parametrize(
    ("label", "index"),
    [
        *(
            ("fastfading", 0),
            ("white noise with denoise", 2),
            ("shifting", 3),
            ("shifting the mean", 10),
        ),
        *(
            ("sharpness", 5),
            ("color quantization", 9),
            ("blur", 3),
            ("gaussian_blur", 3),
            ("", -1),
            ("ringing", -1),
        ),
    ],
)
def test_class_of_a_fine_label(label: str, index: int) -> None:
    assert distortion_index(label) == index


def test_a_new_word_stands_at_the_end() -> None:
    assert distortion_index("ringing", [*DISTORTIONS, "ringing"]) == 11
    assert distortion_index("lens", [*DISTORTIONS, "ringing"]) == 3


def test_scene_targets() -> None:
    found = scene_targets(["night", "human+still_life", "", "beach"])
    expected = np.zeros((4, 9))
    expected[0, 5] = expected[1, 2] = expected[1, 7] = 1
    np.testing.assert_array_equal(found, expected)
    assert scene_targets([]).shape == (0, 9)


def test_top_m_rule() -> None:
    """One label: is it first? Two: how many are among the first two?"""
    p = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.5, 0.2, 0.3], [0.2, 0.3, 0.5]])
    target = np.array([[0, 1, 0], [1, 0, 1], [1, 1, 0], [0, 0, 0]])
    assert scene_accuracy(p, target) == pytest.approx((1 + 1 + 0.5) / 3)
    assert math.isnan(scene_accuracy(p, np.zeros((4, 3))))


def test_distortion_accuracy() -> None:
    p = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3], [0.5, 0.2, 0.3]])
    assert distortion_accuracy(p, np.array([1, 2, -1])) == 0.5
    assert math.isnan(distortion_accuracy(p, np.array([-1, -1, -1])))


def test_tables_from_records() -> None:
    rows = pd.DataFrame(
        {
            "image/scene": ["night", "human+night", ""],
            "image/distortion": ["lens", "white noise", ""],
        }
    )
    for kind, words, likely in (
        ("scene", SCENES, [5, 2, 0]),
        ("distortion", DISTORTIONS, [3, 3, 3]),
    ):
        for k, word in enumerate(words):
            rows[column(kind, word)] = [0.6 if k == i else 0.04 for i in likely]
    tables = label_tables(iter([("start", "x", rows)]))
    (cells,) = tables["labels"].to_dict("records")
    # of human and night the second place is a tie at 0.04, which the first of the words (animal)
    # wins
    assert cells == {
        "after": "start",
        "dataset": "x",
        "n": 3,
        "scene_accuracy": pytest.approx(0.75),
        "scene_images": 2,
        "distortion_accuracy": 0.5,
        "distortion_images": 2,
    }
    counts = {tuple(row[2:5]): row[5] for row in tables["confusion"].itertuples(index=False)}
    assert counts == {
        ("scene", "human", "human"): 1,
        ("scene", "night", "human"): 1,
        ("scene", "night", "night"): 1,
        ("distortion", "noise", "blur"): 1,
        ("distortion", "blur", "blur"): 1,
    }
    assert label_tables(iter([("start", "x", rows[["image/scene"]])])) == {}
