"""Which images are to be scored, and how each is shown."""

import csv
import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from iqa_lightning.datasets.ratings import text_of
from iqa_lightning.images.opening import REMEDY, Rule
from iqa_lightning.images.transforms import (
    View,
    adaptive_resize,
    evaluation_size,
    evaluation_view,
    resized_size,
)

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".ppm", ".pgm", ".jp2", ".avif"),
)
"""Of the files of a folder that are taken for images."""


LISTS = (".csv", ".txt")


RULE = Rule()
"""As training opens files."""


def find_images(given: Any, key: str = "images") -> list[str]:
    """The image files that a person names, in the order given.

    Args:
        given: a folder (its image files and those of its folders, by name), a pattern with `*`, a
            list of files (`.txt`: one a line; `.csv`: the column `image`; relative to the list), an
            image file, or a list of these.
        key: that says it, for messages.

    Raises:
        ValueError: there are none.
    """
    if isinstance(given, list | tuple):
        found = [file for one in given for file in found_at(str(one))]
    else:
        found = found_at(str(given))
    alone = not isinstance(given, list | tuple) and found == [str(given)]
    if not found or (alone and not Path(found[0]).expanduser().exists()):
        raise ValueError(
            f"{key}={given}: no image there; name a folder, a pattern such as 'photos/*.jpg', a "
            "list (.txt, or .csv with a column image), or [a.jpg,b.jpg]"
        )
    return found


def found_at(text: str) -> list[str]:
    """The image files at one place."""
    place = Path(text).expanduser()
    if place.is_dir():
        files = (path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
        return [str(path) for path in sorted(files) if path.is_file()]
    if place.suffix.lower() in LISTS:
        return listed(place)
    if any(sign in text for sign in "*?[") and not place.exists():
        return sorted(glob.glob(str(place), recursive=True))  # noqa: PTH207  # as a shell reads it
    return [str(place)]  # a file; one of a list that is missing costs its row


def listed(file: Path) -> list[str]:
    """The files of a list, relative to it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"images={file} cannot be read ({error}): give a list in UTF-8") from error
    if file.suffix.lower() == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        if not rows or "image" not in rows[0]:
            raise ValueError(f"images={file} has no column image; name the files in one")
        names = [text_of(row["image"] or "") for row in rows]
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    return [str(file.parent / Path(name).expanduser()) for name in names]


@contextmanager
def as_a_row() -> Iterator[None]:
    """Say of a file what is wrong with it, without the remedy for a table of ratings."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).split(f"; {REMEDY}")[0]) from error


@as_a_row()
def size_of(image: Any) -> tuple[int, int]:
    """Height and width, of a file from its header.

    Raises:
        ValueError: it is no image.
    """
    if isinstance(image, str | Path):
        return RULE.size(Path(image))
    if isinstance(image, Image.Image):
        return RULE.decoded_size(image)
    if isinstance(image, np.ndarray):
        check_pixels(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, image)
        return int(image.shape[0]), int(image.shape[1])
    check_pixels(
        isinstance(image, Tensor)
        and image.dtype == torch.uint8
        and image.ndim == 3
        and image.shape[0] == 3,
        image,
    )
    return int(image.shape[1]), int(image.shape[2])


def check_pixels(fits: bool, image: Any) -> None:
    """Refuse what is none of the kinds of images."""
    if not fits:
        shape = tuple(getattr(image, "shape", ()))
        raise ValueError(
            f"a {type(image).__name__} {getattr(image, 'dtype', '')} {shape} is no image: give a "
            "path, a PIL image, a uint8 array (height, width, 3) or a uint8 tensor (3, height, width)"
        )


@as_a_row()
def open_any(image: Any) -> Image.Image:
    """An image as 8-bit RGB, by the rule by which training opens files.

    Raises:
        ValueError: it is not readable.
    """
    if isinstance(image, str | Path):
        return RULE.load(Path(image))
    if isinstance(image, Image.Image):
        return RULE.decode(image, "a PIL image")
    size_of(image)
    if isinstance(image, Tensor):
        image = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(image)


def shown(image: Any, view: View) -> UInt8[Tensor, "*windows 3 rows columns"]:
    """An image as the evaluation of the run would show it."""
    resized = adaptive_resize(open_any(image), resize_of(view))
    pixels = np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
    return evaluation_view(torch.from_numpy(pixels), view)


def shown_size(image: Any, view: View) -> tuple[int, int]:
    """Height and width of what `shown` gives; windows count as one below the other."""
    return evaluation_size(*resized_size(*size_of(image), resize_of(view)), view)


def resize_of(view: View) -> int:
    """The shorter side in an evaluation."""
    return view.resize if view.evaluation_resize is None else view.evaluation_resize


def batched(
    sizes: Sequence[tuple[int, int] | None], max_pixels: int, max_images: int = 64
) -> Iterator[list[int]]:
    """Positions of images of equal size, batched as an evaluation does; null is left out."""
    from iqa_lightning.datasets.samplers import SizeSampler  # noqa: PLC0415  # torch's loaders

    there = [i for i, size in enumerate(sizes) if size is not None]
    if there:
        known = np.array([sizes[i] for i in there], dtype=np.int64)
        for batch in SizeSampler(known, max_pixels, max_images=max_images):
            yield [there[k] for k in batch]
