"""GRepQ: values of its official functions and counts of its parameters, as the specification has
them.
"""

import math

import numpy as np
import pytest
import torch

from iqa_lightning.losses.group_contrast import extreme_groups, group_contrast
from iqa_lightning.losses.scene_contrast import attraction, soft_contrast
from iqa_lightning.models.clip_any_size import AnySizeCLIP, preference_of
from iqa_lightning.models.naturalness import distance
from iqa_lightning.models.quality_encoder import QualityEncoder

EYE = torch.eye(2, dtype=torch.float64)


def scene(similarity: list[list[float]], mode: str = "inside") -> float:
    matrix = torch.tensor([similarity], dtype=torch.float64)
    return float(soft_contrast(EYE[None], EYE[None], matrix, 0.5, mode))


def test_contrast_of_a_scene() -> None:
    assert scene([[1, 0.5], [0.5, 1]]) == pytest.approx(0.148416653606745, abs=1e-14)
    # by hand: attractions 1 and 0.4, logs of the shares -log(1 + e^-2) and -log(1 + e^2). The
    # specification prints 0.977699295460160, which no rounding gives: its eighth digit is 1 here
    by_hand = math.log(1 + math.exp(-2)) + 0.4 * math.log(1 + math.exp(2))
    assert scene([[1, 0.5], [0.5, 1]], "outside") == pytest.approx(by_hand, abs=1e-14)
    assert by_hand == pytest.approx(0.977699295460160, abs=1e-7)
    generator = torch.Generator().manual_seed(0)
    f, g = torch.randn(2, 3, 9, 5, dtype=torch.float64, generator=generator)
    assert float(soft_contrast(f, g, torch.ones(3, 9, 9, dtype=torch.float64))) == pytest.approx(0)


def test_attraction_has_its_ends() -> None:
    assert attraction(torch.tensor([0.0, 1.0])).tolist() == [0.0, 1.0]
    w = np.linspace(0, 1, 11)
    expected = 2 - 2 / (1 + w**2)
    assert np.allclose(attraction(torch.from_numpy(w)).numpy(), expected, atol=1e-15)


def test_contrast_of_groups() -> None:
    a, b = EYE[[0, 0]], EYE[[1, 1]]
    assert float(group_contrast(a, b)) == pytest.approx(0.2395447662218845, abs=1e-14)
    assert float(group_contrast(a, b)) == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)))
    assert float(group_contrast(a, a)) == pytest.approx(1.0986122886681, abs=1e-13)


def test_of_a_batch_of_128_four_are_best_and_four_worst() -> None:
    quality = torch.rand(128, generator=torch.Generator().manual_seed(0))
    worst, best = extreme_groups(quality)
    order = np.argsort(quality.numpy())
    assert worst.tolist() == order[:4].tolist()
    assert best.tolist() == order[-4:].tolist()


def test_distance_and_its_score() -> None:
    found = distance(torch.zeros(2), torch.eye(2), torch.tensor([3.0, 4.0]), torch.eye(2))
    assert float(found) == pytest.approx(4.997501873438867, abs=1e-12)
    assert 1 - float(torch.sigmoid(found / 100)) == pytest.approx(0.48750884493244384, abs=1e-12)


def test_score_of_the_two_sentences() -> None:
    assert float(preference_of(torch.tensor(0.25), torch.tensor(0.20))) == pytest.approx(
        0.62245933, abs=1e-7
    )


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_of_the_low_level_network() -> None:
    encoder = QualityEncoder()
    assert count(encoder.network) == 11_176_512
    assert count(encoder.head) == 512 * 512 + 512 + 512 * 128 + 128
    assert encoder.width == 128


def test_parameters_of_the_image_towers() -> None:
    with torch.device("meta"):
        import open_clip

        full = open_clip.model.CLIP(**open_clip.get_model_config("RN50-quickgelu"))
    assert count(full.visual) == 38_316_896
    tiny = AnySizeCLIP("RN50-quickgelu", options=TINY)
    assert count(tiny.network.visual) == 330_540
    assert tiny(torch.zeros(3, 3, 64, 64, dtype=torch.uint8)).shape == (3, 16)
    assert tiny.encode_text(("a good photo.", "a bad photo.")).shape == (2, 16)


TINY = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 64,
        "layers": [1, 1, 1, 1],
        "width": 8,
        "patch_size": None,
        "head_width": 32,
    },
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
    },
}
"""The specification's stand-in for CLIP RN50."""


def test_width_of_both_features_and_of_the_sums() -> None:
    assert 1024 + QualityEncoder().width == 1152
