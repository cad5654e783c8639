"""Decoded images, kept as unsigned bytes in memory or in one memory-mapped file."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from rich.console import Console
from torch import Tensor

from iqa_lightning.images.decoding import (
    Decoder,
    ImageReader,
    Pixels,
    decode_all,
    resized_sizes,
    sensible_processes,
)

KINDS = ("auto", "ram", "disk")


class ImageCache:
    """Decoded RGB images after the adaptive resize, uint8 in [0, 255].

    `sizes` (n, 2) holds height and width in pixels. The tensors handed out are views of the cache:
    copy before writing. A cache in memory is shared with loader workers, one on disk is mapped
    again by each of them.
    """

    def __init__(self, sizes: NDArray[np.int64], pixels: Tensor | Path) -> None:
        self.sizes = sizes
        self._ends = np.cumsum(3 * sizes.prod(axis=1))
        self._file = pixels if isinstance(pixels, Path) else None
        self._pixels = _map(pixels) if isinstance(pixels, Path) else pixels

    @property
    def kind(self) -> str:
        """`ram` or `disk`."""
        return "ram" if self._file is None else "disk"

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
    reader: ImageReader,
    resize: int,
    kind: str = "auto",
    folder: Path | None = None,
    *,
    budget: int | None = None,
    processes: int | None = None,
) -> ImageCache:
    """Decode all images of a reader, or open the folder where that has been done before.

    Args:
        reader: the images.
        resize: shorter side in pixels of the adaptive resize, 0 for none.
        kind: `ram`, `disk`, or `auto`: the disk where they are there already, else memory where the
            decoded images fit the budget, else the disk.
        folder: where caches on disk live; default `iqa_lightning` in the user's cache folder.
        budget: bytes `auto` may take from memory; default a quarter of what is free now.
        processes: how many decode for the disk; default one for some hundred images, at most one a
            CPU.

    Raises:
        ValueError: an unknown kind, an image that is not readable (see `ImageReader.load`), no room
            on the disk, or a cache on disk that is damaged.
    """
    if kind not in KINDS:
        raise ValueError(
            f"data set {reader.name!r}: cache is {kind!r}; it is one of {', '.join(KINDS)}"
        )
    path = cache_path(folder or default_folder(), reader, resize)
    if kind == "ram" or not path.is_dir():
        sizes = resized_sizes(reader, resize)
        total = int(3 * sizes.prod(axis=1).sum())
        if kind == "ram" or (
            kind == "auto" and total <= (ram_budget() if budget is None else budget)
        ):
            return _in_memory(reader, resize, sizes)
        write_cache(
            reader,
            resize,
            sizes,
            path,
            sensible_processes(reader.count) if processes is None else processes,
        )
    return ImageCache(read_index(path).sizes, path / "pixels.bin")


def _in_memory(reader: ImageReader, resize: int, sizes: NDArray[np.int64]) -> ImageCache:
    ends = np.cumsum(3 * sizes.prod(axis=1))
    memory = torch.empty(int(ends[-1]), dtype=torch.uint8)
    whole = memory.numpy()

    def store(i: int, pixels: Pixels) -> str:
        whole[ends[i] - pixels.size : ends[i]] = pixels.ravel()
        return ""

    decode_all(Decoder(reader, resize, sizes, store), processes=1)
    return ImageCache(sizes, memory)


def ram_budget() -> int:
    """A quarter of the memory in bytes that programs can still take."""
    limits = [
        _first_number("/sys/fs/cgroup/memory.max", 1),
        _first_number("/proc/meminfo", 1024, "MemAvailable:"),
    ]
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


LAYOUT = "3"
"""Rises when the bytes that a file is decoded to can change (`opening.Rule`)."""


BUILDING = ".building-"


REMEDY = (
    "delete this folder, or all caches with `python -m iqa_lightning.check cache=remove`, and "
    "start again"
)


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@dataclass(frozen=True)
class Index:
    """What a cache holds: `sizes` (images, 2) are height and width in pixels, `sha256` one checksum
    an image.
    """

    resize: int
    sizes: NDArray[np.int64]
    sha256: list[str]


def default_folder() -> Path:
    """`iqa_lightning` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iqa_lightning"


def cache_path(folder: Path, reader: ImageReader, resize: int) -> Path:
    """Where the cache of these files under this resize rule lies, or would lie."""
    key = hashlib.sha256(
        "\n".join((LAYOUT, pillow_version, str(resize), reader.fingerprint)).encode()
    ).hexdigest()
    return folder / f"{reader.name}-{key[:16]}"


def find_caches(folder: Path, name: str | None = None) -> list[Path]:
    """All caches in a folder, or those of one data set, of whatever state and resize rule."""
    pattern = re.compile(rf"{'.+' if name is None else re.escape(name)}-[0-9a-f]{{16}}")
    return sorted(
        path for path in folder.glob("*") if pattern.fullmatch(path.name) and path.is_dir()
    )


def read_index(cache: Path) -> Index:
    """The index of a cache, whose pixels are as many as it says.

    Raises:
        ValueError: a file of the cache is missing, cut off or not one.
    """
    try:
        content = json.loads((cache / "index.json").read_text(encoding="ascii"))
        sizes = np.array(content["sizes"], dtype=np.int64).reshape(-1, 2)
        index = Index(int(content["resize"]), sizes, [str(digest) for digest in content["sha256"]])
        found = (cache / "pixels.bin").stat().st_size
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the cache {cache} is damaged ({error}); {REMEDY}") from error
    expected = int(3 * sizes.prod(axis=1).sum())
    if found != expected or len(index.sha256) != len(sizes) or (sizes < 1).any():
        raise ValueError(
            f"the cache {cache} is damaged: {found} bytes of pixels instead of {expected}; {REMEDY}"
        )
    return index


def verify_cache(cache: Path) -> None:
    """Read all pixels of a cache and compare them with their checksums.

    Raises:
        ValueError: naming the cache and the first image that differs.
    """
    index = read_index(cache)
    with (cache / "pixels.bin").open("rb") as file:
        for i, (height, width) in enumerate(index.sizes.tolist()):
            pixels = np.frombuffer(file.read(3 * height * width), dtype=np.uint8).reshape(
                3, height, width
            )
            if checksum(pixels) != index.sha256[i]:
                raise ValueError(
                    f"the cache {cache} is damaged: image {i + 1} is not the one decoded; {REMEDY}"
                )


def remove_caches(folder: Path, name: str | None = None) -> list[Path]:
    """Remove all caches in a folder, or those of one data set; and what dead processes left."""
    removed = []
    if folder.is_dir():
        with _sole_builder(folder):
            for path in find_caches(folder, name):
                removed.append(path)
                shutil.rmtree(
                    path.rename(folder / f"{BUILDING}{path.name}")
                )  # never half a cache under its name
    return removed


def write_cache(
    reader: ImageReader, resize: int, sizes: NDArray[np.int64], final: Path, processes: int
) -> None:
    """Build a cache, unless another process has done so while this one waited for it.

    Raises:
        ValueError: an image that is not readable, no room on the disk, a folder that cannot be
            written into, or a decoding process that was killed.
    """
    folder, total = final.parent, int(3 * sizes.prod(axis=1).sum())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _sole_builder(folder):
            if not final.is_dir():
                _say(
                    f"{reader.name}: {len(sizes)} images are decoded once, into {final} "
                    f"({total / 1e6:.1f} MB)"
                )
                _build(reader, resize, sizes, final, processes)
    except OSError as error:
        if error.errno not in FULL | CLOSED:
            raise
        full = error.errno in FULL
        what = (
            f"no room for a cache of {total / 1e6:.1f} MB in"
            if full
            else "a cache cannot be written into"
        )
        raise ValueError(
            f"data set {reader.name!r}: {what} {folder} ({error.strerror}); "
            f"{'make room, ' if full else ''}"
            f"set cache_dir to another folder, or use cache=ram"
        ) from error


def _build(
    reader: ImageReader, resize: int, sizes: NDArray[np.int64], final: Path, processes: int
) -> None:
    """Fill a folder of another name, bring it to the disk, rename it; whatever happens, no half
    cache stays.
    """
    building = final.parent / f"{BUILDING}{uuid4().hex}"
    ends = np.cumsum(3 * sizes.prod(axis=1))
    try:
        building.mkdir()
        _reserve(building / "pixels.bin", int(ends[-1]))
        store = FileStore(building / "pixels.bin", ends)
        digests = decode_all(Decoder(reader, resize, sizes, store), processes)
        content = {"resize": resize, "sizes": sizes.tolist(), "sha256": digests}
        (building / "index.json").write_text(json.dumps(content), encoding="ascii")
        for path in sorted(building.iterdir()):
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        building.rename(final)
    except OSError:
        if not final.is_dir():  # without locks, another may have been faster
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


@dataclass(frozen=True)
class FileStore:
    """Writes image i to the file where its bytes end at `ends[i]`; its checksum. Several processes
    may write at once.

    Through the system and not through a map: where a disk is full, a write says so, a map kills the
    process.
    """

    file: Path
    ends: NDArray[np.int64]

    def __call__(self, i: int, pixels: Pixels) -> str:
        """Raises OSError where the disk is full."""
        with self.file.open("r+b") as file:
            file.seek(int(self.ends[i]) - pixels.size)
            file.write(pixels.data)
        return checksum(pixels)


def checksum(pixels: Pixels) -> str:
    """SHA-256 of an image: its size and its pixels."""
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def _reserve(file: Path, size: int) -> None:
    """Make a file of this size whose blocks are there, so that a full disk is found before anything
    is decoded.
    """
    with file.open("wb") as empty:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(empty.fileno(), 0, size)
        else:
            empty.truncate(size)


@contextmanager
def _sole_builder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder and remove what dead builders left; a system without such locks
    goes without both.
    """
    try:
        import fcntl  # noqa: PLC0415  # not on every system
    except ImportError:
        yield
        return
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"another process builds a cache in {folder}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        for left in folder.glob(f"{BUILDING}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
