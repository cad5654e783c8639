"""Caches on disk: built once, whole or not there at all, opened at no cost, verified and removed on demand.

In the folder of the caches lie

- `<data set>-<key>/pixels.bin`: all images behind one another, each (3, height, width), unsigned bytes;
- `<data set>-<key>/index.json`: the resize rule, and height, width and SHA-256 of every image;
- `.building-<random>`: a cache in the making. It is renamed when all of it is on the disk, so a folder with the name
  of a cache is a whole one. One that a killed process left behind is removed by the next that builds;
- `.lock`: held by the process that builds or removes, so that two that need one cache do the work once. The system
  lets go of it when its holder dies, however it dies. (The lock is `flock`; a network disk has to support it.)

The key is a digest of the manifest of the source files, of the resize rule and of the version of Pillow. The manifest
is path, size and time of change of every file: what `make` and `rsync` look at, and cheap, since each start reads it;
the contents of ten thousand photographs would take minutes. Opening a cache compares the size of the file with the
index, which finds what was cut off; the checksums, which find a flipped byte, are made when the cache is and compared
by `python -m iqa_lightning.check ... cache=verify`.
"""

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
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from rich.console import Console

from iqa_lightning.data.decoding import Decoder, ImageSource, Pixels, decode_all

LAYOUT = "2"
BUILDING = ".building-"
REMEDY = "delete this folder, or all caches with `python -m iqa_lightning.check cache=remove`, and start again"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@dataclass(frozen=True)
class Index:
    """What a cache holds: `sizes` (images, 2) are height and width in pixels, `sha256` one checksum an image."""

    resize: int
    sizes: NDArray[np.int64]
    sha256: list[str]


def default_folder() -> Path:
    """`iqa_lightning` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iqa_lightning"


def cache_path(folder: Path, source: ImageSource, resize: int) -> Path:
    """Where the cache of these files under this resize rule lies, or would lie."""
    key = hashlib.sha256("\n".join((LAYOUT, pillow_version, str(resize), source.fingerprint)).encode()).hexdigest()
    return folder / f"{source.name}-{key[:16]}"


def find_caches(folder: Path, name: str | None = None) -> list[Path]:
    """All caches in a folder, or those of one data set, of whatever state and resize rule."""
    pattern = re.compile(rf"{'.+' if name is None else re.escape(name)}-[0-9a-f]{{16}}")
    return sorted(path for path in folder.glob("*") if pattern.fullmatch(path.name) and path.is_dir())


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
        raise ValueError(f"the cache {cache} is damaged: {found} bytes of pixels instead of {expected}; {REMEDY}")
    return index


def verify_cache(cache: Path) -> None:
    """Read all pixels of a cache and compare them with their checksums.

    Raises:
        ValueError: naming the cache and the first image that differs.
    """
    index = read_index(cache)
    with (cache / "pixels.bin").open("rb") as file:
        for i, (height, width) in enumerate(index.sizes.tolist()):
            pixels = np.frombuffer(file.read(3 * height * width), dtype=np.uint8).reshape(3, height, width)
            if checksum(pixels) != index.sha256[i]:
                raise ValueError(f"the cache {cache} is damaged: image {i + 1} is not the one decoded; {REMEDY}")


def remove_caches(folder: Path, name: str | None = None) -> list[Path]:
    """Remove all caches in a folder, or those of one data set; and what dead processes left there."""
    removed = []
    if folder.is_dir():
        with _sole_builder(folder):
            for path in find_caches(folder, name):
                removed.append(path)
                shutil.rmtree(path.rename(folder / f"{BUILDING}{path.name}"))  # never half a cache under its name
    return removed


def write_cache(source: ImageSource, resize: int, sizes: NDArray[np.int64], final: Path, processes: int) -> None:
    """Build a cache, unless another process has done so while this one waited for it.

    Raises:
        ValueError: an image that is not readable, no room on the disk, a folder that cannot be written into, or a
            decoding process that was killed.
    """
    folder, total = final.parent, int(3 * sizes.prod(axis=1).sum())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _sole_builder(folder):
            if not final.is_dir():
                _say(f"{source.name}: {len(sizes)} images are decoded once, into {final} ({total / 1e6:.1f} MB)")
                _build(source, resize, sizes, final, processes)
    except OSError as error:
        if error.errno not in FULL | CLOSED:
            raise
        full = error.errno in FULL
        what = f"no room for a cache of {total / 1e6:.1f} MB in" if full else "a cache cannot be written into"
        raise ValueError(
            f"data set {source.name!r}: {what} {folder} ({error.strerror}); {'make room, ' if full else ''}"
            f"set cache_dir to another folder, or use cache=memory"
        ) from error


def _build(source: ImageSource, resize: int, sizes: NDArray[np.int64], final: Path, processes: int) -> None:
    """Fill a folder of another name, bring it to the disk, rename it; whatever happens, no half cache stays."""
    building = final.parent / f"{BUILDING}{uuid4().hex}"
    ends = np.cumsum(3 * sizes.prod(axis=1))
    try:
        building.mkdir()
        _reserve(building / "pixels.bin", int(ends[-1]))
        store = FileStore(building / "pixels.bin", ends)
        digests = decode_all(Decoder(source, resize, sizes, store), processes)
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
    """Writes image i to the file where its bytes end at `ends[i]`; its checksum. Several processes may write at once.

    Through the system and not through a map: where a disk is full, a write says so, a map kills the process.
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
    """Make a file of this size whose blocks are there, so that a full disk is found before anything is decoded."""
    with file.open("wb") as empty:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(empty.fileno(), 0, size)
        else:
            empty.truncate(size)


@contextmanager
def _sole_builder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder and remove what dead builders left; a system without such locks goes without both."""
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
