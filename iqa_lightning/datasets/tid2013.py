"""TID2013 (Tampere Image Database): synthetic distortions of 25 pictures."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from iqa_lightning.datasets.release import Release, parse_names

# number 1 to 24 in the file names; readme of the release
DISTORTIONS = (
    "white_noise",
    "white_noise_in_color",
    "spatially_correlated_noise",
    "masked_noise",
    "high_frequency_noise",
    "impulse_noise",
    "quantization_noise",
    "gaussian_blur",
    "denoising",
    "jpeg",
    "jpeg2000",
    "jpeg_transmission_errors",
    "jpeg2000_transmission_errors",
    "non_eccentricity_pattern",
    "local_blocks",
    "mean_shift",
    "contrast_change",
    "color_saturation",
    "multiplicative_noise",
    "comfort_noise",
    "lossy_compression_of_noise",
    "color_quantization_with_dither",
    "chromatic_aberrations",
    "sparse_sampling",
)


class TID2013(Release):
    """TID2013: 3,000 distorted images of 25 references, 24 kinds of distortion at five levels.

    Official layout: `distorted_images/iRR_TT_L.bmp` (reference, kind, level), `mos_with_names.txt`
    (a line is a score and a name) and `mos_std.txt` (a standard deviation per line, the same
    order). Names mix `i` and `I`, `.bmp` and `.BMP`, in the table and on disk; they are lower case
    here, and files are found in any case.

    MOS: 0 to 9, higher is better (0.24 to 7.21 occur). Standard deviation: `mos_std.txt`.
    Reference: number in the name. Level: 1 to 5, the number in the name; for local blocks and
    contrast change a higher one does not look worse. No official split. Licence: education and
    research only, without fee, the notice stays. Home: https://www.ponomarenko.info/tid2013.htm
    Citation: N. Ponomarenko et al., "Image database TID2013: Peculiarities, results and
    perspectives", Signal Processing: Image Communication 30, 2015,
    https://doi.org/10.1016/j.image.2014.10.009 Format: as documented. The two text files were not
    at hand; the tests write `mos_with_names.txt` from two published copies of its contents.

    Args:
        root: the folder with the text files and `distorted_images`.
        options: see `IQADataModule`.
    """

    native_range = (0.0, 9.0)
    native_higher_is_better = True
    home: ClassVar[str] = "https://www.ponomarenko.info/tid2013.htm"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def read_table(self) -> pd.DataFrame:
        """The 3,000 distorted images, in the order of the table.

        Raises:
            ValueError: a table is missing, damaged or of another length than the other, or an image
                is not named as documented.
        """
        rows = self.read_text(
            "mos_with_names.txt", ("mos", "name"), ("mos",), header=False, sep=r"\s+"
        )
        deviations = self.read_text("mos_std.txt", ("mos_std",), ("mos_std",), header=False)
        if len(rows) != len(deviations):
            raise ValueError(
                f"data set {self.name!r}: {self.root} has {len(rows)} scores in "
                "mos_with_names.txt and "
                f"{len(deviations)} in mos_std.txt; get both again from {self.home}"
            )
        names = rows["name"].str.lower()
        table = self.read_file(
            "mos_with_names.txt", lambda _: parse_names(list(names), DISTORTIONS)
        )
        return table.assign(
            image="distorted_images/" + names, mos=rows["mos"], mos_std=deviations["mos_std"]
        )
