"""Features that are kept: who computes, what comes back, what a damaged file says."""

import sqlite3
from pathlib import Path

import pytest
import torch

from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.feature_cache import FeatureCache


def images(count: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 40), dtype=torch.uint8, generator=generator)


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone("test_efficientnet").eval()


def read(cache: FeatureCache, backbone: Backbone, image: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return cache(image, backbone)


@pytest.mark.parametrize("kind", ["disk", "ram"])
def test_an_image_is_computed_once_and_alone(kind: str, backbone: Backbone, tmp_path: Path) -> None:
    cache, x, asked = FeatureCache(backbone, "last", kind, tmp_path), images(), []

    def compute(image: torch.Tensor) -> torch.Tensor:
        asked.append(len(image))
        return backbone(image)

    with torch.no_grad():
        found = cache(torch.cat([x, x[:1]]), compute)
        again = cache(x.flip(0), compute)
        alone = torch.cat([backbone(one[None]) for one in x])
    assert asked == [1] * 4
    assert torch.equal(found[:4], alone)
    assert torch.equal(found[4], found[0])
    assert torch.equal(again, found[:4].flip(0))
    assert bool(list(tmp_path.glob("features-*.sqlite"))) == (kind == "disk")


def test_another_run_finds_them_and_costs_as_much(backbone: Backbone, tmp_path: Path) -> None:
    first = read(FeatureCache(backbone, "last", "disk", tmp_path), backbone, images())
    cost = backbone.images_forwarded
    second = FeatureCache(backbone, "last", "disk", tmp_path)
    with torch.no_grad():
        found = second(images(), lambda image: pytest.fail("it is there"))
    assert torch.equal(found, first)
    assert backbone.images_forwarded == 2 * cost == 8
    read(second, backbone, images())
    assert backbone.images_forwarded == 8


def test_another_network_kind_or_picture_has_features_of_its_own(
    backbone: Backbone, tmp_path: Path
) -> None:
    one = read(FeatureCache(backbone, "last", "disk", tmp_path), backbone, images())
    other = Backbone("test_efficientnet").eval()
    assert not torch.equal(
        read(FeatureCache(other, "last", "disk", tmp_path), other, images()), one
    )
    FeatureCache(backbone, "stages", "disk", tmp_path)(images(), backbone.statistics)
    assert len(list(tmp_path.glob("features-*.sqlite"))) == 3
    with torch.no_grad():
        backbone.mean += 1  # another input of the same network
    FeatureCache(backbone, "last", "disk", tmp_path)(images(), backbone)
    assert len(list(tmp_path.glob("features-*.sqlite"))) == 4
    turned = images().transpose(2, 3).contiguous()  # as many pixels in another shape
    cache = FeatureCache(backbone, "last", "disk", tmp_path)
    assert not torch.equal(read(cache, backbone, turned), read(cache, backbone, images()))


def test_a_damaged_file_is_named(backbone: Backbone, tmp_path: Path) -> None:
    cache = FeatureCache(backbone, "last", "disk", tmp_path)
    read(cache, backbone, images())
    file = next(tmp_path.glob("features-*.sqlite"))
    with sqlite3.connect(file) as table:
        table.execute("update features set row = ? where rowid = 1", (b"1234",))
    table.close()
    with pytest.raises(ValueError, match=r"features-.*is damaged: delete the file"):
        read(cache, backbone, images())
    file.write_bytes(b"no table at all " * 100)
    with pytest.raises(ValueError, match=r"features-.*is damaged"):
        read(cache, backbone, images())


def test_a_folder_that_cannot_be_written_costs_a_warning(
    backbone: Backbone, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = FeatureCache(backbone, "last", "disk", tmp_path / "file")
    with pytest.warns(UserWarning, match="features are not kept on disk"):
        found = read(cache, backbone, images())
    assert torch.equal(read(cache, backbone, images()), found)


def test_an_unknown_kind(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match=r"method\.cache='tape'"):
        FeatureCache(backbone, "last", "tape")
