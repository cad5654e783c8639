"""Image files, opened with every mistake named."""

from pathlib import Path

from PIL import Image

REMEDY = "replace the file, or remove its row from the table"


def open_image(name: str, path: Path, *, decode: bool) -> Image.Image:
    """An image file of data set `name` as 8-bit RGB, or only its header.

    What the file holds counts, not its suffix. Greyscale, palette and CMYK become RGB as Pillow converts them, an alpha
    channel is dropped, of 16-bit colours Pillow keeps the upper 8 bits; other pixels of more than 8 bits are refused,
    and so is more than `Image.MAX_IMAGE_PIXELS`, from which Pillow suspects a decompression bomb.

    Raises:
        ValueError: the file is missing, unreadable, truncated, suspiciously large or not 8 bits per channel.
    """
    if not path.is_file():
        raise ValueError(f"data set {name!r}: {path} does not exist; {REMEDY}")
    try:
        with Image.open(path) as image:
            if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                # Pillow only warns of twice as many
                raise Image.DecompressionBombError(f"{image.width * image.height} pixels")
            wide = image.mode.startswith(("I", "F"))
            # Pillow warns where the transparency of a palette would be lost; by way of RGBA it is dropped quietly.
            palette = image.mode == "P" and "transparency" in image.info
            found = (image.convert("RGBA") if palette else image).convert("RGB") if decode and not wide else image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"data set {name!r}: {path} is too large ({error}); {REMEDY}") from error
    except Exception as error:
        raise ValueError(f"data set {name!r}: {path} is not a readable image ({error}); {REMEDY}") from error
    if wide:
        raise ValueError(f"data set {name!r}: {path} has more than 8 bits per channel; convert it to 8 bits")
    return found


def other_case(path: Path) -> str:
    """A hint where a missing file is there in upper or lower case, else nothing."""
    folder = path.parent
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    twin = next((name for name in names if name.casefold() == path.name.casefold()), None)
    return "" if twin is None else f", where {twin} is: upper and lower case differ"
