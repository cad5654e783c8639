"""Views of images: the adaptive resize of the papers, crops that reach every offset, pure
functions.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode, functional

from iqa_lightning.images.transforms import (
    View,
    adaptive_resize,
    evaluation_size,
    evaluation_view,
    random_view,
    resized_size,
)
from tests.datasets.folders import noise

sides = st.integers(1, 60)
unit = st.floats(0, 1, exclude_max=True)


def pixels(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    )


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 1024))
def test_resize_rule(height: int, width: int, resize: int) -> None:
    new_height, new_width = resized_size(height, width, resize)
    if resize == 0 or height < resize or width < resize:
        assert (new_height, new_width) == (height, width)
    else:
        assert min(new_height, new_width) == resize
        exact = resize * max(height, width) / min(height, width)
        assert max(new_height, new_width) == math.floor(exact + 1e-9)
        assert (new_height >= new_width) == (height >= width) or new_height == new_width


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    # sizes of the data sets after the 768 of the papers: only BID shrinks
    [
        ((1704, 2272), 768, (768, 1024)),
        ((768, 1024), 768, (768, 1024)),
        ((384, 512), 768, (384, 512)),
        ((500, 500), 224, (224, 224)),
    ],
)
def test_resize_by_hand(size: tuple[int, int], resize: int, expected: tuple[int, int]) -> None:
    assert resized_size(*size, resize) == expected


@pytest.mark.parametrize("size", [(90, 120), (133, 70), (64, 64), (40, 200)])
def test_resize_is_that_of_torchvision(size: tuple[int, int]) -> None:
    """The published transforms call torchvision on Pillow images, bilinear."""
    image = noise(3, *size)
    expected = (
        functional.resize(image, [64], InterpolationMode.BILINEAR) if min(size) >= 64 else image
    )
    assert np.array_equal(np.asarray(adaptive_resize(image, 64)), np.asarray(expected))


@given(sides, sides, sides, unit, unit, unit)
@settings(deadline=None)
def test_random_view_has_its_shape_and_is_pure(
    height: int, width: int, crop: int, top: float, left: float, flip: float
) -> None:
    image = pixels(height, width)
    before = image.clone()
    view = View(resize=0, crop=crop)
    one, two = (random_view(image, view, top, left, flip) for _ in range(2))
    assert one.shape == (3, crop, crop)
    assert one.dtype == torch.uint8
    assert one.is_contiguous()
    assert torch.equal(one, two)
    one.zero_()
    assert torch.equal(image, before), "a view shares memory with its image"


@given(st.integers(5, 12), st.integers(5, 12), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_every_offset_is_reached(height: int, width: int, crop: int) -> None:
    image = torch.arange(height * width, dtype=torch.uint8).view(1, height, width).expand(3, -1, -1)
    view = View(resize=0, crop=crop)
    free_y, free_x = height - crop + 1, width - crop + 1
    for y in range(free_y):
        for x in range(free_x):
            shown = random_view(image, view, (y + 0.5) / free_y, (x + 0.5) / free_x, 0.9)
            assert torch.equal(shown, image[:, y : y + crop, x : x + crop])
    last = math.nextafter(1, 0)
    assert torch.equal(
        random_view(image, view, last, last, 0.9), image[:, height - crop :, width - crop :]
    )
    assert torch.equal(random_view(image, view, 0, 0, 0.9), image[:, :crop, :crop])


def test_flip_mirrors_and_can_be_switched_off() -> None:
    image = pixels(9, 9)
    shown = random_view(image, View(0, 9), 0, 0, 0.49)
    assert np.array_equal(shown.numpy(), image.numpy()[:, :, ::-1])
    assert torch.equal(random_view(image, View(0, 9), 0, 0, 0.5), image)
    assert torch.equal(random_view(image, View(0, 9, flip=False), 0, 0, 0.1), image)


def test_a_small_image_is_enlarged_keeping_its_aspect() -> None:
    image = torch.zeros(3, 10, 20, dtype=torch.uint8)
    image[:, :, 10:] = 200
    left = random_view(image, View(0, 40), 0, 0, 0.9)
    right = random_view(image, View(0, 40), 0, 0.999, 0.9)
    assert (left[:, :, :35] == 0).all()
    assert (right[:, :, 5:] == 200).all()


def test_evaluation_views() -> None:
    image = pixels(7, 10)
    full = evaluation_view(image, View(0, 4))
    assert torch.equal(full, image)
    assert full.data_ptr() != image.data_ptr()
    center = View(0, 4, evaluation="center")
    assert torch.equal(evaluation_view(image, center), image[:, 1:5, 3:7])
    assert evaluation_view(pixels(3, 9), center).shape == (3, 4, 4)
    assert evaluation_size(7, 10, View(0, 4)) == (7, 10)
    assert evaluation_size(7, 10, center) == (4, 4)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"resize": -1, "crop": 8}, "resize"),
        ({"resize": 0, "crop": 0}, "crop"),
        ({"resize": 0, "crop": 8, "evaluation": "five"}, "'five'"),
    ],
)
def test_wrong_views_are_refused(options: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        View(**options)


def test_small_palette_is_not_needed() -> None:
    """An image that the rule leaves alone is handed on, not copied."""
    image = Image.new("RGB", (30, 40))
    assert adaptive_resize(image, 64) is image
