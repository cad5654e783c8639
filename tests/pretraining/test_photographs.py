"""Photographs without ratings, their patches, and what they show."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_lightning.audit.contents import content_of, refuse_leaks
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.datasets.demo import PHOTOGRAPHS, DemoData
from iqa_lightning.pretraining.patches import overlapping_corners, random_corner
from iqa_lightning.pretraining.photographs import Photographs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for i in range(5):
        pixels = generator.integers(0, 256, (40 + i, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "deep" / ("er" if i % 2 else ".") / f"{i}.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "deep" / "0.png").read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def loaded(data: Photographs, epoch: int = 0, rank: int = 0, ranks: int = 1) -> list[dict]:
    data.trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=ranks)
    return list(data.train_dataloader())


def test_folders_are_searched_and_copies_count_once(folder: Path) -> None:
    data = Photographs(folders=[str(folder)], embedded=False, batch_size=4)
    data.setup()
    digests = {
        f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in folder.rglob("*.png")
    }
    assert set(data.contents) == digests
    assert len(digests) == 5
    batches = loaded(data)
    assert [len(batch["image"]) for batch in batches] == [4]
    assert all(
        image.shape[0] == 3 and image.dtype == torch.uint8
        for batch in batches
        for image in batch["image"]
    )
    orders = [
        [i for batch in loaded(data, epoch) for i in batch["index"].tolist()] for epoch in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    shared = [loaded(data, 0, rank, 2) for rank in range(2)]
    first, second = (batches[0]["index"].tolist() for batches in shared)
    assert [i for pair in zip(first, second, strict=True) for i in pair] == orders[0]


def test_embedded_photographs_and_training_images(folders: list[Path]) -> None:
    rated = CSVData(folders[0])
    data = Photographs([rated], embedded=True, batch_size=4, resize=32)
    data.setup()
    assert len(data.contents) == len(PHOTOGRAPHS) + len(rated.parts.train)
    assert {content_of(rated, int(i)) for i in rated.parts.train} < set(data.contents)
    assert not {content_of(rated, int(i)) for i in rated.parts.test} & set(data.contents)
    assert all(min(image.shape[1:]) <= 32 for batch in loaded(data) for image in batch["image"])


def test_mistakes(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match="do not fill a batch of 8"):
        Photographs(folders=[str(folder)], embedded=False, batch_size=8).setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image file"):
        Photographs(folders=[str(tmp_path / "empty")], batch_size=2).setup()


def test_corners() -> None:
    image, generator = torch.zeros(3, 50, 40), np.random.default_rng(0)
    corners = [random_corner(image, 32, generator) for _ in range(500)]
    assert {y for y, _ in corners} == set(range(19))
    assert {x for _, x in corners} == set(range(9))
    wide = torch.zeros(3, 90, 90)
    for _ in range(50):
        (a, b), (c, d) = overlapping_corners(wide, 32, (0.1, 0.3), generator, tries=1000)
        assert 0.1 <= max(0, 32 - abs(a - c)) * max(0, 32 - abs(b - d)) / 32**2 <= 0.3


def test_leaks_are_found_by_content(folders: list[Path], tmp_path: Path) -> None:
    data = CSVData(folders[0])
    data.prepare_data()
    weights = tmp_path / "weights.safetensors"
    (tmp_path / "card.json").write_text('{"images": {}}')
    assert refuse_leaks(str(weights), [data], allowed=False) == []
    assert refuse_leaks(None, [data], allowed=False) == []
    row = int(data.parts.test[3])
    digest = hashlib.sha256(data.image_path(row).read_bytes()).hexdigest()
    (tmp_path / "card.json").write_text(f'{{"images": {{"sha256:{digest}": "elsewhere/x.png"}}}}')
    name = f"a/{data.samples.table['image'].iloc[row]}"
    with pytest.raises(ValueError, match=f"1 images .* as {name}.*allow_leakage=true"):
        refuse_leaks(str(weights), [data], allowed=False)
    assert refuse_leaks(str(weights), [data], allowed=True) == [name]
    train = hashlib.sha256(data.image_path(int(data.parts.train[0])).read_bytes()).hexdigest()
    (tmp_path / "card.json").write_text(f'{{"images": {{"sha256:{train}": "x"}}}}')
    assert refuse_leaks(str(weights), [data], allowed=False) == []
    (tmp_path / "card.json").write_text("half a ca")
    with pytest.raises(ValueError, match="cannot be read"):
        refuse_leaks(str(weights), [data], allowed=False)


def test_generated_images_leak_by_their_reference(tmp_path: Path) -> None:
    data = DemoData("blur")
    data.prepare_data()
    reference = data.samples.table["reference"].iloc[data.parts.test[0]]
    (tmp_path / "card.json").write_text(
        f'{{"images": {{"DemoData:{reference}": "demo/{reference}"}}}}'
    )
    with pytest.raises(ValueError, match="20 images"):
        refuse_leaks(str(tmp_path / "weights.safetensors"), [data], allowed=False)
