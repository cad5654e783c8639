"""How an image file becomes 8-bit RGB: one rule for training, `check` and scoring."""

import glob
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from PIL import Image, UnidentifiedImageError

REMEDY = "replace the file, or remove its row from the table"

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "JPEG2000", "PPM", "AVIF")
"""What is opened, in Pillow's words, whatever the suffix. No format that starts another program
(PostScript starts Ghostscript) is among them."""

SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".bmp", ".dib"), "BMP"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx", ".j2c"), "JPEG2000"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "PPM"),
    **{".gif": "GIF", ".webp": "WEBP", ".avif": "AVIF"},
}
"""The format that a suffix promises."""

DECISIONS = {
    "turned": "are turned upright, as their EXIF tag says",
    "not turned": "stay as stored, though their EXIF tag asks for a turn",
    "alpha": "may be transparent: laid over white",
    "frames": "hold several pictures: the first is taken",
    "16 bits": "have 16 bits a channel: the upper 8 are taken",
    "cmyk": "are CMYK or Lab: made RGB without a colour profile",
    "suffix": "are not what their suffix says: what the file holds counts",
}
"""What the rule may decide for a file, as `check` lists it."""

ORIENTATION, SUBFILE, BITS, PHOTOMETRIC, PLANES, DNG = 274, 254, 258, 262, 284, 50706
"""Numbers of TIFF and EXIF tags."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of this orientation upright."""

SIDEWAYS = (5, 6, 7, 8)

FOREIGN = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"version https://git-lfs", "a Git LFS pointer and not the file: run `git lfs pull`"),
    (b"v/1\x01", "OpenEXR; convert it to PNG as the raters saw it"),
    (b"#?RADIANCE", "Radiance HDR; convert it to PNG as the raters saw it"),
    (b"\x1f\x8b", "compressed by gzip; unpack it"),
    (b"\x1aE\xdf\xa3", "a film"),
)
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MARKUP = (
    (b"<!doctype html", "a web page; get the file again"),
    (b"<html", "a web page; get the file again"),
    (b"<svg", "a drawing; convert it to PNG"),
    (b"<?xml", "a drawing or other XML; convert it to PNG"),
    (b"<error", "the answer of a server; get the file again"),
    (b"{", "the answer of a server; get the file again"),
)
"""First bytes of what is often taken for a picture; of texts in small letters."""

RAW = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw")


@dataclass(frozen=True)
class Rule:
    """How an image file becomes 8-bit RGB.

    What the file holds counts, not its suffix, and only `FORMATS` are opened. Of several pictures
    (GIF, APNG, TIFF pages, the second picture of a phone's JPEG) the first is taken. A picture
    whose EXIF tag asks for a turn is turned, since people rated it upright. Transparent parts show
    white. Of 16 bits a channel the upper 8 are taken, in grey as in colour. Greyscale, palettes and
    CMYK become RGB as Pillow converts them; colour profiles are not applied.

    Args:
        exif_turn: false for a set whose owners showed the pictures as stored.
        max_megapixels: larger pictures are refused, before a pixel is decoded.
        min_side: pixels of the shorter side below which a picture is refused. One number for all
            backbones, since files are opened before one is chosen, and a set must not lose images
            with another network: all that read whole images take 32, ConvNeXt nothing smaller, and
            the maps of the others are a single pixel there. Those that read windows of one size
            (CLIP) are shown such windows whatever the file's size.
    """

    exif_turn: bool = True
    max_megapixels: float = 200
    min_side: int = 32

    def __post_init__(self) -> None:
        if not self.max_megapixels > 0:
            raise ValueError(
                f"max_megapixels is {self.max_megapixels!r}; give the millions of pixels up to "
                "which a picture is opened, as 200"
            )

    def load(self, path: Path, name: str = "", draft: int = 0) -> Image.Image:
        """The picture, upright, 8-bit RGB.

        Args:
            path: the file.
            name: the data set, for messages.
            draft: pixels of a side that are enough for a small copy: a JPEG is decoded smaller, and
                faster, where that leaves more than these; 0: all of them.

        Raises:
            ValueError: the file is missing, unreadable, truncated, too large or too small, in
                another format, or its pixels are of more than 16 bits.
        """
        with self._opened(path, name) as image:
            if draft:
                image.draft("RGB", (draft, draft))
            return self._decoded(image)

    def size(self, path: Path, name: str = "") -> tuple[int, int]:
        """Height and width of what `load` gives, from the header; raises what it raises."""
        with self._opened(path, name) as image:
            return self._size(image)

    def decisions(self, path: Path, name: str = "") -> list[str]:
        """Which of `DECISIONS` hold for a file, from its header; raises what `load` raises."""
        with self._opened(path, name) as image:
            turn = orientation(image) in TURNS
            promised = SUFFIXES.get(path.suffix.lower())
            held = {
                "turned": turn and self.exif_turn,
                "not turned": turn and not self.exif_turn,
                "alpha": image.has_transparency_data,
                "frames": bool(getattr(image, "is_animated", False)),
                "16 bits": is_wide(image),
                "cmyk": image.mode in ("CMYK", "LAB"),
                "suffix": promised is not None and promised != file_format(image),
            }
            return [decision for decision in DECISIONS if held[decision]]

    def decode(self, image: Image.Image, name: str) -> Image.Image:
        """What `load` gives of the file that this picture was opened from and stands for.

        Args:
            image: opened by Pillow, decoded or not.
            name: what it is called in messages.

        Raises:
            ValueError: it is too large or too small, or its pixels are of more than 16 bits.
        """
        try:
            self._check(image, int(self.max_megapixels * 1e6))
        except _RefusedError as error:
            raise ValueError(f"{name} {error}") from error
        return self._decoded(image)

    def decoded_size(self, image: Image.Image) -> tuple[int, int]:
        """Height and width of what `decode` gives."""
        return self._size(image)

    @contextmanager
    def _opened(self, path: Path, name: str) -> Iterator[Image.Image]:
        """The file with its header read and checked; whatever goes wrong is a ValueError."""
        what = f"data set {name!r}: {path}" if name else str(path)
        if not path.is_file():
            raise ValueError(f"{what} does not exist; {REMEDY}")
        limit = int(self.max_megapixels * 1e6)
        try:
            with _Limit(limit), Image.open(path, formats=FORMATS) as image:
                self._check(image, limit)
                yield image
        except _RefusedError as error:
            raise ValueError(f"{what} {error}") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(f"{what} is too large ({error}); {self._raise_limit()}") from error
        except Exception as error:
            raise ValueError(
                f"{what} is not a readable image ({foreign(path, error)}); {REMEDY}"
            ) from error

    def _check(self, image: Image.Image, limit: int) -> None:
        pixels, side = image.width * image.height, min(image.size)
        if pixels > limit:
            raise _RefusedError(
                f"is too large ({pixels} pixels, {pixels / 1e6:.1f} megapixels); "
                f"{self._raise_limit()}"
            )
        if side < self.min_side:
            raise _RefusedError(
                f"is too small ({image.width} x {image.height} pixels, where the networks take "
                f"{self.min_side} or more); {REMEDY}"
            )
        if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
            raise _RefusedError(
                "has more than 16 bits per channel; convert it to 8 or 16 bits, so that it is "
                "known what is black and white"
            )
        tags = getattr(image, "tag_v2", {})
        if tags.get(PLANES) == 2 and is_wide(image):  # which Pillow reads wrongly
            raise _RefusedError(
                "holds its colours in planes of 16 bits; save it with the colours of a pixel side "
                "by side, or as PNG"
            )
        if DNG in tags or tags.get(SUBFILE, 0) & 1:
            raise _RefusedError(
                "is a camera's raw file, whose first picture is a preview; develop it to JPEG or "
                "PNG as the raters saw it"
            )

    def _raise_limit(self) -> str:
        return f"raise stream.max_megapixels, which is {self.max_megapixels:g}, or {REMEDY}"

    def _size(self, image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        # Pillow turns TIFF by itself, and tells the size after the turn
        turn = orientation(image) in SIDEWAYS
        swap = turn and self.exif_turn == (image.format != "TIFF")
        return (width, height) if swap else (height, width)

    def _decoded(self, image: Image.Image) -> Image.Image:
        turn = orientation(image)
        tiff = image.format == "TIFF"
        image.load()
        rgb = narrow(image) if image.mode.startswith("I") else over_white(image)
        if turn in TURNS and self.exif_turn != tiff:
            # a TIFF that is to stay as stored is turned back: 6 and 8 undo each other
            back = {6: 8, 8: 6}.get(turn, turn) if tiff else turn
            return rgb.transpose(TURNS[back])
        return rgb


def over_white(image: Image.Image) -> Image.Image:
    """8-bit RGB of an 8-bit picture, its transparent parts laid over white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    white = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(white, clear).convert("RGB")


def narrow(image: Image.Image) -> Image.Image:
    """8-bit RGB of a grey picture of up to 16 bits: the upper 8 of them."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS, (16,))[0]  # a TIFF may have 12
    grey = np.asarray(image).astype(np.int64)
    upper = (grey >> (bits - 8)).clip(0, 255).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero
        upper = 255 - upper
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        upper[grey == clear] = 255
    return Image.fromarray(upper).convert("RGB")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened file, 1 where it has none or a damaged one."""
    if image.format == "TIFF":
        found: Any = getattr(image, "tag_v2", {}).get(ORIENTATION, 1)
    else:
        block = image.info.get("exif") or late_exif(image)
        exif = Image.Exif()
        try:
            exif.load(block)
            found = exif.get(ORIENTATION, 1)
        except Exception:  # whatever a damaged block makes Pillow raise: viewers take no notice
            return 1
    return found if isinstance(found, int) else 1


def late_exif(image: Image.Image) -> bytes:
    """The EXIF block that a PNG has behind its pixels, which Pillow finds by decoding them only."""
    file: BinaryIO | None = getattr(image, "fp", None)
    if image.format != "PNG" or file is None:
        return b""
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return b"Exif\0\0" + file.read(length)
            if kind == b"IEND":
                break
            file.seek(length + 4, 1)
        return b""
    finally:
        file.seek(place)


def is_wide(image: Image.Image) -> bool:
    """Whether an opened file has more than 8 bits a channel, as far as its header tells."""
    if image.mode.startswith("I"):
        return True
    if image.format == "TIFF":
        return bool(max(getattr(image, "tag_v2", {}).get(BITS, (8,))) > 8)
    # the raw mode of a PNG, or the largest value of a PPM
    return any(
        "16" in str(tile[3]) or (image.format == "PPM" and "65535" in str(tile[3]))
        for tile in getattr(image, "tile", [])
    )


def file_format(image: Image.Image) -> str:
    """The format of an opened file; a JPEG with several pictures is a JPEG."""
    known = {"MPO": "JPEG", "DIB": "BMP"}
    return known.get(str(image.format), str(image.format))


def foreign(path: Path, error: Exception) -> str:
    """What a file is that could not be read, else what was wrong with it."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "the file is empty"
    if start[4:8] == b"ftyp" and start[8:12] != b"avif":
        return "HEIC or a film; convert it to JPEG or PNG"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    found = next((kind for sign, kind in FOREIGN if start.startswith(sign)), "") or next(
        (kind for sign, kind in MARKUP if text.startswith(sign)), ""
    )
    if found:
        return f"it is {found}"
    if path.suffix.lower() in RAW:
        return "a camera's raw file; develop it to JPEG or PNG as the raters saw it"
    unknown = f"it is none of {', '.join(FORMATS)}"
    if start.startswith(TIFF):
        unknown = "a TIFF of a kind that is not read; save it with 8 or 16 bits, grey or RGB"
    return unknown if isinstance(error, UnidentifiedImageError) else str(error)


class _RefusedError(Exception):
    """A sound file that the rule does not take; the text goes on after its name."""


class _Limit:
    """While it is held, Pillow opens pictures of so many pixels; it knows one number for all
    threads, which is that of the user's program again afterwards.
    """

    lock: ClassVar[threading.Lock] = threading.Lock()
    held: ClassVar[list[int]] = []
    before: ClassVar[int | None] = None

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels

    def __enter__(self) -> None:
        with self.lock:
            if not self.held:
                type(self).before = Image.MAX_IMAGE_PIXELS
            self.held.append(self.pixels)
            Image.MAX_IMAGE_PIXELS = max(self.held)

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.held.remove(self.pixels)
            Image.MAX_IMAGE_PIXELS = max(self.held) if self.held else self.before


def other_name(root: Path, path: Path) -> str:
    """A hint where a missing file of a folder is there under another name, else nothing."""
    folder = path.parent
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    small = path.name.casefold()
    if twin := next((name for name in names if name.casefold() == small), None):
        return f", where {twin} is: upper and lower case differ"
    if twin := next((name for name in names if Path(name).stem.casefold() == small), None):
        return f", where {twin} is: write names with their suffix"
    if below := next((found for found in root.glob(f"*/{glob.escape(path.name)}")), None):
        return f", but {below.relative_to(root)} is there: names are relative to the folder"
    if not path.name.isascii():
        return "; its name is not ASCII: save the table as CSV in UTF-8"
    return ""
