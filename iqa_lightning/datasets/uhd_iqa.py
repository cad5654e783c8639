"""UHD-IQA: photographs of high quality, 3,840 pixels wide."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from iqa_lightning.datasets.release import Release

PARTS = {"training": "train", "validation": "val", "test": "test"}


class UHDIQA(Release):
    """UHD-IQA: 6,073 photographs with authentic distortions, rated twice by ten experts.

    Official layout (`UHD-IQA-database`): `{training,validation,test}/*.jpg` and
    `uhd-iqa-metadata.csv` (image_name, quality_mos and set among others).

    MOS: 0 to 1, higher is better. Standard deviation: not published. No references: every image is
    a content of its own. Official split: column `set`, 4,269 / 904 / 900. Licence: photographs of
    Pixabay, CC0. Home: https://database.mmsp-kn.de/uhd-iqa-benchmark-database.html Citation: V.
    Hosu, L. Agnolucci, O. Wiedemann, D. Iso and D. Saupe, "UHD-IQA Benchmark Database: Pushing the
    Boundaries of Blind Photo Quality Assessment", ECCV Workshops 2024,
    https://arxiv.org/abs/2406.17472 Format: as documented by the readme of the release; the
    official table was not at hand.

    Args:
        root: the folder `UHD-IQA-database`.
        options: see `IQADataModule`.
    """

    native_range = (0.0, 1.0)
    native_higher_is_better = True
    home: ClassVar[str] = "https://database.mmsp-kn.de/uhd-iqa-benchmark-database.html"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def default_name(self) -> str:
        """The name of its configuration."""
        return "uhd_iqa"

    def read_table(self) -> pd.DataFrame:
        """The 6,073 images, in the order of the table.

        Raises:
            ValueError: the table is missing or damaged.
        """
        rows = self.read_text(
            "uhd-iqa-metadata.csv", ("image_name", "quality_mos", "set"), ("quality_mos",)
        )
        return pd.DataFrame(
            {
                "image": rows["set"] + "/" + rows["image_name"],
                "mos": rows["quality_mos"],
                "official": rows["set"].replace(PARTS),
            }
        )
