"""FLIVE (LIVE-FB, PaQ-2-PiQ): authentic distortions, photographs of social media."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from iqa_lightning.datasets.release import Release, find_file

# test: images with a side of more than 640 pixels; train and val: the others
LARGE, SMALL = "labels>640.csv", "labels<=640_padded.csv"


class FLIVE(Release):
    """FLIVE: 39,810 photographs with authentic distortions, rated by the crowd (whole images, not
    patches).

    Official layout: `database/<collection>/*.jpg`, made by the authors' notebook
    `database_prep.ipynb` from AVA, VOC, EMOTIC and a blur data set, and `labels_image.csv` (columns
    name and mos among others; a name holds the collection), beside `database` or in it.

    MOS: 0 to 100, higher is better. Standard deviation: not published. No references: every image
    is a content of its own. Official split: from the tables `labels>640.csv` (column name_image:
    test) and `labels<=640_padded.csv` (columns name_image and is_valid, which is true for val) in
    the same place; the rest is train. Not known without them. Licence: none found; the photographs
    keep the terms of the collections they come from. Home:
    https://github.com/niu-haoran/FLIVE_Database, https://github.com/baidut/PaQ-2-PiQ Citation: Z.
    Ying et al., "From Patches to Pictures (PaQ-2-PiQ): Mapping the Perceptual Space of Picture
    Quality", CVPR 2020, https://doi.org/10.1109/CVPR42600.2020.00363 Format: as documented by the
    notebook and by public code that reads the tables; no official table was at hand.

    Args:
        root: the folder with `labels_image.csv` and `database`.
        options: see `IQADataModule`.
    """

    native_range = (0.0, 100.0)
    native_higher_is_better = True
    home: ClassVar[str] = "https://github.com/niu-haoran/FLIVE_Database"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def read_table(self) -> pd.DataFrame:
        """The 39,810 images, in the order of the table.

        Raises:
            ValueError: a table is missing or damaged.
        """
        source = self.first("labels_image.csv", "database/labels_image.csv")
        rows = self.read_text(source, ("name", "mos"), ("mos",))
        official = self._official(source.removesuffix("labels_image.csv"))
        return pd.DataFrame(
            {
                "image": "database/" + rows["name"],
                "mos": rows["mos"],
                "official": [
                    official.get(name, "train") if official else "" for name in rows["name"]
                ],
            }
        )

    def _official(self, folder: str) -> dict[str, str]:
        """The official part of each image that is not in train; empty where the tables of the split
        are not there.
        """
        if not any(find_file(self.root, folder + name).is_file() for name in (LARGE, SMALL)):
            return {}
        small = self.read_text(folder + SMALL, ("name_image", "is_valid"))
        valid = small["is_valid"].astype(str).str.lower().isin(("true", "1"))
        parts = dict.fromkeys(small["name_image"][valid], "val")
        return parts | dict.fromkeys(
            self.read_text(folder + LARGE, ("name_image",))["name_image"], "test"
        )
