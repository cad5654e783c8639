"""KonIQ-10k: authentic distortions, photographs of Flickr at 1024x768."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from iqa_lightning.datasets.release import Release

TABLES = ("koniq10k_distributions_sets.csv", "koniq10k_scores_and_distributions.csv")


RATINGS = ["c1", "c2", "c3", "c4", "c5"]


PARTS = {"training": "train", "validation": "val", "test": "test"}


class KonIQ10k(Release):
    """KonIQ-10k: 10,073 photographs with authentic distortions, rated by the crowd.

    Official layout: `1024x768/*.jpg` and one of two tables, the first of which is taken where both
    are there: `koniq10k_distributions_sets.csv` (image_name, c1 to c5 as shares, c_total, MOS, SD,
    set) of the authors' repository or `koniq10k_scores_and_distributions.csv` (the same with counts
    and without `set`) of the home page.

    MOS: 1 to 5, higher is better (1.10 to 4.31 occur), the mean of the ratings c1 to c5; the column
    `MOS` is not read, since it is on another scale (0 to 100) in the first table. Standard
    deviation: `SD`, of the ratings. No references: every image is a content of its own. Official
    split: column `set`, 7,058 / 1,000 / 2,015; not known from the second table. Licence: tables
    MIT; the photographs keep the Creative Commons licences of their authors. Home:
    https://database.mmsp-kn.de/koniq-10k-database.html, https://github.com/subpic/koniq Citation:
    V. Hosu, H. Lin, T. Sziranyi and D. Saupe, "KonIQ-10k: An Ecologically Valid Database for Deep
    Learning of Blind Image Quality Assessment", IEEE Transactions on Image Processing 29, 2020,
    https://doi.org/10.1109/TIP.2020.2967829 Format: checked against the official table
    `koniq10k_distributions_sets.csv`; the other table is as documented.

    Args:
        root: the folder with the table and `1024x768`.
        options: see `IQADataModule`.
    """

    native_range = (1.0, 5.0)
    native_higher_is_better = True
    home: ClassVar[str] = "https://database.mmsp-kn.de/koniq-10k-database.html"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def read_table(self) -> pd.DataFrame:
        """The 10,073 images, in the order of the table.

        Raises:
            ValueError: the table is missing or damaged.
        """
        source = self.first(*TABLES, *(f"metadata/{name}" for name in TABLES))
        with_sets = source.endswith(TABLES[0])
        rows = self.read_text(
            source,
            ["image_name", *RATINGS, "SD", *(["set"] if with_sets else [])],
            [*RATINGS, "SD"],
        )
        shares = rows[RATINGS]
        return pd.DataFrame(
            {
                "image": "1024x768/" + rows["image_name"],
                "mos": shares.mul([1.0, 2.0, 3.0, 4.0, 5.0]).sum(axis=1) / shares.sum(axis=1),
                "mos_std": rows["SD"],
                "official": rows["set"].replace(PARTS) if with_sets else "",
            }
        )
