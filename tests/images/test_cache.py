"""The cache gives back the decoded pixels, whole or not at all, in memory and on disk alike."""

import json
import pickle
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_lightning.images.cache import ImageCache, build_cache, find_caches, ram_budget
from iqa_lightning.images.decoding import ImageReader
from iqa_lightning.images.transforms import View, random_view
from tests.datasets.folders import noise

SIZES = [(40, 48), (33, 70), (20, 20), (64, 40)]
IMAGES = [noise(i, *size) for i, size in enumerate(SIZES)]
SOURCE = ImageReader("set", "first", len(SIZES), SIZES.__getitem__, IMAGES.__getitem__)


def expected(i: int, resize: int = 32) -> np.ndarray:
    """By hand: the image at the shorter side 32 where both sides are 32 or more."""
    size = {0: (38, 32), 1: (67, 32), 2: (20, 20), 3: (32, 51)}[i]
    return np.asarray(IMAGES[i].resize(size, Image.Resampling.BILINEAR)).transpose(2, 0, 1)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_pixels_sizes_and_copies_for_workers(kind: str, tmp_path: Path) -> None:
    cache = build_cache(SOURCE, 32, kind, tmp_path)
    assert cache.kind == kind
    for copy in (cache, pickle.loads(pickle.dumps(cache))):
        assert len(copy) == 4
        for i in range(4):
            assert copy[i].dtype == torch.uint8
            assert np.array_equal(copy[i].numpy(), expected(i))
            assert tuple(copy.sizes[i]) == expected(i).shape[1:]


def test_a_pickled_disk_cache_carries_no_pixels(tmp_path: Path) -> None:
    assert len(pickle.dumps(build_cache(SOURCE, 0, "disk", tmp_path))) < 3 * 40 * 48


@pytest.mark.parametrize(("budget", "kind"), [(10**9, "ram"), (100, "disk")])
def test_auto_takes_memory_where_it_fits(budget: int, kind: str, tmp_path: Path) -> None:
    assert build_cache(SOURCE, 0, "auto", tmp_path, budget=budget).kind == kind


def test_auto_takes_the_disk_where_it_was_filled_before(tmp_path: Path) -> None:
    build_cache(SOURCE, 32, "disk", tmp_path)
    again = build_cache(replace(SOURCE, load=never, size=None), 32, "auto", tmp_path, budget=10**9)
    assert again.kind == "disk"
    assert build_cache(SOURCE, 30, "auto", tmp_path, budget=10**9).kind == "ram", (
        "another resize rule"
    )


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_crops_are_those_of_the_decoded_image(kind: str, tmp_path: Path) -> None:
    """Against cutting the resized PIL image by hand."""
    cache, view = build_cache(SOURCE, 32, kind, tmp_path), View(32, 24)
    for i, (top, left, flip) in [(0, (0.5, 0.3, 0.9)), (1, (0.99, 0.0, 0.1)), (3, (0.2, 0.7, 0.4))]:
        whole = expected(i)
        y, x = int(top * (whole.shape[1] - 23)), int(left * (whole.shape[2] - 23))
        cut = whole[:, y : y + 24, x : x + 24]
        crop = random_view(cache[i], view, top, left, flip)
        assert crop.dtype == torch.uint8
        assert np.array_equal(crop.numpy(), cut[:, :, ::-1] if flip < 0.5 else cut)


def test_the_budget_of_this_machine_is_sane() -> None:
    assert 1 << 20 < ram_budget() < 1 << 50


def never(i: int) -> Image.Image:
    raise AssertionError("decoded again")


def test_the_disk_is_read_again_and_not_decoded_again(tmp_path: Path) -> None:
    build_cache(SOURCE, 32, "disk", tmp_path)
    again = build_cache(replace(SOURCE, load=never), 32, "disk", tmp_path)
    assert np.array_equal(again[3].numpy(), expected(3))
    with pytest.raises(AssertionError, match="decoded again"):
        build_cache(replace(SOURCE, load=never), 30, "disk", tmp_path)
    with pytest.raises(AssertionError, match="decoded again"):
        build_cache(replace(SOURCE, load=never, fingerprint="second"), 32, "disk", tmp_path)


def broken(i: int) -> Image.Image:
    if i == 2:
        raise ValueError("image 2 is broken")
    return IMAGES[i]


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_broken_image_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image 2 is broken"):
        build_cache(replace(SOURCE, load=broken), 0, kind, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ([] if kind == "ram" else [".lock"])


def test_two_builders_at_once(tmp_path: Path) -> None:
    """The second waits for the first and decodes nothing; both get whole pixels, and one folder
    remains.
    """
    decoded: list[int] = []
    caches: list[ImageCache] = []
    begun = threading.Event()

    def slow(i: int) -> Image.Image:
        decoded.append(i)
        begun.set()
        second.is_alive() and second.join(0.2)
        return IMAGES[i]

    def build_second() -> None:
        begun.wait()
        caches.append(build_cache(replace(SOURCE, load=never), 32, "disk", tmp_path))

    second = threading.Thread(target=build_second)
    second.start()
    caches.append(build_cache(replace(SOURCE, load=slow), 32, "disk", tmp_path))
    second.join()
    assert sorted(decoded) == [0, 1, 2, 3]
    assert len(find_caches(tmp_path)) == 1
    for cache in caches:
        assert all(np.array_equal(cache[i].numpy(), expected(i)) for i in range(4))
    assert len(caches) == 2


def test_two_builders_on_a_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is finished while the first still decodes: the work is done twice, and no less
    whole.
    """
    monkeypatch.setitem(sys.modules, "fcntl", None)
    others: list[ImageCache] = []

    def slow(i: int) -> Image.Image:
        if i == 3:
            others.append(build_cache(SOURCE, 32, "disk", tmp_path))
        return IMAGES[i]

    first = build_cache(replace(SOURCE, load=slow), 32, "disk", tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    for cache in (first, others[0]):
        assert all(np.array_equal(cache[i].numpy(), expected(i)) for i in range(4))


def test_a_stray_write_does_not_reach_the_file(tmp_path: Path) -> None:
    build_cache(SOURCE, 0, "disk", tmp_path)[0].zero_()
    assert np.array_equal(
        build_cache(SOURCE, 0, "disk", tmp_path)[0].numpy().transpose(1, 2, 0),
        np.asarray(IMAGES[0]),
    )


@pytest.mark.parametrize("damage", ["pixels.bin", "index.json"])
def test_a_damaged_cache_is_refused(damage: str, tmp_path: Path) -> None:
    build_cache(SOURCE, 0, "disk", tmp_path)
    (file,) = tmp_path.glob(f"*/{damage}")
    file.write_text(json.dumps([[1, 1]]))
    with pytest.raises(ValueError, match=r"the cache .*set-\w{16} is damaged.*cache=remove"):
        build_cache(SOURCE, 0, "disk", tmp_path)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match=r"'tape'.*auto, ram, disk"):
        build_cache(SOURCE, 0, "tape")


def test_an_image_that_changes_while_it_is_read() -> None:
    with pytest.raises(ValueError, match=r"image 1 changed its size"):
        build_cache(replace(SOURCE, load=lambda i: IMAGES[2]), 0, "ram")
