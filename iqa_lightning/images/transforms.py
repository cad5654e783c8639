"""How an image is shown to a model: the adaptive resize, the training crop, the evaluation view."""

from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

EVALUATIONS = ("full", "center", "squeezed", "windows")


@dataclass(frozen=True)
class View:
    """How the images of a stream are shown.

    The continual papers use `resize=768, crop=384, evaluation="full"`; UNIQUE trains with
    `resize=512` and is evaluated with `evaluation_resize=768`.

    Args:
        resize: pixels of the shorter side after the adaptive resize; 0 leaves every image as it is.
        crop: side of the square training crop in pixels. A smaller image is enlarged until it fits.
        flip: mirror the training crop left to right with probability 1/2.
        evaluation: `full` shows the whole image, `center` its central square of side `crop`,
            `squeezed` all of it as such a square, aspect lost, `windows` several such squares at
            once, which is LIQE's way (`data/windows.py`), in training too.
        evaluation_resize: the same as `resize` for the validation and test parts; null: `resize`
            for these too.
        windows: how many of an image's windows evaluation shows; one that has fewer shows all.
        train_windows: how many windows training draws.
        squeeze: side of the square that training scales images to, aspect lost, before the crop
            (MetaIQA); 0: the aspect stays.
    """

    resize: int
    crop: int
    flip: bool = True
    evaluation: str = "full"
    evaluation_resize: int | None = None
    windows: int = 15
    train_windows: int = 3
    squeeze: int = 0

    def __post_init__(self) -> None:
        for key, side in (("resize", self.resize), ("evaluation_resize", self.evaluation_resize)):
            if side is not None and side < 0:
                raise ValueError(
                    f"view.{key} is {side}; give the shorter side in pixels, or 0 for no resize"
                )
        if self.crop < 1:
            raise ValueError(
                f"view.crop is {self.crop}; give the side of the training crop in pixels"
            )
        if self.evaluation not in EVALUATIONS:
            raise ValueError(
                f"view.evaluation is {self.evaluation!r}; it is one of {', '.join(EVALUATIONS)}"
            )
        if 0 < self.squeeze < self.crop or self.squeeze < 0:
            raise ValueError(
                f"view.squeeze is {self.squeeze}; give the side of a square that holds a crop of "
                f"{self.crop}, or 0"
            )
        if self.windows < 1 or not 1 <= self.train_windows <= 6:
            raise ValueError(
                f"view.windows is {self.windows} and view.train_windows {self.train_windows}; "
                f"give at least 1 window, and 1 to 6 in training"
            )


def resized_size(height: int, width: int, resize: int) -> tuple[int, int]:
    """Height and width after the adaptive resize.

    An image one of whose sides is below `resize` stays as it is; any other gets that shorter side,
    aspect ratio kept.
    """
    short, long = sorted((height, width))
    if resize == 0 or short <= resize:
        return height, width
    other = int(resize * long / short)
    return (resize, other) if height <= width else (other, resize)


def adaptive_resize(image: Image.Image, resize: int) -> Image.Image:
    """The image after the adaptive resize (bilinear, antialiased)."""
    height, width = resized_size(image.height, image.width, resize)
    if (height, width) == (image.height, image.width):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def random_view(
    image: UInt8[Tensor, "3 height width"], view: View, top: float, left: float, flip: float
) -> UInt8[Tensor, "*windows 3 crop crop"]:
    """The training crop that three numbers in [0, 1) choose, as a copy; a pure function of its
    arguments.

    `top` and `left` choose among all offsets that fit, each equally likely for a uniform number;
    the crop is mirrored where `flip` is below 1/2. With windows, several are drawn of the image or
    of its mirror image. Mirroring is part of the copy that cuts the crop and takes no time of its
    own; of a batch on the device it would be one more copy.
    """
    image = square(image, view.squeeze) if view.squeeze else _enlarge(image, view.crop)
    if view.evaluation == "windows":
        drawn = drawn_indices(
            count(image.shape[-2], image.shape[-1], view.crop), view.train_windows, top, left
        )
        return cut(image, view.crop, drawn, mirror=view.flip and flip < 0.5)
    y = _offset(image.shape[-2] - view.crop, top)
    x = _offset(image.shape[-1] - view.crop, left)
    crop = image[:, y : y + view.crop, x : x + view.crop]
    return (
        crop.flip(-1)
        if view.flip and flip < 0.5
        else crop.clone(memory_format=torch.contiguous_format)
    )


def evaluation_view(
    image: UInt8[Tensor, "3 height width"], view: View
) -> UInt8[Tensor, "*windows 3 rows columns"]:
    """What validation and test show: the whole image, its central crop or several windows, as a
    copy.
    """
    if view.evaluation == "full":
        return image.clone(memory_format=torch.contiguous_format)
    if view.evaluation == "squeezed":
        return square(image, view.crop).clone(memory_format=torch.contiguous_format)
    image = _enlarge(image, view.crop)
    if view.evaluation == "windows":
        windows = count(image.shape[-2], image.shape[-1], view.crop)
        return cut(image, view.crop, fixed_indices(windows, view.windows))
    y, x = ((side - view.crop) // 2 for side in image.shape[-2:])
    return image[:, y : y + view.crop, x : x + view.crop].clone(
        memory_format=torch.contiguous_format
    )


def evaluation_size(height: int, width: int, view: View) -> tuple[int, int]:
    """Height and width of the evaluation view of an image that has been through the adaptive
    resize.

    Windows count as one below the other, so that images of equal size here also show equally many.
    """
    if view.evaluation == "full":
        return height, width
    if view.evaluation in ("center", "squeezed"):
        return view.crop, view.crop
    windows = count(*_enlarged_size(height, width, view.crop), view.crop)
    return len(fixed_indices(windows, view.windows)) * view.crop, view.crop


def square(image: UInt8[Tensor, "3 height width"], side: int) -> UInt8[Tensor, "3 side side"]:
    """Scaled to a square, aspect lost (bilinear, antialiased)."""
    if tuple(image.shape[-2:]) == (side, side):
        return image
    return interpolate(image[None], [side, side], mode="bilinear", antialias=True)[0]


def _enlarge(image: UInt8[Tensor, "3 height width"], side: int) -> UInt8[Tensor, "3 rows columns"]:
    size = _enlarged_size(image.shape[-2], image.shape[-1], side)
    if size == tuple(image.shape[-2:]):
        return image
    return interpolate(image[None], list(size), mode="bilinear", antialias=True)[0]


def _enlarged_size(height: int, width: int, side: int) -> tuple[int, int]:
    short = min(height, width)
    if short >= side:
        return height, width
    return max(side, round(side * height / short)), max(side, round(side * width / short))


def _offset(free: int, u: float) -> int:
    # A float just below 1 times a large number may round up to the number itself.
    return min(int(u * (free + 1)), free)


STRIDE, LARGE_STRIDE, LARGE = (
    32,
    48,
    1024,
)  # pixels; images with a side of LARGE or more take the larger stride


def grid(height: int, width: int, side: int) -> tuple[int, int, int]:
    """Rows and columns of the windows of an image, and the pixels from one to the next."""
    stride = LARGE_STRIDE if max(height, width) >= LARGE else STRIDE
    return (height - side) // stride + 1, (width - side) // stride + 1, stride


def count(height: int, width: int, side: int) -> int:
    """Number of windows of an image."""
    rows, columns, _ = grid(height, width, side)
    return rows * columns


def fixed_indices(windows: int, shown: int) -> list[int]:
    """Which of the windows evaluation shows: i * floor(windows / shown), i from 0; all where there
    are not so many.
    """
    return (
        [i * (windows // shown) for i in range(shown)] if windows >= shown else list(range(windows))
    )


def drawn_indices(windows: int, drawn: int, first: float, second: float) -> list[int]:
    """`drawn` windows, each equally likely, with replacement; a pure function of two numbers in [0,
    1).

    They are the digits of the two numbers, in turn, to the base `windows`.
    """
    digits, rest = [], [first, second]
    for i in range(drawn):
        value = rest[i % 2] * windows
        digits.append(min(int(value), windows - 1))
        rest[i % 2] = value - int(value)
    return digits


def cut(
    image: UInt8[Tensor, "3 height width"], side: int, indices: list[int], mirror: bool = False
) -> UInt8[Tensor, "windows 3 side side"]:
    """Windows of the image, or of its mirror image, by their number in raster order; a copy."""
    height, width = image.shape[-2:]
    _, columns, stride = grid(height, width, side)
    shown = []
    for index in indices:
        y, x = (stride * k for k in divmod(index, columns))
        x = width - side - x if mirror else x
        shown.append(image[:, y : y + side, x : x + side])
    stacked = torch.stack(shown)
    return stacked.flip(-1) if mirror else stacked
