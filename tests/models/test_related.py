"""What GRepQ and LPF stand on: trunks, ridge from sums, naturalness, attention pooling of any size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.ndimage import correlate
from sklearn.linear_model import Ridge

from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.clip_any_size import AnySizeCLIP, pool_without_positions, prompt_quality
from iqa_lightning.models.naturalness import (
    Naturalness,
    colourfulness_of,
    cut_patches,
    select,
    sharpness_of,
)
from iqa_lightning.models.quality_encoder import QualityEncoder
from iqa_lightning.models.ridge import RidgeStatistics
from iqa_lightning.models.ridge_sums import ridge_of_sums
from iqa_lightning.models.trunk import Trunk
from tests.fidelity.test_grepq_golden import TINY


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def summed(*parts: tuple[np.ndarray, np.ndarray]) -> RidgeStatistics:
    sums = RidgeStatistics(parts[0][0].shape[1])
    for x, y in parts:
        sums.add(x, y)
    return sums


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(2, 10))
def test_ridge_is_that_of_scikit_learn_on_all_images(seed: int, width: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(2, 3, (images + 5, width)), rng.normal(size=images + 5)
    found, alpha = ridge_of_sums(summed((x[:5], y[:5]), (x[5:], y[5:])), [0.7], standardize=False)
    expected = Ridge(0.7).fit(x, y)
    assert alpha == 0.7
    assert np.allclose(found[:-1].numpy(), expected.coef_, atol=1e-8)
    assert float(found[-1]) == pytest.approx(expected.intercept_, abs=1e-7)


def test_strength_is_that_of_the_least_generalised_cross_validation_error() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(30, 20))
    y = x[:, 0] + 0.8 * rng.normal(size=30)
    alphas, z = [0.01, 1.0, 30.0, 1e4], (x - x.mean(axis=0)) / x.std(axis=0)
    errors = []
    for alpha in alphas:
        hat = z @ np.linalg.solve(z.T @ z + alpha * np.eye(20), z.T) + 1 / 30
        residual = y - hat @ y
        errors.append(30 * residual @ residual / (30 - np.trace(hat)) ** 2)
    assert ridge_of_sums(summed((x, y)), alphas)[1] == alphas[int(np.argmin(errors))]


def test_a_constant_feature_counts_for_nothing() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    more = np.concatenate([x, np.full((20, 1), 5.0)], axis=1)
    found, expected = (
        ridge_of_sums(summed((more, y)), [1.0])[0],
        ridge_of_sums(summed((x, y)), [1.0])[0],
    )
    assert float(found[3]) == 0
    assert torch.allclose(found[[0, 1, 2, 4]], expected)
    with pytest.raises(ValueError, match="needs 2 images or more, there are 1"):
        ridge_of_sums(summed((x[:1], y[:1])), [1.0])


def test_sharpness_and_colourfulness_are_their_formulas() -> None:
    patches = noise(2, 3, 20, 24).float() / 255
    one = patches[0].double().numpy()
    grey = 0.2989 * one[0] + 0.587 * one[1] + 0.114 * one[2]
    line = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    window = np.outer(line, line) / np.outer(line, line).sum()
    mean, square = (correlate(a, window, mode="constant") for a in (grey, grey**2))
    expected = np.sqrt(np.abs(square - mean**2)).sum()
    assert float(sharpness_of(patches)[0]) == pytest.approx(expected, rel=1e-4)
    rg, yb = np.abs(one[0] - one[1]), np.abs((one[0] + one[1]) / 2 - one[2])
    colour = np.sqrt(rg.var(ddof=1) + yb.var(ddof=1)) + np.sqrt(rg.mean() ** 2 + yb.mean() ** 2)
    assert float(colourfulness_of(patches)[0]) == pytest.approx(colour, rel=1e-5)


def test_selection_is_strict_and_the_most_colourful_is_sought_among_the_sharp() -> None:
    patches = noise(4, 3, 16, 16).float() / 255
    patches[1] = patches[1].mean(dim=(1, 2), keepdim=True).expand(3, 16, 16)
    patches[1, 0], patches[1, 1:] = 1.0, 0.0  # flat and of the strongest colour
    patches[2] = 0.7 * patches[2, :1]  # about as sharp, and grey
    kept = select(patches, 0.75, 0.8)
    assert kept.tolist() == [True, False, False, True]
    assert not select(patches[2:3], 0.75, 0.8).any(), "a grey image gives no patch"


def test_patches_of_a_small_image_come_from_its_enlargement() -> None:
    assert cut_patches(noise(3, 96, 200), 96, 48).shape == (3, 3, 96, 96)
    assert cut_patches(noise(3, 40, 60), 96, 48).shape == (2, 3, 96, 96)
    one = cut_patches(noise(3, 100, 130), 32, 32)
    assert torch.equal(one[5], noise(3, 100, 130)[:, 32:64, 32:64].float())


def test_naturalness_is_half_for_what_it_was_fitted_on() -> None:
    def encode(patches: torch.Tensor) -> torch.Tensor:
        return torch.stack([patches.mean(dim=(1, 2, 3)), patches.std(dim=(1, 2, 3))], dim=1)

    image = noise(3, 64, 64)
    module = Naturalness(2, patch=16, stride=16, sharp=0.0, colourful=0.0)
    assert module.fit(encode, [image]) == 16
    assert float(module(encode, image[None])) == pytest.approx(0.5, abs=1e-4)
    assert float(module(encode, (image // 8)[None])) < 0.5
    assert module(encode, image[None, :, :16, :16]).isfinite().all(), "one patch has no covariance"
    with pytest.raises(ValueError, match="1 pristine images give 0 patches"):
        module.fit(encode, [torch.zeros(3, 64, 64, dtype=torch.uint8)])


def test_trunk_reads_backbones_side_by_side_and_stays_frozen() -> None:
    torch.manual_seed(0)
    both = [Backbone("test_efficientnet"), Backbone("test_resnet")]
    trunk, image = Trunk(both), noise(2, 3, 32, 40)
    trunk.train()
    assert not any(module.training for module in trunk.modules())
    assert trunk.trainable() == []
    found = trunk(image)
    with torch.no_grad():
        assert torch.equal(found, torch.cat([one(image) for one in both], dim=1))
    assert trunk.width == found.shape[1]
    assert not found.requires_grad
    count = both[0].images_forwarded
    assert torch.equal(trunk(image, trunk.frozen_output(image)), found)
    assert both[0].images_forwarded == count + 2, "what is known is not computed again"
    free = Trunk(both, frozen=False)
    assert free.frozen_output(image) is None


@pytest.mark.parametrize(
    ("taps", "deviation", "factor"), [("last_map", True, 2), ("multi", False, 1)]
)
def test_taps_are_means_and_deviations_of_maps(taps: str, deviation: bool, factor: int) -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_resnet")
    image = noise(2, 3, 32, 32)
    trunk = Trunk([backbone], taps=taps, deviation=deviation).eval()
    with torch.no_grad():
        maps = backbone.network.forward_intermediates(
            backbone.prepare(image), intermediates_only=True
        )
        maps = maps if taps == "multi" else maps[-1:]
        parts = []
        for one in maps:
            flat = one.flatten(2)
            parts += [flat.mean(dim=2), flat.var(dim=2, correction=0).sqrt()][:factor]
    assert torch.allclose(trunk(image), torch.cat(parts, dim=1), atol=1e-5)
    assert trunk.width == trunk(image).shape[1]


def test_taps_of_a_vgg_are_the_five_maps_before_its_pools() -> None:
    with torch.device("meta"):
        backbone = Backbone("vgg16")
    assert Trunk([backbone], taps="last_map").width == 512
    assert Trunk([backbone], taps="multi").width == 1472
    assert Trunk([backbone], taps="multi", deviation=True).width == 2944


def test_attention_pool_without_positions_is_the_stock_one_with_positions_of_zero() -> None:
    torch.manual_seed(0)
    clip = AnySizeCLIP("RN50-quickgelu", options=TINY).eval()
    pool = clip.network.visual.attnpool
    last = torch.randn(3, pool.q_proj.in_features, 2, 2)
    with torch.no_grad():
        found = pool_without_positions(pool, last)
        pool.positional_embedding.zero_()
        assert torch.allclose(found, pool(last), atol=1e-5)


def test_clip_reads_any_size_in_evaluation_and_its_own_in_training() -> None:
    torch.manual_seed(0)
    clip, image = AnySizeCLIP("RN50-quickgelu", options=TINY), noise(2, 3, 96, 160)
    with torch.no_grad():
        assert clip.eval()(image).shape == (2, 16)
        with pytest.raises(ValueError, match="CLIP reads images of 64x64 pixels"):
            clip.train()(image)
        own = noise(2, 3, 64, 64)
        clip.network.visual.eval()
        clip.training = True
        stock = clip.network.encode_image(clip.prepare(own))
        assert torch.equal(clip(own), stock), "with positions, as CLIP has them"
        clip.eval()
        assert not torch.allclose(clip(own), stock)


def test_quality_by_two_sentences() -> None:
    torch.manual_seed(0)
    clip = AnySizeCLIP("RN50-quickgelu", options=TINY).eval()
    with torch.no_grad():
        good, bad = clip.encode_text(("a Good photo.", "a Bad photo."))
        feature = torch.stack([good, bad, good + bad])
        found = prompt_quality(clip, 3 * feature)
    gap = 10 * (1 - float(good @ bad))
    expected = [1 / (1 + np.exp(-gap)), 1 / (1 + np.exp(gap)), 0.5]
    assert np.allclose(found.numpy(), expected, atol=1e-5)


def test_a_clip_of_transformers_is_refused() -> None:
    from tests.models.clips import OPTIONS

    with pytest.raises(ValueError, match="has no attention pool"):
        AnySizeCLIP("ViT-B-32-quickgelu", options=OPTIONS)


def test_head_of_the_quality_encoder_comes_with_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = QualityEncoder("test_resnet", width=8)
    file = str(tmp_path / "weights.safetensors")
    save_file({key: value.contiguous() for key, value in first.kept().items()}, file)
    torch.manual_seed(1)
    second, image = QualityEncoder("test_resnet", file, width=8), noise(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(first.eval()(image), second.eval()(image))
    assert first.width == 8
    shown = first.prepare(image)
    assert torch.allclose(shown, image.float() / 255), "pixels in [0, 1], not normalised"
    with pytest.raises(ValueError, match="holds a head of another size"):
        QualityEncoder("test_resnet", file, width=16)
