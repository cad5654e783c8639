"""Photographs without ratings: any folder, the embedded ones, and the training images of rated data
sets.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from iqa_lightning.audit.contents import content_of, file_content
from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.datasets.demo import PHOTOGRAPHS, photograph
from iqa_lightning.datasets.samplers import EpochSampler, Key
from iqa_lightning.images.cache import (
    ImageCache,
    build_cache,
    cache_path,
    default_folder,
    ram_budget,
)
from iqa_lightning.images.decoding import ImageReader, resized_sizes
from iqa_lightning.images.opening import Rule
from iqa_lightning.seeds import seed_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class Found(NamedTuple):
    """A photograph before it is decoded: name, content (`data/contents.py`), height and width,
    decoder.
    """

    name: str
    content: str
    size: Callable[[], tuple[int, int]]
    load: Callable[[], Image.Image]


RULE = Rule()


class WholeImages(Dataset[dict[str, Any]]):
    """Items are `{"image": uint8 (3, height, width), "index": int}`, whole images."""

    def __init__(self, cache: ImageCache) -> None:
        self.cache = cache

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """The image that the key names; how it is seen is not the key's to say."""
        return {"image": self.cache[key[0]].clone(), "index": key[0]}


class Photographs(pl.LightningDataModule):
    """Whole photographs in batches, in a new order each epoch.

    A batch is `{"image": list of uint8 (3, height, width), "index": (batch,)}`.

    Args:
        data: rated data sets, of which the training images are used, without their scores.
        folders: folders of image files, searched with all they hold.
        embedded: whether the photographs of scikit-image and scikit-learn, which the demo streams
            show, are used.
        resize: shorter side in pixels that larger images are shrunk to, once; 0 leaves them as they
            are.
        batch_size: images a batch, over all ranks; what is left over of an epoch is dropped.
        cache: where decoded images are kept: `ram`, `disk` (once for all runs, decoded by several
            processes) or `auto`, as of rated data sets (see `build_cache`).
        cache_dir: where caches on disk live; null: the user's cache folder.
        seed: of the order.
        num_workers: loader processes.

    Raises:
        ValueError: there are fewer images than in a batch, or no room for them decoded.
    """

    def __init__(
        self,
        data: Sequence[IQADataModule] = (),
        folders: Sequence[str] = (),
        embedded: bool = True,
        resize: int = 0,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
        cache: str = "auto",
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        self.cache, self.cache_dir = cache, None if cache_dir is None else Path(cache_dir)
        self.data, self.folders = list(data), [Path(folder).expanduser() for folder in folders]
        self.embedded, self.resize, self.batch_size = embedded, resize, batch_size
        self.seed, self.num_workers = seed, num_workers
        self.contents: dict[str, str] = {}
        self.images: WholeImages | None = None

    def setup(self, stage: str | None = None) -> None:  # there is training only
        """Find and decode all images; a file that is there twice is one photograph."""
        if self.images is not None:
            return
        found = {one.content: one for one in self.found()}
        self.contents = {content: one.name for content, one in found.items()}
        photos = list(found.values())
        if len(photos) < self.batch_size:
            raise ValueError(
                f"{len(photos)} photographs do not fill a batch of {self.batch_size}: name more "
                "folders"
            )
        sizes = {one.content: one.size() for one in photos}  # headers, read once
        reader = ImageReader(
            "photographs",
            "\n".join(f"{content}\t{size}" for content, size in sizes.items()),
            len(photos),
            partial(nth, list(sizes.values())),
            partial(load_nth, [one.load for one in photos]),
        )
        folder = self.cache_dir.expanduser() if self.cache_dir else default_folder()
        check_room(reader, self.resize, self.cache, folder)
        self.images = WholeImages(build_cache(reader, self.resize, self.cache, folder))

    def found(self) -> Iterator[Found]:
        """Every image of every source."""
        for name in PHOTOGRAPHS if self.embedded else ():
            load = partial(photograph, name)
            yield Found(f"demo/{name}", f"DemoData:{name}", partial(size_of, load), load)
        for folder in self.folders:
            files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
            if not files:
                raise ValueError(f"{folder} holds no image file ({', '.join(SUFFIXES)})")
            for path in files:
                size = partial(RULE.size, path, "photographs")
                load = partial(RULE.load, path, "photographs")
                name = f"{folder.resolve().name}/{path.relative_to(folder)}"
                yield Found(name, file_content(path), size, load)
        for whole in self.data:
            whole.prepare_data()
            data = copy(whole)
            data.trainer = None  # does not travel to the processes that decode
            for row in data.parts.train.tolist():
                name = f"{data.name}/{data.samples.table['image'].iloc[row]}"
                yield Found(
                    name,
                    content_of(data, row),
                    partial(data.image_size, row),
                    partial(data.load_image, row),
                )

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches of the current epoch, this rank's share."""
        trainer, size = self.trainer, self.batch_size
        assert trainer is not None, "not attached to a trainer"
        assert self.images is not None, "setup() comes first"
        count = len(self.images.cache) // size

        def draw(generator: np.random.Generator) -> list[NDArray[np.int64]]:
            order = generator.permutation(len(self.contents))[: size * count]
            return list(order.reshape(count, size, 1))

        seed = seed_of(self.seed, "batches", "", "pretrain", trainer.current_epoch)
        sampler = EpochSampler(draw, seed, trainer.global_rank, trainer.world_size)
        return DataLoader(
            self.images,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            generator=torch.Generator(),
        )


def check_room(reader: ImageReader, resize: int, kind: str, folder: Path) -> None:
    """Refuse, before the first image is decoded, what has no room.

    Raises:
        ValueError: naming how many bytes the decoded images take and how many there are.
    """
    if kind != "ram" and cache_path(folder, reader, resize).is_dir():
        return
    total = int(3 * resized_sizes(reader, resize).prod(axis=1).sum())
    what = f"{reader.count} photographs take {total:,} bytes once they are decoded"
    free = 4 * ram_budget()
    if kind == "ram" and total > free:
        raise ValueError(
            f"data.cache=ram: {what}, {free:,} bytes of memory are free: use data.cache=disk, or "
            "shrink them with data.resize"
        )
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    left = shutil.disk_usage(place).free
    if (kind == "disk" or (kind == "auto" and total > ram_budget())) and total > left:
        raise ValueError(
            f"data.cache={kind}: {what}, {folder} has {left:,} left: set data.cache_dir to another "
            "disk, or shrink them with data.resize"
        )


def nth(sizes: Sequence[tuple[int, int]], i: int) -> tuple[int, int]:
    """Height and width of photograph i."""
    return sizes[i]


def load_nth(loaders: Sequence[Callable[[], Image.Image]], i: int) -> Image.Image:
    """Photograph i, decoded."""
    return loaders[i]()


def size_of(load: Callable[[], Image.Image]) -> tuple[int, int]:
    """Height and width of what is loaded."""
    image = load()
    return image.height, image.width


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch of images of any sizes."""
    return {
        "image": [item["image"] for item in items],
        "index": torch.tensor([item["index"] for item in items]),
    }
