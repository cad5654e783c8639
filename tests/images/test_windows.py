"""LIQE's windows: numbers, indices and pixels against the specification and slices by hand."""

from collections import Counter

import numpy as np
import pytest
import torch

from iqa_lightning.images.transforms import (
    View,
    count,
    cut,
    drawn_indices,
    evaluation_size,
    evaluation_view,
    fixed_indices,
    grid,
    random_view,
)

LIQE = View(768, 224, evaluation="windows")


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns", "step"),  # specs/golden.json
    [(768, 1024, 12, 17, 13), (500, 500, 9, 9, 5), (384, 512, 6, 10, 4)],
)
def test_golden_windows(height: int, width: int, rows: int, columns: int, step: int) -> None:
    assert grid(height, width, 224)[:2] == (rows, columns)
    assert fixed_indices(count(height, width, 224), 15) == [i * step for i in range(15)]
    assert evaluation_size(height, width, LIQE) == (15 * 224, 224)


def image(height: int, width: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def test_evaluation_shows_the_fixed_windows() -> None:
    picture = image(384, 512)
    shown = evaluation_view(picture, LIQE)
    assert shown.shape == (15, 3, 224, 224)
    for i in range(15):
        row, col = divmod(4 * i, 10)
        assert torch.equal(
            shown[i], picture[:, 32 * row : 32 * row + 224, 32 * col : 32 * col + 224]
        )
    shown.zero_()
    assert picture.max() > 0, "a copy"


def test_large_images_take_the_larger_stride() -> None:
    picture = image(768, 1024)
    shown = evaluation_view(picture, LIQE)
    row, col = divmod(13 * 14, 17)
    assert torch.equal(shown[14], picture[:, 48 * row : 48 * row + 224, 48 * col : 48 * col + 224])


def test_fewer_windows_are_all_shown_once() -> None:
    view = View(0, 64, evaluation="windows")
    assert evaluation_view(image(70, 130), view).shape == (3, 3, 64, 64)
    assert evaluation_size(70, 130, view) == (3 * 64, 64)
    small = evaluation_view(image(32, 50), view)  # enlarged to 64x100 first
    assert small.shape == (2, 3, 64, 64)
    assert evaluation_size(32, 50, view) == (2 * 64, 64)


def test_training_draws_windows_of_the_image_or_its_mirror() -> None:
    picture, view = image(128, 160), View(0, 64, evaluation="windows", train_windows=3)
    plain = random_view(picture, view, 0.3, 0.7, 0.9)
    drawn = drawn_indices(3 * 4, 3, 0.3, 0.7)
    for window, index in zip(plain, drawn, strict=True):
        row, col = divmod(index, 4)
        assert torch.equal(window, picture[:, 32 * row : 32 * row + 64, 32 * col : 32 * col + 64])
    mirrored = random_view(picture, view, 0.3, 0.7, 0.1)
    assert torch.equal(mirrored, cut(picture.flip(-1), 64, drawn))
    still = View(0, 64, flip=False, evaluation="windows")
    assert torch.equal(random_view(picture, still, 0.3, 0.7, 0.1), plain)


def test_draws_are_uniform_and_independent() -> None:
    numbers = np.random.default_rng(0).random((20_000, 2))
    draws = [tuple(drawn_indices(6, 3, *pair)) for pair in numbers]
    counts = Counter(draws)
    assert len(counts) == 6**3, "with replacement, every triple occurs"
    expected = len(draws) / 6**3
    chi = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi < 285, "the 99.9 % quantile of chi-square with 215 degrees of freedom"
    assert drawn_indices(204, 3, 0.999999999999, 0.0)[0] == 203


@pytest.mark.parametrize("option", [{"windows": 0}, {"train_windows": 0}, {"train_windows": 7}])
def test_what_is_refused(option: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"view\.windows is"):
        View(0, 64, evaluation="windows", **option)
