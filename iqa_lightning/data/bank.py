"""A bank of fixed crops: each training image in a few views that stay the same from epoch to epoch."""

from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from iqa_lightning.data.material import TaskImages
from iqa_lightning.data.samplers import Key, SizeSampler


class CropBank(Dataset[dict[str, Any]]):
    """Images of a task, each in `crops` views, which `seed` alone draws. Crop c is view c % crops of image c // crops.

    With the key c an item is crop c, and c its `index`. With a key of a training batch, which would choose among all
    views, its first number chooses among the crops of the image; the item says as `crop` which it is.
    """

    def __init__(self, images: TaskImages, crops: int, seed: tuple[int, ...]) -> None:
        self.images, self.crops = images, crops
        self.views = np.random.default_rng(seed).random((len(images), crops, 3))

    def __len__(self) -> int:
        """Number of crops."""
        return self.crops * len(self.images)

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """A crop."""
        if isinstance(key, int):
            return self.shown(*divmod(key, self.crops)) | {"index": key}
        position, chosen = key[0], int(key[1] * self.crops)
        return self.shown(position, chosen) | {"crop": position * self.crops + chosen}

    def shown(self, position: int, view: int) -> dict[str, Any]:
        """One image in one of its views."""
        top, left, flip = self.views[position, view].tolist()
        return self.images[position, top, left, flip]

    def loader(self, max_pixels: int, rank: int = 0, world_size: int = 1) -> DataLoader[Any]:
        """This rank's share of the crops, each once, in batches of at most `max_pixels`."""
        sizes = np.full((len(self), 2), self.images.parts[0].view.crop)
        return DataLoader(self, batch_sampler=SizeSampler(sizes, max_pixels, rank, world_size))
