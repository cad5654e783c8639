"""KADID-10k: synthetic distortions of 81 photographs."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from iqa_lightning.datasets.release import Release, parse_names

# number 1 to 25 in the file names; home page of the data set
DISTORTIONS = (
    "gaussian_blur",
    "lens_blur",
    "motion_blur",
    "color_diffusion",
    "color_shift",
    "color_quantization",
    "color_saturation_hsv",
    "color_saturation_lab",
    "jpeg2000",
    "jpeg",
    "white_noise",
    "white_noise_in_color",
    "impulse_noise",
    "multiplicative_noise",
    "denoising",
    "brightening",
    "darkening",
    "mean_shift",
    "jitter",
    "non_eccentricity_patch",
    "pixelation",
    "quantization",
    "color_block",
    "sharpening",
    "contrast_change",
)


class KADID10k(Release):
    """KADID-10k: 10,125 distorted images of 81 references, 25 kinds of distortion at five levels.

    Official layout: `images/IRR_TT_LL.png` (reference, kind, level) and `dmos.csv` (dist_img,
    ref_img, dmos, var).

    MOS: 1 to 5, higher is better although the column is called `dmos` (1.00 to 4.93 occur).
    Standard deviation: square root of `var`; 0 for two images. Reference: `ref_img`. Level: 1
    (weakest) to 5. No official split. Licence: the photographs are of Pixabay, under its licence;
    none found for the scores. Home: https://database.mmsp-kn.de/kadid-10k-database.html Citation:
    H. Lin, V. Hosu and D. Saupe, "KADID-10k: A Large-scale Artificially Distorted IQA Database",
    QoMEX 2019, https://doi.org/10.1109/QoMEX.2019.8743252 Format: as documented. `dmos.csv` was not
    at hand; the tests write it from two published copies of its columns.

    Args:
        root: the folder with `dmos.csv` and `images`.
        options: see `IQADataModule`.
    """

    native_range = (1.0, 5.0)
    native_higher_is_better = True
    home: ClassVar[str] = "https://database.mmsp-kn.de/kadid-10k-database.html"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def read_table(self) -> pd.DataFrame:
        """The 10,125 distorted images, in the order of the table.

        Raises:
            ValueError: the table is missing or damaged, or an image is not named as documented.
        """
        rows = self.read_text("dmos.csv", ("dist_img", "ref_img", "dmos", "var"), ("dmos", "var"))
        table = self.read_file(
            "dmos.csv", lambda _: parse_names(list(rows["dist_img"]), DISTORTIONS)
        )
        table["image"] = "images/" + rows["dist_img"]
        table["mos"] = rows["dmos"]
        table["mos_std"] = np.sqrt(rows["var"])
        table["reference"] = rows["ref_img"].str.rsplit(".", n=1).str[0]
        return table
