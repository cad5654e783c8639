"""SPAQ (Smartphone Photography Attribute and Quality): photographs of 66 smartphones."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from iqa_lightning.datasets.release import Release, read_workbook, select

TABLE = "Annotations/MOS and Image attribute scores.xlsx"


class SPAQ(Release):
    """SPAQ: 11,125 smartphone photographs with authentic distortions, rated in the laboratory.

    Official layout: `TestImage/NNNNN.jpg` and the workbook `Annotations/MOS and Image attribute
    scores.xlsx` (first sheet: Image name, MOS, Brightness, Colorfulness, Contrast, Noisiness,
    Sharpness).

    MOS: 0 to 100, higher is better (2 to 96 occur). Standard deviation: not published. No
    references: every image is a content of its own. No official split. Licence: education and
    research only, without fee, the notice stays (`Readme.txt` of the release). Home:
    https://github.com/h4nwei/SPAQ Citation: Y. Fang, H. Zhu, Y. Zeng, K. Ma and Z. Wang,
    "Perceptual Quality Assessment of Smartphone Photography", CVPR 2020,
    https://doi.org/10.1109/CVPR42600.2020.00373 Format: checked against the official table, `MOS
    and Image attribute scores.xlsx`.

    Args:
        root: the folder with `Annotations` and `TestImage`.
        options: see `IQADataModule`.
    """

    native_range = (0.0, 100.0)
    native_higher_is_better = True
    home: ClassVar[str] = "https://github.com/h4nwei/SPAQ"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def read_table(self) -> pd.DataFrame:
        """The 11,125 images, in the order of the table.

        Raises:
            ValueError: the table is missing or damaged.
        """
        rows = self.read_file(
            TABLE,
            lambda path: select(read_workbook(path), ("Image name", "MOS"), ("MOS",)),
        )
        return pd.DataFrame(
            {"image": "TestImage/" + rows["Image name"].astype(str), "mos": rows["MOS"]}
        )
