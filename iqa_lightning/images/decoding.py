"""Every image of a data set, decoded and resized by threads or processes."""

import multiprocessing
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from iqa_lightning.images.processes import ProcessGoneError, in_processes
from iqa_lightning.images.transforms import adaptive_resize, resized_size

Pixels = UInt8[np.ndarray, "3 height width"]


PER_PROCESS = 200  # images: a process takes some seconds to start, about as long as these to decode


MOST = 8  # processes and threads: more wait for one disk


@dataclass(frozen=True)
class ImageReader:
    """The images of one data set before they are decoded.

    Args:
        name: the data set, for messages and file names.
        fingerprint: text that differs whenever a decoded pixel could differ (files, their sizes and
            times).
        count: number of images.
        size: height and width in pixels of image i, from its header.
        load: image i, decoded, RGB. It travels to other processes where the images are many.
    """

    name: str
    fingerprint: str
    count: int
    size: Callable[[int], tuple[int, int]]
    load: Callable[[int], Image.Image]


@dataclass(frozen=True)
class Decoder:
    """Decodes image i, resizes it and hands it to `store(i, pixels)`; what `store` returns is
    passed on.

    `sizes` (images, 2) are the heights and widths that are expected (see `resized_sizes`).
    """

    reader: ImageReader
    resize: int
    sizes: NDArray[np.int64]
    store: Callable[[int, Pixels], str]

    def __call__(self, i: int) -> str:
        """Raises ValueError where the image is not readable or not of the expected size."""
        image = adaptive_resize(self.reader.load(i), self.resize)
        if (image.height, image.width) != tuple(self.sizes[i]):
            raise ValueError(
                f"data set {self.reader.name!r}: image {i + 1} changed its size while it was "
                "read; start again"
            )
        return self.store(i, np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)))


def resized_sizes(reader: ImageReader, resize: int) -> NDArray[np.int64]:
    """Height and width of every image after the adaptive resize, (images, 2), from the headers of
    the files.

    Raises:
        ValueError: an image that is not readable, or suspiciously large.
    """
    native = [reader.size(i) for i in range(reader.count)]
    return np.array([resized_size(*size, resize) for size in native], dtype=np.int64).reshape(-1, 2)


def sensible_processes(count: int) -> int:
    """How many processes decode `count` images: one for a few hundred, no more than there are CPUs
    for this one.
    """
    # a process that its parent declares a daemon, as some launchers do, may have no children
    return (
        1
        if multiprocessing.current_process().daemon
        else max(1, min(_cpus(), MOST, count // PER_PROCESS))
    )


def decode_all(decoder: Decoder, processes: int) -> list[str]:
    """What the decoder returns for every image, in order; with a progress bar on the terminal.

    With one process the work is done by threads of this one, else by that many new ones.

    Raises:
        ValueError: an image is not readable, or a process ended before its work.
    """
    name, count, console = decoder.reader.name, decoder.reader.count, Console(stderr=True)
    done = in_threads(decoder) if processes == 1 else in_processes(decoder, count, processes)
    shown = track(
        done,
        f"decoding {name}",
        count,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    try:
        found = dict(shown)
    except ProcessGoneError as error:
        raise ValueError(
            f"data set {name!r}: a process that decodes its images ended before its work, killed "
            "or out of memory; "
            f"start again, or use cache=ram, which needs none (a script of your own needs "
            f"`if __name__ == '__main__':` around what it starts)"
        ) from error
    finally:
        done.close()
    return [found[i] for i in range(count)]


def in_threads(decoder: Decoder) -> Generator[tuple[int, str], None, None]:
    """`i, decoder(i)` for each image, by threads of this process."""
    pool = ThreadPoolExecutor(min(4, _cpus()))
    try:
        yield from enumerate(pool.map(decoder, range(decoder.reader.count)))
    finally:
        pool.shutdown(cancel_futures=True)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
