"""AGIQA-3K: images made by six text-to-image models."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from iqa_lightning.datasets.release import Release


class AGIQA3K(Release):
    """AGIQA-3K: 2,982 images of six generators in up to four settings from 300 prompts, rated in
    the laboratory.

    Official layout: the images (`<generator>_<setting>_NNN.jpg`) and, beside them, `data.csv` of
    the authors' repository (name, prompt, adj1, adj2, style, mos_quality, std_quality, mos_align,
    std_align).

    MOS: `mos_quality`, 0 to 5, higher is better (0 to 4.49 occur); the alignment with the prompt is
    not used. Standard deviation: `std_quality`. Reference: the prompt, since the ten images of a
    prompt show one content. Distortion: generator and setting. No official split. Licence: MIT.
    Home: https://github.com/lcysyzxdxc/AGIQA-3k-Database Citation: C. Li et al., "AGIQA-3K: An Open
    Database for AI-Generated Image Quality Assessment", IEEE Transactions on Circuits and Systems
    for Video Technology 34(8), 2024, https://doi.org/10.1109/TCSVT.2023.3319020 Format: checked
    against the official table `data.csv`; where the images lie is as documented by public code.

    Args:
        root: the folder with `data.csv` and the images.
        options: see `IQADataModule`.
    """

    native_range = (0.0, 5.0)
    native_higher_is_better = True
    home: ClassVar[str] = "https://github.com/lcysyzxdxc/AGIQA-3k-Database"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def read_table(self) -> pd.DataFrame:
        """The 2,982 images, in the order of the table.

        Raises:
            ValueError: the table is missing or damaged.
        """
        rows = self.read_text(
            "data.csv",
            ("name", "prompt", "mos_quality", "std_quality"),
            ("mos_quality", "std_quality"),
        )
        return pd.DataFrame(
            {
                "image": rows["name"],
                "mos": rows["mos_quality"],
                "mos_std": rows["std_quality"],
                "reference": rows["prompt"],
                "distortion": rows["name"].str.rsplit("_", n=1).str[0],
            }
        )
