"""A data set alone: its parts, its guard, its loaders under a plain Trainer, and bad input found
before training.
"""

import pickle
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from iqa_lightning.datasets import base
from iqa_lightning.datasets.base import unlocked_test_set
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.datasets.splits import generate_split
from iqa_lightning.images.cache import ImageCache
from iqa_lightning.images.transforms import View
from tests.datasets.folders import noise, write_csv

VIEW = View(resize=0, crop=32)


def ready(root: Path, **options: object) -> CSVData:
    data = CSVData(root, view=VIEW, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def test_items_of_a_part(tmp_path: Path) -> None:
    data = ready(write_csv(tmp_path / "set"))
    part = data.part("train")
    assert len(part) == 14
    item = part[3]
    row = int(part.rows[3])
    pixels = np.asarray(noise(row, 40 + row % 3, 48 + row % 5)).transpose(2, 0, 1)
    assert np.array_equal(item["image"].numpy(), pixels)
    assert tuple(part.sizes[3]) == pixels.shape[1:]
    assert item["index"] == 3
    assert (item["mos"], item["mos_std"]) == (row / 4, 0.5)
    assert item["mos"].dtype == item["mos_std"].dtype == part.mos.dtype == torch.float32
    top, left = 8 + row % 3, 16 + row % 5
    shown = part[3, 0.999, 0.999, 0.9]
    assert np.array_equal(shown["image"].numpy(), pixels[:, top : top + 32, left : left + 32])
    assert set(shown) == {"image", "mos", "mos_std", "index", "distortion", "scene"}


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_evaluation_may_see_another_size_than_training(cache: str, tmp_path: Path) -> None:
    """UNIQUE's two sizes, each as Pillow makes it."""
    view = View(resize=20, crop=16, evaluation_resize=30)
    data = CSVData(
        write_csv(tmp_path / "set"), view=view, cache=cache, cache_dir=tmp_path / "cache"
    )
    data.setup()
    with unlocked_test_set():
        for name, short in (("train", 20), ("val", 30), ("test", 30)):
            part = data.part(name)
            row = int(part.rows[0])
            height, width = 40 + row % 3, 48 + row % 5
            size = (int(short * width / height), short)
            wanted = np.asarray(noise(row, height, width).resize(size, Image.Resampling.BILINEAR))
            assert np.array_equal(part[0]["image"].numpy(), wanted.transpose(2, 0, 1))
    with pytest.raises(ValueError, match="evaluation_resize is -1"):
        View(resize=20, crop=16, evaluation_resize=-1)


def test_parts_follow_the_split_and_its_hash(tmp_path: Path) -> None:
    root = write_csv(tmp_path / "set")
    one, two = ready(root), ready(root, split=2)
    assert one.split_hash != two.split_hash
    assert one.split_hash == ready(root, name="other").split_hash
    with unlocked_test_set():
        rows = [one.part(name).rows for name in ("train", "val", "test")]
    assert sorted(np.concatenate(rows)) == list(range(20))
    for given, found in zip(one.parts, rows, strict=True):
        assert np.array_equal(given, found)


def test_the_test_part_opens_in_an_evaluation_only(tmp_path: Path) -> None:
    data = ready(write_csv(tmp_path / "set"))

    def refused() -> None:
        with pytest.raises(PermissionError, match="unlocked_test_set"):
            data.part("test")

    refused()
    with unlocked_test_set():
        assert len(data.part("test")) == 4
        with unlocked_test_set():
            data.part("test")
        data.part("test")
    refused()
    with pytest.raises(ZeroDivisionError), unlocked_test_set():
        1 / 0  # noqa: B018
    refused()
    with pytest.raises(ValueError, match="no part 'all'"):
        data.part("all")


class Rater(pl.LightningModule):
    """The smallest model that can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1)
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def step(self, batch: dict[str, Tensor], name: str) -> Tensor:
        self.seen.append((name, tuple(batch["image"].shape)))
        pred = self.head(batch["image"].float().mean(dim=(2, 3)) / 255)[:, 0]
        return (pred - batch["mos"]).square().mean()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.step(batch, "train")

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.step(batch, "val")

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.step(batch, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def quiet_trainer() -> pl.Trainer:
    off = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(accelerator="cpu", max_epochs=2, num_sanity_val_steps=0, **off)


def test_alone_with_a_plain_trainer_which_never_reads_the_test_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[int] = set()
    original = ImageCache.__getitem__
    monkeypatch.setattr(
        ImageCache, "__getitem__", lambda cache, i: (read.add(i), original(cache, i))[1]
    )
    data, model = CSVData(write_csv(tmp_path / "set"), view=VIEW, batch_size=4), Rater()
    quiet_trainer().fit(model, datamodule=data)
    assert read == {*data.parts.train.tolist(), *data.parts.val.tolist()}
    train = [shape for name, shape in model.seen if name == "train"]
    assert sorted(train) == sorted(
        2 * [(4, 3, 32, 32), (4, 3, 32, 32), (4, 3, 32, 32), (2, 3, 32, 32)]
    )
    assert {shape[0] for name, shape in model.seen if name == "val"} == {1}, (
        "sizes differ, so one by one"
    )
    quiet_trainer().test(model, datamodule=data)
    assert read == set(range(20))
    assert len([name for name, _ in model.seen if name == "test"]) == 4


def test_training_order_and_crops_follow_the_global_seed(tmp_path: Path) -> None:
    data = ready(write_csv(tmp_path / "set"))

    def epoch(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return next(iter(data.train_dataloader()))

    one, two, three = epoch(0), epoch(0), epoch(1)
    assert torch.equal(one["image"], two["image"])
    assert not torch.equal(one["image"], three["image"])
    assert sorted(one["index"].tolist()) == list(range(14))


def test_images_of_one_size_are_evaluated_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_csv(tmp_path / "set")
    for i in range(20):
        noise(i).save(root / "images" / f"{i}.png")
    batch = next(iter(ready(root).test_dataloader()))
    assert batch["image"].shape == (4, 3, 40, 48)
    monkeypatch.setattr(base, "MAX_PIXELS", 3 * 40 * 48)
    assert [len(batch["index"]) for batch in ready(root).test_dataloader()] == [3, 1], (
        "no more pixels than allowed"
    )


@pytest.mark.parametrize(("cache", "context"), [("ram", "fork"), ("disk", "spawn")])
def test_parts_travel_to_loader_workers(tmp_path: Path, cache: str, context: str) -> None:
    part = ready(write_csv(tmp_path / "set"), cache=cache, cache_dir=str(tmp_path / "cache")).part(
        "train"
    )
    assert torch.equal(pickle.loads(pickle.dumps(part))[2]["image"], part[2]["image"])
    loader = DataLoader(part, batch_size=1, num_workers=1, multiprocessing_context=context)
    for i, batch in enumerate(loader):
        assert torch.equal(batch["image"][0], part[i]["image"])


def test_setup_again_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ready(write_csv(tmp_path / "set"))
    monkeypatch.setattr(CSVData, "read_table", None)
    data.setup("test")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_part_with_one_score_only_is_refused(part: str, tmp_path: Path) -> None:
    names = [f"images/{i}.png" for i in range(20)]
    rows = getattr(generate_split("set", names, 2), part)
    mos = [50 if i in rows else i for i in range(20)]
    text = "\n".join(
        ["image,mos", *(f"{name},{score}" for name, score in zip(names, mos, strict=True))]
    )
    root = write_csv(tmp_path / "set", text=text)
    with pytest.raises(
        ValueError, match=rf"data set 'set'.*{part} part of split 2 have the mos 50.*another split"
    ):
        CSVData(root, split=2).prepare_data()
    parts = {split: generate_split("set", names, split) for split in range(1, 11)}
    other = next(
        k for k, rows in parts.items() if all(len({mos[i] for i in part}) > 1 for part in rows)
    )
    CSVData(root, split=other).prepare_data()


@pytest.mark.parametrize("name", ["a b", "a/b", "a+b", ""])
def test_names_that_records_cannot_bear(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        CSVData(tmp_path, name=name)
