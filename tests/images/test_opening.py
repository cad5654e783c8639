"""One rule for what a file becomes: formats by what is held, the turn, several pictures, bits, sizes;
each against NumPy on the pixels that were written.
"""

import io
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from iqa_lightning.images.opening import DECISIONS, FORMATS, Rule
from tests.datasets.folders import noise

RULE = Rule()
PICTURE = np.asarray(noise(0, 40, 56))


def saved(path: Path, picture: Image.Image | None = None, **options: object) -> Path:
    (picture or Image.fromarray(PICTURE)).save(path, **options)
    return path


def exif(orientation: object) -> Image.Exif:
    block = Image.Exif()
    block[274] = orientation
    return block


UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}
"""What EXIF 2.3 says of tag 274: which side of the scene the first row and column are."""


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "late PNG"])
def test_turned_as_exif_says_or_left(orientation: int, form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if form == "late PNG":  # the block behind the pixels, where some programs write it
        saved(path)
        block = exif(orientation).tobytes().removeprefix(b"Exif\0\0")
        end = path.read_bytes()[-12:]
        chunk = struct.pack(">I4s", len(block), b"eXIf") + block
        chunk += struct.pack(">I", zlib.crc32(b"eXIf" + block))
        path.write_bytes(path.read_bytes()[:-12] + chunk + end)
    else:
        lossless = {"lossless": True} if form == "WEBP" else {}
        saved(path, format=form, exif=exif(orientation), **lossless)
    upright = UPRIGHT[orientation](PICTURE)
    for rule, expected in ((RULE, upright), (Rule(exif_turn=False), PICTURE)):
        assert np.array_equal(np.asarray(rule.load(path)), expected)
        assert rule.size(path) == expected.shape[:2]
    turn = {"turned", "not turned"} & {*RULE.decisions(path)}
    assert turn == (set() if orientation == 1 else {"turned"})
    turn = {"turned", "not turned"} & {*Rule(exif_turn=False).decisions(path)}
    assert turn == (set() if orientation == 1 else {"not turned"})


@pytest.mark.parametrize("block", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\1"])
def test_a_damaged_exif_block_turns_nothing(block: bytes, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", exif=block)
    assert np.array_equal(np.asarray(RULE.load(path)), PICTURE)
    assert RULE.decisions(path) == []


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_is_none(value: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", exif=exif(value))
    assert np.array_equal(np.asarray(RULE.load(path)), PICTURE)


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("GIF", {}),
        ("PNG", {}),
        ("TIFF", {}),
        ("WEBP", {"lossless": True}),
        ("MPO", {"quality": 95}),
    ],
)
def test_of_several_pictures_the_first(form: str, options: dict, tmp_path: Path) -> None:
    first = Image.fromarray(PICTURE // 64 * 64).quantize(64).convert("RGB")
    if form == "MPO":  # what JPEG leaves as it is
        first = Image.new("RGB", first.size, (50, 100, 200))
    others = [noise(k, 40, 56) for k in (1, 2)]
    path = saved(tmp_path / "a", first, format=form, save_all=True, append_images=others, **options)
    found = np.asarray(RULE.load(path)).astype(int)
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert np.abs(found - np.asarray(first)).max() <= (3 if form == "MPO" else 0)
    assert "frames" in RULE.decisions(path)


def test_hidden_colours_do_not_show(tmp_path: Path) -> None:
    """Behind full transparency programs leave black, or anything."""
    pixels = np.dstack([PICTURE, np.full((40, 56), 255, np.uint8)])
    pixels[:, 28:, 3] = 0
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    found = np.asarray(RULE.load(path))
    assert np.array_equal(found[:, :28], PICTURE[:, :28])
    assert (found[:, 28:] == 255).all()
    assert RULE.decisions(path) == ["alpha"]


def png(path: Path, kind: int, samples: NDArray[np.uint16], *chunks: tuple[bytes, bytes]) -> Path:
    """A PNG of 16 bits by hand."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in parts
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return path


WIDE = np.random.default_rng(5).integers(0, 2**16, (40, 56, 3), dtype=np.uint16)


def test_grey_and_colour_of_16_bits_by_one_rule(tmp_path: Path) -> None:
    grey = np.repeat(WIDE[..., :1], 3, axis=2)
    upper = (grey // 256).astype(np.uint8)
    same = [
        png(tmp_path / "grey.png", 0, WIDE[..., 0]),
        png(tmp_path / "colour.png", 2, grey),
        png(tmp_path / "alpha.png", 4, np.dstack([WIDE[..., 0], np.full((40, 56), 65535)])),
        saved(tmp_path / "grey.tif", Image.fromarray(WIDE[..., 0])),
        saved(tmp_path / "packed.tif", Image.fromarray(WIDE[..., 0]), compression="tiff_lzw"),
    ]
    pgm = tmp_path / "grey.pgm"
    pgm.write_bytes(b"P5 56 40 65535\n" + WIDE[..., 0].astype(">u2").tobytes())
    for path in [*same, pgm]:
        assert np.array_equal(np.asarray(RULE.load(path)), upper), path
        assert "16 bits" in RULE.decisions(path), path


@pytest.mark.parametrize("kind", ["contig", "separate"])
@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
def test_colours_in_planes(kind: str, bits: type, tmp_path: Path) -> None:
    """Pillow reads planes of 16 bits as if they were of 8."""
    tifffile = pytest.importorskip("tifffile")
    pixels = PICTURE.astype(bits) * (257 if bits is np.uint16 else 1)
    planes = pixels.transpose(2, 0, 1) if kind == "separate" else pixels
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig=kind)
    if (kind, bits) == ("separate", np.uint16):
        with pytest.raises(ValueError, match=r"colours in planes of 16 bits; save it with"):
            RULE.load(path)
    else:
        assert np.array_equal(np.asarray(RULE.load(path)), PICTURE)


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_other_colours_are_made_rgb_and_listed(mode: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(PICTURE).convert(mode))
    assert RULE.load(path).mode == "RGB"
    assert RULE.decisions(path) == ["cmyk"]


def test_one_grey_of_16_bits_that_is_transparent(tmp_path: Path) -> None:
    clear = int(WIDE[3, 4, 0])
    path = png(tmp_path / "a.png", 0, WIDE[..., 0], (b"tRNS", struct.pack(">H", clear)))
    expected = (WIDE[..., 0] // 256).astype(np.uint8)
    expected[WIDE[..., 0] == clear] = 255
    assert np.array_equal(np.asarray(RULE.load(path))[..., 0], expected)


@pytest.mark.parametrize("form", ["JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_what_the_file_holds_counts(form: str, tmp_path: Path) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = saved(tmp_path / "a.png", Image.new("RGB", (40, 50), (90, 120, 150)), format=form)
    found = np.asarray(RULE.load(path)).astype(int)
    assert np.abs(found - (90, 120, 150)).max() < 8
    assert RULE.decisions(path) == ["suffix"]


ENCAPSULATED = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"
PCX = b"\x0a\x05\x01\x08" + bytes(124)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (ENCAPSULATED, "it is PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(28) + ENCAPSULATED, "it is PostScript"),
        (b"%PDF-1.7\n", "it is a PDF"),
        (PCX, "it is none of JPEG, PNG"),
        (b"/* XPM */\nstatic char *a[] = {", "it is none of"),
        (b"BUFR" + bytes(60), "it is none of"),
        (b"8BPS\0\1" + bytes(60), "a Photoshop file"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a drawing"),
        (b"<!doctype html><title>404</title>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"v/1\x01" + bytes(60), "it is OpenEXR; convert it"),
        (b"\x1f\x8b" + bytes(60), "compressed by gzip; unpack it"),
        (b'{"message": "403"}', "the answer of a server; get the file again"),
        (b"<Error><Code>AccessDenied</Code></Error>", "the answer of a server"),
        (b"II*\0" + bytes(60), "a TIFF of a kind that is not read; save it with 8 or 16 bits"),
        (b"", "the file is empty"),
        (b"\xff\xd8\xff\xe0", "not a readable image"),
    ],
)
def test_other_formats_are_never_opened(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*command: object, **options: object) -> None:
        pytest.fail(f"a program was started: {command}")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("os.system", started)
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    for act in (RULE.load, RULE.size, RULE.decisions):
        with pytest.raises(
            ValueError, match=rf"photo\.png is not a readable image \(.*{words}|{words}"
        ):
            act(path)
    assert not {"EPS", "WMF", "PSD", "FITS", "ICNS"} & {*FORMATS}


def test_a_raw_file_is_not_its_preview(tmp_path: Path) -> None:
    tags = {50706: b"\x01\x04\0\0"}
    dng = saved(tmp_path / "a.tif", tiffinfo=tags)
    preview = saved(tmp_path / "b.tif", tiffinfo={254: 1})
    for path in (dng, preview):
        with pytest.raises(
            ValueError, match="a camera's raw file, whose first picture is a preview"
        ):
            RULE.load(path)
    (tmp_path / "c.NEF").write_bytes(b"MM\0*" + bytes(99))
    with pytest.raises(ValueError, match="a camera's raw file; develop it"):
        RULE.load(tmp_path / "c.NEF")


@pytest.mark.parametrize("size", [(4000, 8), (8, 4000), (31, 32), (1, 1)])
def test_too_small_is_named(size: tuple[int, int], tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", size))
    with pytest.raises(ValueError, match=f"too small \\({size[0]} x {size[1]} pixels.* 32 or more"):
        RULE.size(path)
    assert Rule(min_side=1).size(path) == size[::-1]


def test_the_limit_of_pixels_can_be_set(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (1000, 500)))
    for limit in (0.4, 0.1):  # beyond twice the limit Pillow refuses by itself
        with pytest.raises(ValueError, match=f"max_megapixels, which is {limit}, or"):
            Rule(max_megapixels=limit).load(path)
    assert Rule(max_megapixels=0.5).load(path).size == (1000, 500)
    with pytest.raises(ValueError, match="max_megapixels is 0"):
        Rule(max_megapixels=0)


@pytest.mark.filterwarnings("error")
def test_the_limit_of_the_users_program_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's own limit is one number of the process; threads that open at once share it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = saved(tmp_path / "a.png", Image.new("L", (400, 400)))
    threads = [threading.Thread(target=RULE.load, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ValueError, match="does not exist"):
        RULE.load(tmp_path / "none.png")
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(ValueError, match="none of"):
        RULE.load(tmp_path / "bad.png")
    assert Image.MAX_IMAGE_PIXELS == 100


def test_every_decision_has_a_word() -> None:
    assert all(text and text[0].islower() for text in DECISIONS.values())


def test_cmyk_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (40, 40), (0, 255, 255, 0)), quality=95)
    assert RULE.decisions(path) == ["cmyk"]
    assert np.abs(np.asarray(RULE.load(path)).astype(int) - (255, 0, 0)).max() <= 3


def test_grey_where_white_is_zero(tmp_path: Path) -> None:
    """A TIFF of 16 bits by hand: Pillow writes none whose photometric tag is 0."""
    grey = WIDE[..., 0]
    tags = [
        (256, 4, 56),
        (257, 4, 40),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 0),
        (273, 4, 8 + 2 + 9 * 12 + 4),
        (277, 3, 1),
        (278, 4, 40),
        (279, 4, grey.nbytes),
    ]
    file = io.BytesIO()
    file.write(struct.pack("<2sHIH", b"II", 42, 8, len(tags)))
    for tag, kind, value in tags:
        file.write(
            struct.pack("<HHI", tag, kind, 1) + struct.pack("<H2x" if kind == 3 else "<I", value)
        )
    file.write(bytes(4) + grey.astype("<u2").tobytes())
    path = tmp_path / "a.tif"
    path.write_bytes(file.getvalue())
    expected = 255 - (grey // 256).astype(np.uint8)
    assert np.array_equal(np.asarray(RULE.load(path))[..., 0], expected)
