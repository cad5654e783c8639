"""PIPAL, training part: results of image restoration and classical distortions of 200
references.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from iqa_lightning.datasets.release import Release, find_file

LABELS = "Train_Label"


# one folder, or the four archives of the release unpacked side by side
FOLDERS = ("Train_Dist", *(f"Distortion{mark}{n}" for mark in ("_", "") for n in (1, 2, 3, 4)))


class PIPAL(Release):
    """PIPAL, training part: 23,200 images of 200 references, 116 each, rated by the crowd in pairs.

    Official layout: `Train_Label/ARRRR.txt` (a file per reference; a line is
    `ARRRR_KK_VV.bmp,score`: kind and variant), the images in `Train_Dist/` or in the folders
    `Distortion_1` to `Distortion_4` of the four archives, and `Train_Ref/` (not used). The
    validation and test parts are not read.

    MOS: an Elo rating, higher is better; it has no fixed ends, so the declared range only catches
    errors. Standard deviation: not published. Reference: number in the name. Distortion: `kind_KK`,
    00 to 06, which the release does not name. Level: not known. No official split. Licence: none
    found. Home: https://github.com/HaomingCai/PIPAL-dataset Citation: J. Gu et al., "PIPAL: a
    Large-Scale Image Quality Assessment Dataset for Perceptual Image Restoration", ECCV 2020,
    https://doi.org/10.1007/978-3-030-58621-8_37 Format: as documented by public code that reads the
    release; no official table was at hand.

    Args:
        root: the folder with `Train_Label`.
        options: see `IQADataModule`.
    """

    native_range = (500.0, 2500.0)
    native_higher_is_better = True
    home: ClassVar[str] = "https://github.com/HaomingCai/PIPAL-dataset"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def image_path(self, row: int) -> Path:
        """The file of image `row`, in whichever of the folders it lies."""
        name = Path(self.samples.table["image"].iloc[row]).name
        paths = (find_file(self.root, f"{folder}/{name}") for folder in FOLDERS)
        return next((path for path in paths if path.exists()), self.root / FOLDERS[0] / name)

    def read_table(self) -> pd.DataFrame:
        """The images of all labels, in the order of the references.

        Raises:
            ValueError: the labels are missing or damaged, or an image is not named as documented.
        """
        self.check_root()
        labels = sorted(path.name for path in find_file(self.root, LABELS).glob("*.txt"))
        if not labels:
            raise ValueError(
                f"data set {self.name!r}: no *.txt in {self.root / LABELS}; get them from "
                f"{self.home}"
            )
        rows = pd.concat([self._labels(f"{LABELS}/{name}") for name in labels], ignore_index=True)
        parts = rows["name"].str.rsplit(".", n=1).str[0].str.split("_")
        return pd.DataFrame(
            {
                "image": f"{FOLDERS[0]}/" + rows["name"],
                "mos": rows["mos"],
                "reference": parts.str[0],
                "distortion": "kind_" + parts.str[1],
            }
        )

    def _labels(self, source: str) -> pd.DataFrame:
        rows = self.read_text(source, ("name", "mos"), ("mos",), header=False)
        for name in rows["name"]:
            if not re.fullmatch(r"A\d+_\d+_\d+\.\w+", str(name)):
                raise ValueError(
                    f"data set {self.name!r}: {self.root / source} names the image {name!r}, not "
                    f"A<reference>_<kind>_<variant>.bmp; get it again from {self.home}"
                )
        return rows
