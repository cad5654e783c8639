"""Degraded images a second on one core: the engine in batches, against Pillow and NumPy image by
image.

Both go through the same chains of the default space on the same photographs of 224x224 pixels. The
other side is written as one does without a framework, and as the code of ImageNet-C does it: Pillow
for what it has (Gaussian blur, scaling, affine maps, codecs), NumPy for the rest, in its default
precision; a second column has it in float32. Passes of all alternate in one process, of which the
seconds of processor time count. `python experiments/benchmarks/degradations.py`
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image, ImageFilter

from iqa_lightning.datasets.demo import PHOTOGRAPHS, photograph
from iqa_lightning.images.degradations.chain import Chain, degrade
from iqa_lightning.runs.compose import instantiate

FLOAT: type = np.float64
SIDE, BATCH, BATCHES, REPEATS = 224, 64, 3, 5
Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
TO_YCBCR = np.array(
    [[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], np.float32
)
HERE = Path(__file__).resolve().parent


def to_image(x: Floats) -> Image.Image:
    """A Pillow image of values in [0, 1]."""
    return Image.fromarray((x * 255 + 0.5).clip(0, 255).astype(np.uint8))


def to_floats(image: Image.Image) -> Floats:
    """And back."""
    return np.asarray(image, FLOAT) / 255


def convolve(x: Floats, kernel: Floats) -> Floats:
    """Sum of shifted images, one for each cell of the kernel that is not 0."""
    radius, (height, width) = len(kernel) // 2, x.shape[:2]
    padded, out = (
        np.pad(x, ((radius, radius), (radius, radius), (0, 0)), mode="edge"),
        np.zeros_like(x),
    )
    for i, j in zip(*np.nonzero(kernel), strict=True):
        out += kernel[i, j] * padded[i : i + height, j : j + width]
    return out


def motion_kernel(length: int, angle: float) -> Floats:
    """A line of that length through the centre."""
    line = np.zeros((length, length), FLOAT)
    line[length // 2] = 1
    turned = Image.fromarray(line.astype(np.float32)).rotate(angle, Image.Resampling.BILINEAR)
    kernel = np.asarray(turned, FLOAT)
    return kernel / kernel.sum()


def disc(radius: float) -> Floats:
    """A disc with a soft edge."""
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(y, x), 0, 1).astype(FLOAT)
    return kernel / kernel.sum()


def coded(x: Floats, kind: str, **options: int) -> Floats:
    """Through a file in memory."""
    file = io.BytesIO()
    to_image(x).save(file, kind, **options)
    return to_floats(Image.open(file).convert("RGB"))


def affine(x: Floats, s: float, draw: np.random.Generator) -> Floats:
    """About the centre, mirrored beyond the edges."""
    (a, b), (c, d) = np.eye(2) + s * draw.uniform(-1, 1, (2, 2))
    height, width = x.shape[:2]
    margin = 48
    padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
    cx, cy = width / 2, height / 2
    map_ = (a, b, cx - a * cx - b * cy + margin, c, d, cy - c * cx - d * cy + margin)
    return to_floats(
        to_image(padded).transform(
            (width, height), Image.Transform.AFFINE, map_, Image.Resampling.BILINEAR
        )
    )


def jitter(x: Floats, s: float, draw: np.random.Generator) -> Floats:
    """Bilinear samples at displaced places."""
    height, width = x.shape[:2]
    y, x_ = np.mgrid[:height, :width].astype(FLOAT)
    y = (y + s * draw.standard_normal((height, width), FLOAT)).clip(0, height - 1)
    x_ = (x_ + s * draw.standard_normal((height, width), FLOAT)).clip(0, width - 1)
    top, left = y.astype(np.int64).clip(0, height - 2), x_.astype(np.int64).clip(0, width - 2)
    v, u = (y - top)[..., None], (x_ - left)[..., None]
    upper = x[top, left] * (1 - u) + x[top, left + 1] * u
    lower = x[top + 1, left] * (1 - u) + x[top + 1, left + 1] * u
    return upper * (1 - v) + lower * v


def rescale(x: Floats, s: float, draw: np.random.Generator) -> Floats:
    """Down and up again."""
    mode = Image.Resampling.BILINEAR if draw.random() < 0.5 else Image.Resampling.BICUBIC
    height, width = x.shape[:2]
    small = to_image(x).resize((round(width * (1 - s)), round(height * (1 - s))), mode)
    return to_floats(small.resize((width, height), mode))


def colour_noise(x: Floats, s: float, draw: np.random.Generator) -> Floats:
    """White noise in YCbCr."""
    ycbcr = x @ TO_YCBCR.T.astype(FLOAT) + np.sqrt(s, dtype=FLOAT) * draw.standard_normal(
        x.shape, FLOAT
    )
    return ycbcr @ np.linalg.inv(TO_YCBCR).T.astype(FLOAT)


def impulse_noise(x: Floats, s: float, draw: np.random.Generator) -> Floats:
    """Salt and pepper."""
    u = draw.random(x.shape, FLOAT)
    return np.where(u < s / 2, FLOAT(0), np.where(u >= 1 - s / 2, FLOAT(1), x))


def odd(length: float) -> int:
    """As the engine rounds lengths."""
    return max(3, 2 * int(np.ceil((length - 1) / 2)) + 1)


ONE_BY_ONE: dict[str, Callable[[Floats, float, np.random.Generator], Floats]] = {
    "affine": affine,
    "jitter": jitter,
    "rescale": rescale,
    "brighten": lambda x, s, _: x * FLOAT(2 ** (s / 2.2)),
    "darken": lambda x, s, _: x * FLOAT(2 ** (-s / 2.2)),
    "contrast": lambda x, s, _: x.mean() + FLOAT(1 + s) * (x - x.mean()),
    "saturation": lambda x, s, _: (
        (grey := (x @ LUMA.astype(FLOAT))[..., None]) + FLOAT(s) * (x - grey)
    ),
    "gaussian_blur": lambda x, s, _: to_floats(to_image(x).filter(ImageFilter.GaussianBlur(s))),
    "motion_blur": lambda x, s, draw: convolve(x, motion_kernel(odd(s), draw.uniform(0, 180))),
    "lens_blur": lambda x, s, _: convolve(x, disc(s)),
    "gaussian_noise": lambda x, s, draw: (
        x + FLOAT(np.sqrt(s)) * draw.standard_normal(x.shape, FLOAT)
    ),
    "colour_noise": colour_noise,
    "impulse_noise": impulse_noise,
    "jpeg": lambda x, s, _: coded(x, "JPEG", quality=round(s)),
    "webp": lambda x, s, _: coded(x, "WEBP", quality=round(s), method=0),
    "quantisation": lambda x, s, _: np.round(x * (s - 1)) / FLOAT(s - 1),
}


def one_by_one(images: list[Pixels], chains: list[Chain]) -> list[Pixels]:
    """Each image through its chain."""
    out = []
    for i, (image, chain) in enumerate(zip(images, chains, strict=True)):
        draw, x = np.random.default_rng(i), image.astype(FLOAT) / 255
        for kind, strength in chain:
            x = ONE_BY_ONE[kind](x, strength, draw).clip(0, 1)
        out.append(np.asarray(to_image(x)))
    return out


def crops() -> list[Pixels]:
    """Windows of the embedded photographs."""
    photos = [np.asarray(photograph(name)) for name in PHOTOGRAPHS]
    draw, found = np.random.default_rng(0), []
    for i in range(BATCH * BATCHES):
        photo = photos[i % len(photos)]
        y, x = (int(draw.integers(side - SIDE + 1)) for side in photo.shape[:2])
        found.append(photo[y : y + SIDE, x : x + SIDE])
    return found


def seconds(call: Callable[[], object]) -> float:
    """Of one call."""
    start = process_time()
    call()
    return process_time() - start


def in_precision(kind: type, images: list[Pixels], chains: list[Chain]) -> None:
    """One by one, with that type of numbers."""
    global FLOAT  # noqa: PLW0603
    FLOAT = kind
    one_by_one(images, chains)


def measure(images: list[Pixels], chains: list[Chain]) -> list[float]:
    """Images a second of engine, Pillow and NumPy, and those in float32; medians of alternating
    passes.
    """
    tensor = torch.stack([torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images])
    parts = [slice(k, k + BATCH) for k in range(0, len(images), BATCH)]

    def engine() -> None:
        for part in parts:
            degrade(tensor[part], chains[part], range(len(chains[part])))

    others = [
        lambda kind=kind: in_precision(kind, images, chains) for kind in (np.float64, np.float32)
    ]
    passes = [[seconds(call) for call in (engine, *others)] for _ in range(REPEATS + 1)][
        1:
    ]  # the first warms up
    return [len(images) / median(times) for times in zip(*passes, strict=True)]


def main() -> None:
    """Measure, print, write results/degradations.csv."""
    torch.set_num_threads(1)
    space = instantiate(
        OmegaConf.load(HERE.parents[1] / "conf" / "degradations" / "qpt.yaml"), _convert_="all"
    )
    images, draw = crops(), np.random.default_rng(1)
    rows = [["chain", "engine", "one by one", "ratio", "one by one, float32", "ratio"]]
    chosen = {"default": [space.draw(draw) for _ in images]}
    chosen |= {
        kind: [(space.step(kind, (1, 3, 5)[i % 3]),) for i in range(len(images))]
        for kind in ONE_BY_ONE
    }
    for name, chains in chosen.items():
        ours, *theirs = measure(images, chains)
        cells = [cell for other in theirs for cell in (f"{other:.0f}", f"{ours / other:.1f}")]
        rows.append([name, f"{ours:.0f}", *cells])
        print("  ".join(cell.rjust(16) for cell in rows[-1]), flush=True)
    file = HERE / "results" / "degradations.csv"
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as text:
        csv.writer(text, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
