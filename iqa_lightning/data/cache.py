"""Decoded images, kept as unsigned bytes in memory or in one memory-mapped file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from iqa_lightning.data.cache_files import cache_path, default_folder, read_index, write_cache
from iqa_lightning.data.decoding import Decoder, ImageSource, Pixels, decode_all, resized_sizes, sensible_processes

KINDS = ("auto", "memory", "disk")


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
    source: ImageSource,
    resize: int,
    kind: str = "auto",
    folder: Path | None = None,
    *,
    budget: int | None = None,
    processes: int | None = None,
) -> ImageCache:
    """Decode all images of a source, or open the folder where that has been done before.

    Args:
        source: the images.
        resize: shorter side in pixels of the adaptive resize, 0 for none.
        kind: `memory`, `disk`, or `auto`: the disk where they are there already, else memory where the decoded images
            fit the budget, else the disk.
        folder: where caches on disk live; default `iqa_lightning` in the user's cache folder.
        budget: bytes `auto` may take from memory; default a quarter of what is free now.
        processes: how many decode for the disk; default one for some hundred images, at most one a CPU.

    Raises:
        ValueError: an unknown kind, an image that is not readable (see `ImageSource.load`), no room on the disk, or a
            cache on disk that is damaged.
    """
    if kind not in KINDS:
        raise ValueError(f"data set {source.name!r}: cache is {kind!r}; it is one of {', '.join(KINDS)}")
    path = cache_path(folder or default_folder(), source, resize)
    if kind == "memory" or not path.is_dir():
        sizes = resized_sizes(source, resize)
        total = int(3 * sizes.prod(axis=1).sum())
        if kind == "memory" or (kind == "auto" and total <= (memory_budget() if budget is None else budget)):
            return _in_memory(source, resize, sizes)
        write_cache(source, resize, sizes, path, sensible_processes(source.count) if processes is None else processes)
    return ImageCache(read_index(path).sizes, path / "pixels.bin")


def _in_memory(source: ImageSource, resize: int, sizes: NDArray[np.int64]) -> ImageCache:
    ends = np.cumsum(3 * sizes.prod(axis=1))
    memory = torch.empty(int(ends[-1]), dtype=torch.uint8)
    whole = memory.numpy()

    def store(i: int, pixels: Pixels) -> str:
        whole[ends[i] - pixels.size : ends[i]] = pixels.ravel()
        return ""

    decode_all(Decoder(source, resize, sizes, store), processes=1)
    return ImageCache(sizes, memory)


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


def _map(file: Path) -> Tensor:
    # Copy on write: PyTorch warns of read-only arrays, and a stray write must not reach the file.
    return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="c"))
