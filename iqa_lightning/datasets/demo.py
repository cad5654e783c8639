"""The embedded streams: tasks made from photographs that scikit-image and scikit-learn ship.
Synthetic targets.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.images.degradations.chain import Step, degrade, step

Pixels = UInt8[np.ndarray, "side side 3"]


# In the wheels: package, file. Origins and licences are listed in the docstring of DemoData.
PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "brick": ("skimage", "data/brick.png"),
    "camera": ("skimage", "data/camera.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}


SHORTER_SIDE = 480


CROP = 160


# ITU-R BT.601, as in JPEG.
LUMA = np.array([0.299, 0.587, 0.114])


# Xue et al. 2014, section III.A: T = 170 for grey levels 0 to 255.
GMSD_CONSTANT = 170.0


# About the largest GMSD of the strongest degradations below: it becomes the score 0.
GMSD_WORST = 1 / 3


class DemoData(IQADataModule):
    """Crops of twelve photographs, degraded in one way at many strengths, with a **synthetic
    target**.

    Nobody rated these images: `mos` is a full-reference score between the degraded and the pristine
    crop, 100 (1 - 3 GMSD) cut off at 0, with the gradient magnitude similarity deviation of W. Xue,
    L. Zhang, X. Mou and A. C. Bovik, "Gradient Magnitude Similarity Deviation", IEEE Transactions
    on Image Processing 23(2), 2014, https://doi.org/10.1109/TIP.2013.2293423. Range 0 to 100,
    higher is better. `mos_std` is unknown (NaN). Use it to see the software work, never to compare
    methods.

    Each task has 20 crops of 160x160 pixels of every photograph, each at a strength of its own; the
    photograph is the reference, so contents are disjoint between the parts, and since all tasks
    have the same photographs they are split alike: a photograph is in the same part of each.
    Everything is drawn from fixed seeds, and made in memory.

    The photographs, and who gave them (no download: the files lie in the installed packages):

    - scikit-image: `astronaut` (Eileen Collins, NASA, public domain), `camera` (Lav Varshney, CC0),
      `chelsea` (Stefan van der Walt, CC0), `coffee` (Rachel Michetti, CC0), `hubble` (extreme deep
      field, NASA, public domain), `retina` (Mikael Haggstrom, CC0), `rocket` (SpaceX, public
      domain), `brick` and `gravel` (CC0Textures, CC0), `grass` (linolafett, CC0);
      https://scikit-image.org/docs/stable/api/skimage.data.html
    - scikit-learn: `china` (danielbuechele,
      https://www.flickr.com/photos/danielbuechele/6061409035/) and `flower` (vultilion,
      https://www.flickr.com/photos/vultilion/6056698931/), both CC BY 2.0
      (https://creativecommons.org/licenses/by/2.0/); changed here by scaling, cropping and
      degradation.

    Args:
        distortion: `compression` (JPEG), `blur` (Gaussian), `noise` (Gaussian) or `tone` (exposure,
            contrast, saturation, quantisation), or `motion` (motion blur), `impulse` (salt and
            pepper), `jitter` or `jpeg2000` of `data/degradations`. The JPEG is that engine's too;
            blur, noise and tone are older.
        root: not used.
        options: see `IQADataModule`; `name` defaults to `demo_<distortion>`.
    """

    native_range = (0.0, 100.0)
    native_higher_is_better = True
    synthetic: ClassVar[bool] = True
    home: ClassVar[str] = "the packages scikit-image and scikit-learn"

    def __init__(self, distortion: str, *, root: str | Path | None = None, **options: Any) -> None:
        if distortion not in DEGRADATIONS:
            raise ValueError(
                f"distortion {distortion!r} is unknown; choose from {', '.join(DEGRADATIONS)}"
            )
        self.distortion = distortion
        super().__init__(root or ".", **options)

    def default_name(self) -> str:
        """`demo_<distortion>`."""
        return f"demo_{self.distortion}"

    @property
    def table_path(self) -> str:
        """What the images are made from."""
        return "photographs of scikit-image and scikit-learn"

    def read_table(self) -> pd.DataFrame:
        """The generated images and their synthetic targets.

        Raises:
            ValueError: a photograph is missing from its package.
        """
        return generate(self.distortion).table.copy()

    def check_files(self) -> None:
        """Nothing to check: the images are made in memory."""

    def load_image(self, row: int) -> Image.Image:
        """Generated image `row`."""
        return Image.fromarray(generate(self.distortion).images[row])

    def image_size(self, row: int) -> tuple[int, int]:
        """Height and width in pixels."""
        return CROP, CROP

    def fingerprint(self) -> str:
        """Hash of all pixels."""
        return hashlib.sha256(generate(self.distortion).images.tobytes()).hexdigest()


class Generated(NamedTuple):
    """The images of one task (images, 160, 160, 3) and their table."""

    images: NDArray[np.uint8]
    table: pd.DataFrame


@lru_cache(maxsize=8)
def generate(distortion: str, count: int = 20) -> Generated:
    """Task `distortion` with `count` crops of each photograph; kept, as table and pixels are asked
    for apart.

    Raises:
        ValueError: a photograph is missing from its package.
    """
    images, rows = [], []
    for name in PHOTOGRAPHS:
        seed = hashlib.sha256(f"{distortion}/{name}".encode()).digest()[:8]
        generator = np.random.default_rng(int.from_bytes(seed, "big"))
        for i, crop in enumerate(_crops(photograph(name), count, generator)):
            strength = (i + generator.random()) / count
            degraded = DEGRADATIONS[distortion](crop, strength, generator)
            images.append(degraded)
            rows.append((f"{name}_{i:02d}", similarity(crop, degraded), name, distortion))
    return Generated(
        np.stack(images), pd.DataFrame(rows, columns=["image", "mos", "reference", "distortion"])
    )


@lru_cache(maxsize=len(PHOTOGRAPHS))
def photograph(name: str) -> Image.Image:
    """A pristine photograph, RGB, its shorter side at most 480 pixels (large ones are shrunk, which
    hides their JPEG).

    Raises:
        ValueError: it is missing from its package.
    """
    package, file = PHOTOGRAPHS[name]
    spec = find_spec(package)
    path = Path((spec.submodule_search_locations or [""])[0] if spec else "") / file
    if not path.is_file():
        raise ValueError(
            f"demo photograph {name!r}: {package} has no {file}; reinstall scikit-image and "
            "scikit-learn"
        )
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    scale = SHORTER_SIDE / min(rgb.size)
    size = (round(rgb.width * scale), round(rgb.height * scale))
    return rgb.resize(size, Image.Resampling.LANCZOS) if scale < 1 else rgb


def similarity(pristine: Pixels, degraded: Pixels) -> float:
    """Synthetic target: 100 (1 - 3 GMSD), in [0, 100], 100 for equal images; three decimals.

    GMSD is taken on the luma, averaged over 2x2 pixels, with Prewitt gradients (Xue et al. 2014,
    see `DemoData`).
    """
    first, second = (_gradient(image) for image in (pristine, degraded))
    agreement = (2 * first * second + GMSD_CONSTANT) / (first**2 + second**2 + GMSD_CONSTANT)
    return round(100 * max(0.0, 1 - float(agreement.std()) / GMSD_WORST), 3)


def _gradient(image: Pixels) -> Float[np.ndarray, "rows columns"]:
    luma = image @ LUMA
    half = luma.reshape(luma.shape[0] // 2, 2, luma.shape[1] // 2, 2).mean(axis=(1, 3))
    columns = half[:-2] + half[1:-1] + half[2:]
    rows = half[:, :-2] + half[:, 1:-1] + half[:, 2:]
    magnitude: NDArray[np.float64] = (
        np.hypot(columns[:, 2:] - columns[:, :-2], rows[2:] - rows[:-2]) / 3
    )
    return magnitude


def _crops(image: Image.Image, count: int, generator: np.random.Generator) -> list[Pixels]:
    """The `count` busiest of three times as many random crops, in random order: flat ones show no
    degradation.
    """
    pixels = np.asarray(image)
    corners = generator.integers(
        0, (pixels.shape[0] - CROP + 1, pixels.shape[1] - CROP + 1), (3 * count, 2)
    )
    crops = [pixels[y : y + CROP, x : x + CROP] for y, x in corners]
    busiest = np.argsort([-_gradient(crop).mean() for crop in crops], kind="stable")[:count]
    return [crops[i] for i in sorted(busiest)]


def _rounded(image: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def compress(crop: Pixels, strength: float, generator: np.random.Generator) -> Pixels:  # noqa: ARG001  # as of the others
    """JPEG of quality 80 (strength 0) down to 3 (strength 1), in equal ratios."""
    return _by_engine(crop, Step("jpeg", 80 * (3 / 80) ** strength), seed=0)


def blur(crop: Pixels, strength: float, generator: np.random.Generator) -> Pixels:  # noqa: ARG001  # as of the others
    """Gaussian blur of standard deviation 0.2 to 4.2 pixels."""
    return np.asarray(
        Image.fromarray(crop).filter(ImageFilter.GaussianBlur(0.2 + 4 * strength**1.3))
    )


def add_noise(crop: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """White Gaussian noise of standard deviation 1 to 51 grey levels, independent in the three
    channels.
    """
    return _rounded(crop + generator.normal(0, 1 + 50 * strength, crop.shape))


def change_tone(crop: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Paler colours, less contrast about a brighter or darker grey, and fewer grey levels, all by
    the same strength.
    """
    grey = (crop @ LUMA)[..., None]
    image = grey + (crop - grey) * (1 - 0.8 * strength)
    level = 235 if generator.random() < 0.5 else 20
    image = level + (image - level) * (1 - 0.9 * strength)
    step = 1 + 15 * strength
    return _rounded(np.floor(image / step) * step + step / 2)


def engine(kind: str) -> Callable[[Pixels, float, np.random.Generator], Pixels]:
    """A kind of `data/degradations` at five times the strength as its level."""
    return lambda crop, strength, generator: _by_engine(
        crop, step(kind, 5 * strength), int(generator.integers(2**63))
    )


def _by_engine(crop: Pixels, step: Step, seed: int) -> Pixels:
    image = torch.from_numpy(crop.copy()).permute(2, 0, 1)[None]
    (degraded,) = degrade(image, [(step,)], [seed])
    return np.ascontiguousarray(degraded.permute(1, 2, 0).numpy())


DEGRADATIONS: dict[str, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    "compression": compress,
    "blur": blur,
    "noise": add_noise,
    "tone": change_tone,
    "motion": engine("motion_blur"),
    "impulse": engine("impulse_noise"),
    "jitter": engine("jitter"),
    "jpeg2000": engine("jpeg2000"),
}
