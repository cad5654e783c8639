"""Every degradation on real photographs: no damage at level 0, more with each, the same bits for a
seed.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from iqa_lightning.datasets.demo import photograph
from iqa_lightning.images.degradations.chain import Step, degrade, step
from iqa_lightning.images.degradations.kinds import KINDS

SIDE = 128
PHOTOS = torch.stack(
    [
        torch.from_numpy(
            np.asarray(photograph(name))[60 : 60 + SIDE, 90 : 90 + SIDE].copy()
        ).permute(2, 0, 1)
        for name in ("astronaut", "chelsea", "coffee", "rocket")
    ]
)
SEEDS = list(range(11, 11 + len(PHOTOS)))


def degraded(kind: str, level: float) -> torch.Tensor:
    """The photographs at one level."""
    return degrade(PHOTOS, [(step(kind, level),)] * len(PHOTOS), SEEDS)


def quality(image: torch.Tensor) -> tuple[float, float]:
    """Two full-reference measures, higher is better: minus the mean squared error, and SSIM in
    colour.
    """
    error = (image.double() - PHOTOS.double()).square().mean()
    pairs = zip(image.numpy(), PHOTOS.numpy(), strict=True)
    return -float(error), float(
        np.mean([structural_similarity(a, b, channel_axis=0) for a, b in pairs])
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_at_level_0_and_more_with_every_level(kind: str) -> None:
    assert torch.equal(degraded(kind, 0), PHOTOS)
    images = [degraded(kind, level) for level in range(6)]
    assert all(image.shape == PHOTOS.shape and image.dtype == torch.uint8 for image in images)
    errors, similarities = zip(*(quality(image) for image in images), strict=True)
    assert errors[0] > errors[1] > errors[2] > errors[3] > errors[4] > errors[5]
    assert similarities[0] == pytest.approx(1)
    assert similarities[0] > similarities[1] > similarities[3] > similarities[5]
    fine = [quality(degraded(kind, level))[0] for level in np.linspace(0.3, 5, 9)]
    assert spearmanr(fine, np.arange(9)).statistic < -0.95, "levels between whole ones"


@pytest.mark.parametrize("kind", KINDS)
def test_seed_decides_and_neighbours_do_not(kind: str) -> None:
    whole = degraded(kind, 3)
    assert torch.equal(degraded(kind, 3), whole)
    alone = torch.cat(
        [
            degrade(PHOTOS[i : i + 1], [(step(kind, 3),)], SEEDS[i : i + 1])
            for i in range(len(PHOTOS))
        ]
    )
    assert torch.equal(alone, whole)
    backwards = degrade(PHOTOS.flip(0), [(step(kind, 3),)] * len(PHOTOS), SEEDS[::-1])
    assert torch.equal(backwards.flip(0), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_float_images_keep_type_range_and_input(kind: str) -> None:
    floats = (PHOTOS[:2, :, :50, :70].float() / 255).contiguous()
    before = floats.clone()
    out = degrade(floats, [(step(kind, 5),), ()], [1, 2])
    assert (out.dtype, out.shape) == (torch.float32, floats.shape)
    assert 0 <= out.min() <= out.max() <= 1
    assert torch.equal(out[1], floats[1]), "an empty chain does nothing"
    assert torch.equal(floats, before)
    assert not torch.equal(out[0], floats[0])


def at(kind: str, strength: float) -> np.ndarray:
    """The first photograph at a strength, as rows, columns, channels."""
    return degrade(PHOTOS[:1], [(Step(kind, strength),)], [5])[0].permute(1, 2, 0).numpy()


FIRST = PHOTOS[0].permute(1, 2, 0).numpy()


def test_gaussian_blur_is_that_of_scipy() -> None:
    expected = ndimage.gaussian_filter(FIRST.astype(float), (2, 2, 0), mode="nearest", truncate=3)
    assert np.abs(at("gaussian_blur", 2.0) - expected).max() <= 1


def test_lens_blur_is_a_mean_over_a_disc() -> None:
    y, x = np.mgrid[-3:4, -3:4]
    disc = np.clip(3.5 - np.hypot(y, x), 0, 1)
    expected = ndimage.convolve(FIRST.astype(float), (disc / disc.sum())[..., None], mode="nearest")
    assert np.abs(at("lens_blur", 3.0) - expected).max() <= 1


def test_median_is_that_of_scipy() -> None:
    inner = np.s_[4:-4, 4:-4]
    assert np.array_equal(
        at("median_filter", 5.0)[inner], ndimage.median_filter(FIRST, (5, 5, 1))[inner]
    )


def test_noise_has_the_variance_it_says() -> None:
    grey = torch.full((1, 3, 200, 200), 0.5)
    for kind, strength, expected in (
        ("gaussian_noise", 0.01, 0.01),
        ("multiplicative_noise", 0.04, 0.04 * 0.25),
        ("iso_noise", 0.02, 0.02 * 0.52),
        ("impulse_noise", 0.1, 0.1 * 0.25),
    ):
        noisy = degrade(grey, [(Step(kind, strength),)], [3])
        assert float((noisy - 0.5).square().mean()) == pytest.approx(expected, rel=0.03), kind
        assert abs(float(noisy.mean()) - 0.5) < 0.003


def test_jpeg_is_that_of_pillow() -> None:
    file = io.BytesIO()
    Image.fromarray(FIRST).save(file, "JPEG", quality=20)
    expected = np.asarray(Image.open(file)).astype(int)
    assert np.abs(at("jpeg", 20) - expected).mean() < 0.5


def test_jpeg2000_and_webp_are_coded() -> None:
    for kind, strong, weak in (("jpeg2000", 100, 20), ("webp", 5, 60)):
        error = [np.square(at(kind, s).astype(float) - FIRST).mean() for s in (weak, strong)]
        assert 0 < error[0] < error[1]


def test_tone_by_hand() -> None:
    pixel = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 8, 8).contiguous()

    def value(kind: str, strength: float) -> list[float]:
        return [
            round(v, 4) for v in degrade(pixel, [(Step(kind, strength),)], [0])[0, :, 0, 0].tolist()
        ]

    assert value("brighten", 1.1) == [round(v * 2**0.5, 4) for v in (0.2, 0.4, 0.6)]
    assert value("darken", 2.2) == [0.1, 0.2, 0.3]
    assert value("mean_shift", -0.15) == [0.05, 0.25, 0.45]
    assert value("contrast", -0.5) == [0.3, 0.4, 0.5]
    grey = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.6
    assert value("saturation", 0.0) == [round(grey, 4)] * 3
    assert value("quantisation", 3) == [0.0, 0.5, 0.5]


def test_pixelation_makes_blocks() -> None:
    image = at("pixelation", 0.75)
    blocks = image.reshape(SIDE // 4, 4, SIDE // 4, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    means = FIRST.reshape(SIDE // 4, 4, SIDE // 4, 4, 3).mean(axis=(1, 3))
    assert np.abs(blocks[:, 0, :, 0] - means).max() <= 0.51
