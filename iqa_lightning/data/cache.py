"""Decoded images, kept as unsigned bytes in memory or in one memory-mapped file."""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from PIL import __version__ as pillow_version
from torch import Tensor

from iqa_lightning.data.transforms import adaptive_resize, resized_size

LAYOUT = "1"
KINDS = ("auto", "memory", "disk")


@dataclass(frozen=True)
class ImageSource:
    """The images of one data set before they are decoded.

    Args:
        name: the data set, for messages and file names.
        fingerprint: text that differs whenever a decoded pixel could differ (files, their sizes and times).
        count: number of images.
        size: height and width in pixels of image i, from its header.
        load: image i, decoded, RGB.
    """

    name: str
    fingerprint: str
    count: int
    size: Callable[[int], tuple[int, int]]
    load: Callable[[int], Image.Image]


class ImageCache:
    """Decoded RGB images after the adaptive resize, uint8 in [0, 255].

    `sizes` (n, 2) holds height and width in pixels. The tensors handed out are views of the cache: copy before writing.
    A cache in memory is shared with loader workers, one on disk is mapped again by each of them.
    """

    def __init__(self, sizes: NDArray[np.int64], pixels: Tensor | Path) -> None:
        self.sizes = sizes
        self._ends = np.cumsum(3 * sizes.prod(axis=1))
        self._file = pixels if isinstance(pixels, Path) else None
        self._pixels = _map(pixels) if isinstance(pixels, Path) else pixels

    @property
    def kind(self) -> str:
        """`memory` or `disk`."""
        return "memory" if self._file is None else "disk"

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, i: int) -> UInt8[Tensor, "3 height width"]:
        height, width = (int(side) for side in self.sizes[i])
        end = int(self._ends[i])
        return self._pixels[end - 3 * height * width : end].view(3, height, width)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._file is not None:
            del state["_pixels"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._file is not None:
            self._pixels = _map(self._file)


def build_cache(
    source: ImageSource, resize: int, kind: str = "auto", folder: Path | None = None, budget: int | None = None
) -> ImageCache:
    """Decode all images of a source, or open the folder where that has been done before.

    Args:
        source: the images.
        resize: shorter side in pixels of the adaptive resize, 0 for none.
        kind: `memory`, `disk`, or `auto`: memory where the decoded images fit the budget, else disk.
        folder: where caches on disk live; default `iqa_lightning` in the user's cache folder.
        budget: bytes `auto` may take from memory; default a quarter of what is free now.

    Raises:
        ValueError: an unknown kind, or an image that is not readable (see `ImageSource.load`).
    """
    if kind not in KINDS:
        raise ValueError(f"data set {source.name!r}: cache is {kind!r}; it is one of {', '.join(KINDS)}")
    with warnings.catch_warnings():
        # Pillow only warns of images of moderate excess; a data set must not start with one.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        native = [source.size(i) for i in range(source.count)]
    sizes = np.array([resized_size(*size, resize) for size in native], dtype=np.int64).reshape(-1, 2)
    total = int(3 * sizes.prod(axis=1).sum())
    if kind == "auto":
        kind = "memory" if total <= (memory_budget() if budget is None else budget) else "disk"
    if kind == "memory":
        pixels = torch.empty(total, dtype=torch.uint8)
        _decode(source, resize, sizes, pixels.numpy())
        return ImageCache(sizes, pixels)
    return _on_disk(source, resize, sizes, folder or _default_folder())


def memory_budget() -> int:
    """A quarter of the memory in bytes that programs can still take."""
    limits = [_first_number("/sys/fs/cgroup/memory.max", 1), _first_number("/proc/meminfo", 1024, "MemAvailable:")]
    known = [limit for limit in limits if limit is not None]
    if not known and hasattr(os, "sysconf"):
        known = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    return min(known, default=4 << 30) // 4


def _first_number(file: str, unit: int, key: str = "") -> int | None:
    try:
        lines = Path(file).read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    words = next((line.removeprefix(key).split() for line in lines if line.startswith(key)), [])
    return int(words[0]) * unit if words and words[0].isdigit() else None


def _default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iqa_lightning"


def _map(file: Path) -> Tensor:
    # Copy on write: PyTorch warns of read-only arrays, and a stray write must not reach the file.
    return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="c"))


def _decode(source: ImageSource, resize: int, sizes: NDArray[np.int64], pixels: NDArray[np.uint8]) -> None:
    """Write all images behind one another as (3, height, width); each has its place, so threads may share the work."""
    ends = np.cumsum(3 * sizes.prod(axis=1))

    def place(i: int) -> None:
        image = adaptive_resize(source.load(i), resize)
        height, width = sizes[i]
        if (image.height, image.width) != (height, width):
            raise ValueError(f"data set {source.name!r}: image {i + 1} changed its size while it was read; start again")
        target = pixels[ends[i] - 3 * height * width : ends[i]].reshape(3, height, width)
        target[...] = np.asarray(image).transpose(2, 0, 1)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for _ in pool.map(place, range(source.count)):
            pass


def _on_disk(source: ImageSource, resize: int, sizes: NDArray[np.int64], folder: Path) -> ImageCache:
    key = hashlib.sha256("\n".join((LAYOUT, pillow_version, str(resize), source.fingerprint)).encode()).hexdigest()
    final = folder / f"{source.name}-{key[:16]}"
    if not final.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _write(source, resize, sizes, final)
    index = np.array(json.loads((final / "index.json").read_text(encoding="ascii")), dtype=np.int64).reshape(-1, 2)
    expected = int(3 * sizes.prod(axis=1).sum())
    if not np.array_equal(index, sizes) or (final / "pixels.bin").stat().st_size != expected:
        raise ValueError(f"data set {source.name!r}: the cache {final} is damaged; delete this folder and start again")
    return ImageCache(sizes, final / "pixels.bin")


def _write(source: ImageSource, resize: int, sizes: NDArray[np.int64], final: Path) -> None:
    """Build under a name of its own and rename: a crash leaves no half cache, and of two builders the first wins."""
    building = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    total = int(3 * sizes.prod(axis=1).sum())
    try:
        _reserve(source.name, building / "pixels.bin", total)
        pixels = np.memmap(building / "pixels.bin", dtype=np.uint8, mode="r+", shape=(total,))
        _decode(source, resize, sizes, pixels)
        pixels.flush()
        (building / "index.json").write_text(json.dumps(sizes.tolist()), encoding="ascii")
        try:
            building.rename(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _reserve(name: str, file: Path, size: int) -> None:
    """Make a file of this size whose blocks are there: a mapped write to a full disk would kill the process."""
    try:
        with file.open("wb") as empty:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(empty.fileno(), 0, size)
            else:
                empty.truncate(size)
    except OSError as error:
        raise ValueError(
            f"data set {name!r}: no room for a cache of {size / 1e6:.1f} MB in {file.parents[1]} ({error.strerror}); "
            f"make room, set cache_dir to another disk, or use cache=memory"
        ) from error
