"""One data set: its table, its split, its decoded images and the loaders of its parts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from PIL import Image
from torch.utils.data import DataLoader

from iqa_lightning.datasets.labels import LabelLists, as_lists
from iqa_lightning.datasets.ratings import read_groups
from iqa_lightning.datasets.samplers import MAX_PIXELS, RandomViews
from iqa_lightning.datasets.samples import Samples, check_range, check_table
from iqa_lightning.datasets.split_dataset import SplitDataset
from iqa_lightning.datasets.split_files import split_from_files
from iqa_lightning.datasets.splits import (
    SOURCES,
    Split,
    generate_split,
    official_split,
    select_distortions,
    split_hash,
    tuning_split,
)
from iqa_lightning.files import is_name
from iqa_lightning.images.cache import KINDS, ImageCache, build_cache
from iqa_lightning.images.decoding import ImageReader
from iqa_lightning.images.opening import Rule, other_name
from iqa_lightning.images.transforms import View

_test_is_open: ContextVar[bool] = ContextVar("test_is_open", default=False)


@contextmanager
def unlocked_test_set() -> Iterator[None]:
    """Open the test part for the duration of a `with` block; nothing else does."""
    token = _test_is_open.set(True)
    try:
        yield
    finally:
        _test_is_open.reset(token)


class IQADataModule(pl.LightningDataModule):
    """A data set of rated images; works in a stream and, alone, with a plain `Trainer`.

    Subclasses parse (`read_table`) and declare what a study published: `native_range` and
    `native_higher_is_better`. Scores stay in the native unit, turned so that higher is better;
    scores of different data sets are never pooled.

    Args:
        root: folder of the data set.
        name: name in a stream and in records (letters, digits, `_`, `-`); default: the class's own.
        split: which of the ten random 70/10/20 partitions, 1 to 10.
        splits: `generated`: drawn here; `files`: published lists; `official`: the one split of the
            owners.
        split_files: the folder that holds the lists of `files` (see `data/split_files.py`).
        group_file: a table with the columns image and group (and dataset, where it is of several):
            images of one group stay in one part, as `check write_groups=<file>` proposes them.
        train_on_val: whether the images of the validation part are trained with too (80/20, as
            UNIQUE has it); the part stays, and chooses nothing that is worth choosing.
        distortions: only images with one of these distortions, in the parts that the split of the
            whole set gives them.
        labels: the folder of LIQE's lists, or `LabelLists`: replace the columns `distortion` and
            `scene` of the table.
        exif_turn: whether pictures are turned as their EXIF tag says; false for a set whose owners
            showed them as stored.
        max_megapixels: larger pictures are refused.
        view: how images are shown; default no resize, crop 224, whole images in evaluation.
        cache: `ram`, `disk` (decoded once for all runs) or `auto` (see `build_cache`).
        cache_dir: where caches on disk live; default the user's cache folder.
        batch_size: images per batch of the loaders below. A stream has loaders of its own.
        num_workers: loader processes of the loaders below.
    """

    native_range: tuple[float, float]
    native_higher_is_better: bool
    home: ClassVar[str] = "the place it was published"
    synthetic: ClassVar[bool] = False
    """Whether the targets are computed rather than given by people; wherever a number is shown, it
    says so.
    """

    name: str
    samples: Samples
    parts: Split
    split_hash: str

    def __init__(
        self,
        root: str | Path,
        *,
        name: str | None = None,
        split: int = 1,
        splits: str = "generated",
        split_files: str | Path | None = None,
        group_file: str | Path | None = None,
        train_on_val: bool = False,
        distortions: Sequence[str] | None = None,
        labels: LabelLists | str | Path | None = None,
        exif_turn: bool = True,
        max_megapixels: float = 200,
        view: View | None = None,
        cache: str = "auto",
        cache_dir: str | Path | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.root = Path(root).expanduser()
        self.name = self.default_name() if name is None else name
        if not is_name(self.name):
            raise ValueError(f"data set name {self.name!r}: use letters, digits, '_' and '-' only")
        if splits not in SOURCES:
            raise ValueError(
                f"data set {self.name!r}: splits is {splits!r}; it is one of {', '.join(SOURCES)}"
            )
        if cache not in KINDS:
            raise ValueError(
                f"data set {self.name!r}: cache is {cache!r}; it is one of {', '.join(KINDS)}"
            )
        if splits == "files" and split_files is None:
            raise ValueError(
                f"data set {self.name!r}: splits=files needs split_files=<the folder of the lists>"
            )
        self.train_on_val = train_on_val
        self.split, self.splits, self.labels = split, splits, as_lists(labels)
        self.distortions = None if distortions is None else list(distortions)
        self.split_files = None if split_files is None else Path(split_files).expanduser()
        self.rule = Rule(exif_turn, max_megapixels)
        self.group_file = None if group_file is None else Path(group_file).expanduser()
        self.view = View(resize=0, crop=224) if view is None else view
        self.cache = cache
        self.cache_dir = None if cache_dir is None else Path(cache_dir).expanduser()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self._images: ImageCache | None = None
        self._shown: ImageCache | None = None  # what validation and test see
        self._made: dict[str, SplitDataset] = {}  # parts, made once: a table is slow to read

    def default_name(self) -> str:
        """The name of the data set where none is given."""
        return type(self).__name__.lower()

    @property
    def table_path(self) -> str:
        """Where the table comes from, for messages."""
        return str(self.root)

    def read_table(self) -> pd.DataFrame:
        """The parsed table (columns of `Samples`, optional ones may be absent), scores turned to
        higher is better.
        """
        raise NotImplementedError

    def load_image(self, row: int) -> Image.Image:
        """Image `row` of the table, 8-bit RGB; how it is made so, `images.opening.Rule` says.

        Raises:
            ValueError: the file is missing, unreadable, truncated, too large or too small.
        """
        return self.rule.load(self.image_path(row), self.name)

    def image_size(self, row: int) -> tuple[int, int]:
        """Height and width in pixels of image `row`, upright; raises what `load_image` does."""
        return self.rule.size(self.image_path(row), self.name)

    def image_path(self, row: int) -> Path:
        """The file of image `row`."""
        return self.root / str(self.samples.table["image"].iloc[row])

    def fingerprint(self) -> str:
        """Text that differs whenever a decoded pixel could: every file with its size and time of
        change.
        """
        paths = [self.image_path(row).resolve() for row in range(len(self.samples))]
        files = "\n".join(
            f"{path}\t{(stat := path.stat()).st_size}\t{stat.st_mtime_ns}" for path in paths
        )
        return f"exif_turn={self.rule.exif_turn}\n{files}"

    def prepare_data(self) -> None:
        """Check, without decoding, that the table is sound, can be split, and that every image
        exists.

        Raises:
            ValueError: naming the data set, the file or row, and what to do.
        """
        self.tabulate()
        self.check_files()

    def check_root(self) -> None:
        """Refuse a root that is not a folder, and say where the data set comes from."""
        if not self.root.is_dir():
            raise ValueError(
                f"data set {self.name!r}: the folder {self.root} does not exist; get the data set "
                f"from {self.home}, "
                f"then set stream.tasks.{self.name}.root=<its folder> or paths.data=<the folder "
                "that holds every set>"
            )

    def check_files(self) -> None:
        """Refuse a table that names files which do not exist."""
        missing = [row for row in range(len(self.samples)) if not self.image_path(row).is_file()]
        if missing:
            first = self.image_path(missing[0])
            raise ValueError(
                f"data set {self.name!r}: {len(missing)} of {len(self.samples)} images are "
                "missing, the first is "
                f"{first} (row {missing[0] + 1} of "
                f"{self.table_path}){other_name(self.root, first)}; "
                f"complete the folder or remove the rows"
            )

    def setup(self, stage: str | None = None) -> None:
        """Read the table, split it and decode every image into the cache; later calls do nothing.

        Raises:
            ValueError: whatever is wrong with the data is found here and not in the middle of an
                epoch.
        """
        if self._images is not None:
            return
        self.prepare_data()
        alone = copy(self)
        alone.trainer = None  # does not travel to the processes that decode
        reader = ImageReader(
            self.name, self.fingerprint(), len(self.samples), alone.image_size, alone.load_image
        )
        self._images = build_cache(reader, self.view.resize, self.cache, self.cache_dir)
        other = self.view.evaluation_resize
        apart = other is not None and other != self.view.resize
        self._shown = (
            build_cache(reader, other or 0, self.cache, self.cache_dir) if apart else self._images
        )

    def tabulate(self) -> None:
        """Read, check and split the table; no image is touched.

        Raises:
            ValueError: the table is not sound or cannot be split.
        """
        samples = Samples(self.name, check_table(self.name, self.table_path, self.read_table()))
        check_range(self.name, self.table_path, samples.table, self.native_range)
        if self.labels is not None:
            samples = self.labels.label(samples, (self.name, self.default_name()), self.split)
        if self.group_file is not None:
            samples = self._grouped(samples, self.group_file)
        parts = self.make_split(samples)
        if self.distortions is not None:
            samples, parts = select_distortions(samples, parts, self.distortions)
        mos = samples.table["mos"].to_numpy()
        for label, rows in zip(Split._fields, parts, strict=True):
            if (mos[rows] == mos[rows[0]]).all():
                raise ValueError(
                    f"data set {self.name!r}, {self.table_path}: all {len(rows)} images in the "
                    f"{label} part of split "
                    f"{self.split} have the mos {mos[rows[0]]:g}, so no rank correlation exists; "
                    "choose another split"
                )
        self.split_hash = split_hash(samples, parts)
        if self.train_on_val:
            both = np.union1d(parts.train, parts.val)
            self.split_hash = split_hash(samples, Split(both, parts.val[:0], parts.test))
            parts = parts._replace(train=both)
        self.samples, self.parts = samples, parts

    def _grouped(self, samples: Samples, file: Path) -> Samples:
        where = f"data set {self.name!r}, group_file={file}"
        groups = read_groups(file, where, (self.name, self.default_name()))
        image = samples.table["image"]
        if unknown := next((name for name in groups if name not in set(image)), None):
            raise ValueError(f"{where}: the table of the set has no image {unknown!r}")
        reference = image.map(groups).fillna(samples.table["reference"])
        return Samples(samples.name, samples.table.assign(reference=reference))

    def make_split(self, samples: Samples) -> Split:
        """The parts, from where `splits` says; raises ValueError where it cannot be had."""
        if self.splits == "official":
            return official_split(samples, self.split)
        if self.split_files is not None and self.splits == "files":
            return split_from_files(
                samples, self.split_files, (self.name, self.default_name()), self.split
            )
        draw = tuning_split if self.splits == "tuning" else generate_split
        return draw(self.name, list(samples.table["reference"]), self.split)

    def part(self, name: str) -> SplitDataset:
        """The part `train`, `val` or `test`; `test` only inside `with unlocked_test_set():`.

        Raises:
            PermissionError: the test part is asked for by anything but an evaluation.
            ValueError: there is no such part.
        """
        if name not in Split._fields:
            raise ValueError(
                f"data set {self.name!r}: no part {name!r}; there are train, val and test"
            )
        if name == "test" and not _test_is_open.get():
            raise PermissionError(
                f"data set {self.name!r}: the test part is read inside `with "
                "unlocked_test_set():` only"
            )
        cache = self._images if name == "train" else self._shown
        assert cache is not None, "setup() comes first"
        if name not in self._made:
            self._made[name] = SplitDataset(
                self.samples, getattr(self.parts, name), cache, self.view
            )
        return self._made[name]

    def whole(self) -> SplitDataset:
        """All images as one part: for a pre-training that keeps none back, and says so in its card.

        Raises:
            PermissionError: the test part is not open.
        """
        if not _test_is_open.get():
            raise PermissionError(
                f"data set {self.name!r}: all images are read inside `with unlocked_test_set():` "
                "only"
            )
        assert self._images is not None, "setup() comes first"
        return SplitDataset(self.samples, np.arange(len(self.samples)), self._images, self.view)

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of random crops of the train part, in a new order each epoch."""
        part = self.part("train")
        return self._loader(part, RandomViews(len(part)), self.batch_size)

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The val part in order, whole images one by one where their sizes differ."""
        return self._evaluation_loader(self.part("val"))

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The test part in order, whole images one by one where their sizes differ."""
        with unlocked_test_set():
            return self._evaluation_loader(self.part("test"))

    def _evaluation_loader(self, part: SplitDataset) -> DataLoader[dict[str, Any]]:
        alike = bool((part.sizes == part.sizes[0]).all())
        fit = MAX_PIXELS // int(part.sizes[0].prod()) if alike else 1
        return self._loader(part, None, max(1, min(self.batch_size, fit)))

    def _loader(
        self, part: SplitDataset, sampler: RandomViews | None, batch_size: int
    ) -> DataLoader[dict[str, Any]]:
        workers = self.num_workers
        return DataLoader(
            part,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
