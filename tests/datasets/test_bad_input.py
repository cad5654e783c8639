"""Bad input, as it lies on disks: what is read all the same, what is refused, and with which words.

Each case goes the whole way of a user's folder: the table, the headers, the cache on disk, which
must not exist afterwards. The same of the tables of releases: test_release (line ends, byte order
marks, comma decimals, letter case, damaged tables); of split lists, with a bare CR:
test_split_files; other faults of a `ratings.csv`: test_csv. A process that is killed while it
decodes: test_decoding.
"""

import errno
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from iqa_lightning.datasets.base import unlocked_test_set
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.images import cache as cache_files
from iqa_lightning.images.cache import find_caches
from iqa_lightning.images.opening import Rule
from iqa_lightning.images.transforms import View
from tests.datasets.folders import noise, write_csv

Pixels = NDArray[np.uint8]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound folder of twenty images, `images/0.png` to `images/19.png`; the cases spoil number 7,
    row 8.
    """
    return write_csv(tmp_path / "set")


def data_of(root: Path) -> CSVData:
    return CSVData(root, view=View(0, 32), cache="disk", cache_dir=root.parent / "cache")


def refused(root: Path, words: str) -> None:
    """Setting up names the data set and says these words; no cache, whole or half, is left."""
    with pytest.raises(ValueError, match=f"data set 'set'.*{words}"):
        data_of(root).setup()
    left = root.parent / "cache"
    assert not left.exists() or [path.name for path in left.iterdir()] == [".lock"]


def shown(root: Path, row: int) -> Pixels:
    """Image `row` as an evaluation sees it, (height, width, 3)."""
    data = data_of(root)
    data.setup()
    with unlocked_test_set():
        parts = [data.part(name) for name in ("train", "val", "test")]
    part = next(part for part in parts if row in part.rows)
    return part[part.rows.tolist().index(row)]["image"].numpy().transpose(1, 2, 0)


# --- files that are read


def png(path: Path, header: bytes, rows: bytes) -> None:
    """A PNG file by hand: what Pillow does not write."""
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


def another_format(path: Path) -> Pixels:
    noise(7).save(path, "BMP")
    return np.asarray(noise(7))


def jpeg(path: Path) -> Pixels:
    Image.new("RGB", (48, 40), (50, 100, 200)).save(path, "JPEG", quality=95)
    return np.full((40, 48, 3), (50, 100, 200), dtype=np.uint8)


def over_white(colour: Pixels, opacity: Pixels) -> Pixels:
    """What a viewer with a white page shows."""
    share = opacity / 255
    return np.rint(colour * share + 255 * (1 - share)).astype(np.uint8)


def greyscale(path: Path) -> Pixels:
    grey = np.asarray(noise(7))[..., 0]
    Image.fromarray(grey).save(path)
    return np.repeat(grey[..., None], 3, axis=2)


def black_and_white(path: Path) -> Pixels:
    white = np.asarray(noise(7))[..., 0] > 127
    Image.fromarray(white).save(path)
    return np.repeat(white[..., None], 3, axis=2).astype(np.uint8) * 255


def grey_with_alpha(path: Path) -> Pixels:
    grey = np.asarray(noise(7))[..., :2].copy()
    grey[..., 1] = 51  # a fifth
    Image.fromarray(grey).save(path)
    return np.repeat(over_white(grey[..., :1], grey[..., 1:]), 3, axis=2)


def alpha(path: Path) -> Pixels:
    pixels = np.concatenate([np.asarray(noise(7)), np.asarray(noise(8))[..., :1]], axis=2)
    Image.fromarray(pixels).save(path)
    return over_white(pixels[..., :3], pixels[..., 3:])


def palette(path: Path, **options: object) -> Pixels:
    image = noise(7).quantize(64)
    image.save(path, "PNG", **options)
    return np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)[np.asarray(image)]


def palette_with_alpha(path: Path) -> Pixels:
    opacity = np.arange(64, dtype=np.uint8)
    colour = palette(path, transparency=opacity.tobytes())
    return over_white(colour, opacity[np.asarray(noise(7).quantize(64))][..., None])


def cmyk(path: Path) -> Pixels:
    Image.new("CMYK", (48, 40), (0, 255, 255, 0)).save(path, "TIFF")
    return np.full((40, 48, 3), (255, 0, 0), dtype=np.uint8)  # magenta and yellow are red


def cmyk_jpeg(path: Path) -> Pixels:
    Image.new("CMYK", (48, 40), (0, 255, 255, 0)).save(path, "JPEG", quality=95)
    return np.full((40, 48, 3), (255, 0, 0), dtype=np.uint8)


def colours_of_16_bits(path: Path) -> Pixels:
    wide = np.random.default_rng(7).integers(0, 2**16, (40, 48, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)
    png(path, struct.pack(">IIBBBBB", 48, 40, 16, 2, 0, 0, 0), rows)
    return (wide >> 8).astype(np.uint8)


def rotated_by_exif(path: Path) -> Pixels:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn right"
    noise(7).save(path, "PNG", exif=exif)
    return np.rot90(np.asarray(noise(7)), -1)  # upright, as the raters saw it


def grey_of_16_bits(path: Path) -> Pixels:
    wide = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) * 30
    Image.fromarray(wide).save(path)
    return np.repeat((wide // 256).astype(np.uint8)[..., None], 3, axis=2)


READ: dict[str, Callable[[Path], Pixels]] = {
    "wrong extension": another_format,
    "wrong extension, JPEG": jpeg,
    "greyscale": greyscale,
    "black and white": black_and_white,
    "greyscale with alpha": grey_with_alpha,
    "alpha": alpha,
    "palette": palette,
    "palette with alpha": palette_with_alpha,
    "CMYK": cmyk,
    "CMYK as JPEG": cmyk_jpeg,
    "16 bits a colour": colours_of_16_bits,
    "16 bits of grey": grey_of_16_bits,
    "rotated by EXIF": rotated_by_exif,
}


@pytest.mark.parametrize("case", READ)
def test_images_that_become_8_bit_rgb(case: str, root: Path) -> None:
    expected = READ[case](root / "images/7.png")
    found = shown(root, 7)
    assert found.shape == expected.shape
    most = 3 if "JPEG" in case else 1 if "alpha" in case else 0  # rounding
    assert np.abs(found.astype(int) - expected).max() <= most


# --- files that are refused


def cut(size: int, form: str = "PNG") -> Callable[[Path], None]:
    """The file without its last `size` bytes, or its first where `size` is negative."""

    def spoil(path: Path) -> None:
        noise(7, 64, 64).save(path, form)
        path.write_bytes(path.read_bytes()[: -size if size > 0 else abs(size)])

    return spoil


def zeros_inside(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:600] + bytes(200) + whole[800:])


def of_type(dtype: type, form: str) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(np.arange(40 * 48, dtype=dtype).reshape(40, 48)).save(
        path, form
    )


def bomb(side: int) -> Callable[[Path], None]:
    """A few bytes that say they are so many pixels."""
    return lambda path: png(path, struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0), b"")


def links_in_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to("9.png")
    path.with_name("9.png").unlink()
    path.with_name("9.png").symlink_to("7.png")


def rename(path: Path) -> None:
    path.rename(path.with_name("7.PNG"))
    if path.exists():
        pytest.skip("this disk does not tell upper from lower case")


UNREADABLE = (
    r"images.7\.png is not a readable image .*; replace the file, or remove its row from the table"
)
WIDE = r"images.7\.png has more than 16 bits per channel; convert it to 8 or 16 bits"
LARGE = r"7\.png is too large .*{} pixels.*; raise stream\.max_megapixels, which is 200, or replace"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (
        Path.unlink,
        r"1 of 20 images are missing, .*7\.png \(row 8 of [^,]*ratings\.csv\); complete",
    ),
    "other letter case": (
        rename,
        r"1 of 20 images are missing, .*7\.png \(row 8 .*, where 7\.PNG is: upper and lower",
    ),
    "links in a circle": (links_in_a_circle, r"2 of 20 images are missing, the first is .*7\.png"),
    "zero bytes": (lambda path: path.write_bytes(b""), UNREADABLE),
    "truncated JPEG": (cut(900, "JPEG"), UNREADABLE.replace(" .*;", ".*truncated.*;")),
    "truncated PNG": (cut(500), UNREADABLE),
    "a header and no more": (cut(-20), UNREADABLE),
    "zeros inside": (zeros_inside, UNREADABLE),
    "a PDF file": (lambda path: path.write_text("%PDF-1.7"), UNREADABLE),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), r"1 of 20 images are missing"),
    "32 bits of grey": (of_type(np.int32, "TIFF"), WIDE),
    "floats": (of_type(np.float32, "TIFF"), WIDE),
    "decompression bomb": (
        bomb(30_000),
        LARGE.format(900000000),
    ),
    "small decompression bomb": (
        bomb(15_000),
        LARGE.format(225000000),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_images_that_are_refused(case: str, root: Path) -> None:
    spoil, words = REFUSED[case]
    spoil(root / "images/7.png")
    refused(root, words)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_of_which_pillow_only_warns_is_refused_too(root: Path) -> None:
    bomb(15_000)(root / "images/7.png")
    refused(root, LARGE.format(225000000))


def test_a_file_that_goes_after_the_check(root: Path) -> None:
    with pytest.raises(ValueError, match=r"data set 'set': .*77\.png does not exist; replace"):
        Rule().load(root / "images/77.png", "set")


def test_a_folder_that_contains_itself_does_no_harm(root: Path) -> None:
    (root / "images/again").symlink_to(root, target_is_directory=True)
    data_of(root).setup()


# --- tables


def edit(root: Path, old: str, new: str) -> None:
    text = (root / "ratings.csv").read_text()
    assert old in text
    (root / "ratings.csv").write_text(text.replace(old, new))


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "Windows line ends", "bare CR"])
def test_line_ends_and_byte_order_marks(mark: str, end: str, root: Path) -> None:
    expected = data_of(root).read_table()
    text = (root / "ratings.csv").read_text()
    (root / "ratings.csv").write_bytes((mark + text.replace("\n", end)).encode())
    assert data_of(root).read_table().equals(expected)
    data_of(root).setup()


@pytest.mark.parametrize(
    "image",
    [
        "../../etc/passwd",
        "../secret.png",
        "images/../../x.png",
        "images/../images/3.png",
        "/etc/passwd",
        "C:\\x.png",
        "..\\x.png",
    ],
)
def test_no_way_out_of_the_folder(image: str, root: Path) -> None:
    edit(root, "images/7.png", image)
    refused(
        root, r"ratings\.csv, row 8: the image .* lies outside of the folder; use paths relative to"
    )


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ('"3,5"', r"row 8 \('images/7\.png'\): mos is '3,5', not a finite number"),
        ('"1.000,5"', r"row 8 \('images/7\.png'\): mos is '1\.000,5', not a finite number"),
        ("3;5", r"row 8 \('images/7\.png'\): mos is '3;5', not a finite number"),
        ("1,75", r"row 8: 4 cells, 3 in the header; put quotation marks"),
    ],
)
def test_comma_decimals_are_refused_and_not_guessed(score: str, words: str, root: Path) -> None:
    edit(root, "7.png,1.75,", f"7.png,{score},")
    refused(root, words)


# --- a disk that is full


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 10 kB, which the system reports as it does a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


NO_ROOM = r"no room for a cache of 0\.1 MB in .*cache \(.*\); make room, set cache_dir to another folder, or use cache=ram"


def test_no_room_for_the_cache(small_files: None, root: Path) -> None:
    refused(root, NO_ROOM)


@pytest.mark.parametrize("written", ["pixels", "index"])
def test_a_disk_that_fills_up_while_caching(
    written: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(
            *((cache_files.FileStore, "__call__") if written == "pixels" else (Path, "write_text")),
            full,
        )
        refused(root, NO_ROOM)
    data_of(root).setup()
    assert len(find_caches(root.parent / "cache")) == 1, "with room again, it is built"


def test_a_cache_folder_that_is_none(root: Path) -> None:
    (root.parent / "cache").write_text("a file")
    with pytest.raises(
        ValueError,
        match=r"'set': a cache cannot be written into .*cache \(File exists\); set cache_dir",
    ):
        data_of(root).setup()


def test_other_faults_of_the_disk_are_not_taken_for_a_full_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*words: object, **options: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(cache_files.FileStore, "__call__", broken)
    with pytest.raises(OSError, match="Input/output error"):
        data_of(root).setup()
    assert [path.name for path in (root.parent / "cache").iterdir()] == [".lock"]
