"""The images of one part of a split, as PyTorch's data set."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from iqa_lightning.datasets.samples import Samples
from iqa_lightning.images.cache import ImageCache
from iqa_lightning.images.transforms import View, evaluation_size, evaluation_view, random_view

Key = int | tuple[int, float, float, float]


class SplitDataset(Dataset[dict[str, Any]]):
    """The images of one part of a split.

    An item is `{"image": uint8 (3, height, width), "mos": float32, "mos_std": float32, "index":
    int}` and, as text, its `distortion` and `scene`: with the key i the evaluation view of image i,
    with the key (i, top, left, flip) the training crop these numbers in [0, 1) choose. An image
    shown in windows is (windows, 3, height, width). `index` is the position in the part,
    `rows[index]` the row in the table of the data set, `images[index]` its name. `mos` is in native
    units, higher is better; `mos_std` is NaN where unknown. `sizes` (n, 2) are height and width of
    the views.
    """

    def __init__(
        self, samples: Samples, rows: NDArray[np.int64], cache: ImageCache, view: View
    ) -> None:
        self.rows = rows
        self.images = [str(image) for image in samples.table["image"].iloc[rows]]
        self.view = view
        self.mos = torch.from_numpy(samples.table["mos"].to_numpy(np.float32)[rows])
        self.mos_std = torch.from_numpy(samples.table["mos_std"].to_numpy(np.float32)[rows])
        self.labels: Any = samples.table[["distortion", "scene"]].iloc[rows].to_dict("records")
        sizes = [
            evaluation_size(int(height), int(width), view) for height, width in cache.sizes[rows]
        ]
        self.sizes = np.array(sizes, dtype=np.int64).reshape(-1, 2)
        self._cache = cache

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> NDArray[np.int64]:
        """Bytes of the decoded pixels of each image."""
        return 3 * self._cache.sizes[self.rows].prod(axis=1)  # type: ignore[no-any-return]  # numpy's prod is untyped

    def __getitem__(self, key: Key) -> dict[str, Any]:
        i = key if isinstance(key, int) else key[0]
        image = self._cache[int(self.rows[i])]
        shown = (
            evaluation_view(image, self.view)
            if isinstance(key, int)
            else random_view(image, self.view, *key[1:])
        )
        return {
            "image": shown,
            "mos": self.mos[i],
            "mos_std": self.mos_std[i],
            "index": i,
            **self.labels[i],
        }
