"""Generators of tiny data sets in their real formats on disk."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def noise(seed: int, height: int = 40, width: int = 48) -> Image.Image:
    """An image of random colours."""
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def write_csv(root: Path, count: int = 20, text: str | None = None) -> Path:
    """A folder of PNG images of differing sizes with its `ratings.csv`; `text` replaces the rows."""
    (root / "images").mkdir(parents=True)
    for i in range(count):
        noise(i, 40 + i % 3, 48 + i % 5).save(root / "images" / f"{i}.png")
    rows = [f"images/{i}.png,{i / 4},0.5" for i in range(count)]
    (root / "ratings.csv").write_text(
        "\n".join(["image,mos,mos_std", *rows]) if text is None else text
    )
    return root


def write_clive(root: Path, count: int = 14) -> Path:
    """A release of LIVE in the Wild: training images first, BMP files with a palette, MATLAB
    tables.
    """
    (root / "Images" / "trainingImages").mkdir(parents=True)
    (root / "Data").mkdir()
    names = [f"t{i}.bmp" for i in range(1, 8)] + [
        f"{i}.{'bmp' if i % 2 else 'JPG'}" for i in range(1, count + 1)
    ]
    for i, name in enumerate(names):
        folder = root / "Images" / ("trainingImages" if i < 7 else "")
        image = noise(i)
        (image.quantize(64) if name.endswith("bmp") else image).save(folder / name)
    cell = np.empty((len(names), 1), dtype=object)
    cell[:, 0] = names
    tables = {
        "AllImages": cell,
        "AllMOS": np.arange(len(names)) * 3.5,
        "AllStdDev": np.linspace(10, 20, len(names)),
    }
    for key, values in tables.items():
        savemat(root / "Data" / f"{key}_release.mat", {f"{key}_release": values})
    return root
