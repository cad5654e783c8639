"""Caches on disk: every flipped byte is found, and removal removes what it says and nothing else."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iqa_lightning.images.cache import (
    build_cache,
    find_caches,
    read_index,
    remove_caches,
    verify_cache,
)
from tests.images.test_cache import IMAGES, SIZES, SOURCE


def test_the_files_are_what_is_documented(tmp_path: Path) -> None:
    build_cache(SOURCE, 0, "disk", tmp_path)
    (cache,) = find_caches(tmp_path)
    assert {path.name for path in cache.iterdir()} == {"pixels.bin", "index.json"}
    planes = [np.asarray(image).transpose(2, 0, 1) for image in IMAGES]
    assert (cache / "pixels.bin").read_bytes() == b"".join(plane.tobytes() for plane in planes)
    index = json.loads((cache / "index.json").read_text())
    assert index["resize"] == 0
    assert index["sizes"] == [list(size) for size in SIZES]
    texts = [f"(3, {height}, {width})".encode() for height, width in SIZES]
    digests = [
        hashlib.sha256(text + plane.tobytes()).hexdigest()
        for text, plane in zip(texts, planes, strict=True)
    ]
    assert index["sha256"] == digests


@pytest.mark.parametrize("at", [0, 3 * 40 * 48 - 1, 3 * 40 * 48, -1])
def test_a_flipped_byte_is_found(at: int, tmp_path: Path) -> None:
    build_cache(SOURCE, 0, "disk", tmp_path)
    (cache,) = find_caches(tmp_path)
    verify_cache(cache)
    pixels = bytearray((cache / "pixels.bin").read_bytes())
    pixels[at] ^= 1
    (cache / "pixels.bin").write_bytes(pixels)
    number = {0: 1, 3 * 40 * 48 - 1: 1, 3 * 40 * 48: 2, -1: 4}[at]
    with pytest.raises(
        ValueError, match=rf"{cache.name} is damaged: image {number} is not .*cache=remove"
    ):
        verify_cache(cache)
    assert len(build_cache(SOURCE, 0, "disk", tmp_path)) == 4, "opening does not read the pixels"


def test_sizes_that_are_exchanged_are_found(tmp_path: Path) -> None:
    """As many bytes as before, so that opening sees nothing."""
    build_cache(SOURCE, 0, "disk", tmp_path)
    (cache,) = find_caches(tmp_path)
    index = json.loads((cache / "index.json").read_text())
    index["sizes"][0] = index["sizes"][0][::-1]
    (cache / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="image 1 is not the one decoded"):
        verify_cache(cache)


@pytest.mark.parametrize(
    "damage",
    ["cut", "longer", "no pixels", "no index", "other json", "fewer checksums", "no sizes"],
)
def test_what_opening_finds(damage: str, tmp_path: Path) -> None:
    build_cache(SOURCE, 0, "disk", tmp_path)
    (cache,) = find_caches(tmp_path)
    pixels, index = cache / "pixels.bin", json.loads((cache / "index.json").read_text())
    if damage in ("cut", "longer"):
        pixels.write_bytes(
            pixels.read_bytes()[:-1] if damage == "cut" else pixels.read_bytes() + b"x"
        )
    elif damage == "no pixels":
        pixels.unlink()
    elif damage == "no index":
        (cache / "index.json").unlink()
    else:
        changed = {
            "other json": [1],
            "fewer checksums": index | {"sha256": ["x"]},
            "no sizes": {"resize": 0},
        }[damage]
        (cache / "index.json").write_text(json.dumps(changed))
    for opened in (
        lambda: read_index(cache),
        lambda: verify_cache(cache),
        lambda: build_cache(SOURCE, 0, "disk", tmp_path),
    ):
        with pytest.raises(ValueError, match=rf"the cache .*{cache.name} is damaged.*cache=remove"):
            opened()


def test_removal(tmp_path: Path) -> None:
    for name in ("set", "set-2", "other"):
        for resize in (0, 32):
            build_cache(replace(SOURCE, name=name), resize, "disk", tmp_path)
    (tmp_path / ".building-of-a-dead-process").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "set-photographs").mkdir()
    kept = build_cache(replace(SOURCE, name="set"), 0, "disk", tmp_path)
    removed = remove_caches(tmp_path, "set")
    assert {path.name.rsplit("-", 1)[0] for path in removed} == {"set"}
    assert len(removed) == 2
    assert {path.name.rsplit("-", 1)[0] for path in find_caches(tmp_path)} == {"set-2", "other"}
    assert np.array_equal(kept[3].numpy(), np.asarray(IMAGES[3]).transpose(2, 0, 1)), (
        "who has it open keeps it"
    )
    assert len(remove_caches(tmp_path)) == 4
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "notes.txt", "set-photographs"}
    assert remove_caches(tmp_path) == remove_caches(tmp_path / "nowhere") == []
