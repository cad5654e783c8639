"""CSIQ (Categorical Subjective Image Quality): synthetic distortions of 30 photographs."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from iqa_lightning.datasets.release import Release, read_workbook, select

COLUMNS = ("image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos")


NUMBERS = ("dst_lev", "dmos_std", "dmos")


# distortion in the table -> folder, word in the file name, name here
DISTORTIONS = {
    "noise": ("awgn", "AWGN", "white_noise"),
    "jpeg": ("jpeg", "JPEG", "jpeg"),
    "jpeg2000": ("jpeg2000", "jpeg2000", "jpeg2000"),
    "fnoise": ("fnoise", "fnoise", "pink_noise"),
    "blur": ("blur", "BLUR", "gaussian_blur"),
    "contrast": ("contrast", "contrast", "contrast_change"),
}


class CSIQ(Release):
    """CSIQ: 866 distorted images of 30 references, six kinds of distortion at four or five levels.

    Official layout: `dst_imgs/<distortion>/<reference>.<DISTORTION>.<level>.png` and the workbook
    `csiq.DMOS.xlsx` (sheet `all_by_image`; header in row 4 from column D: image, dst_idx, dst_type,
    dst_lev, dmos_std, dmos). Its text form `csiq.beta.txt` (tab separated, no header, the same
    columns, three decimals) is taken where it is there, since the lists of UNIQUE, BIQA_CL and LIQE
    were made from it.

    MOS: 1 - DMOS, so 0 to 1, higher is better. Standard deviation: of DMOS; 0 for 25 images of the
    text form. In those lists six references carry deviations of others (geckos those of bridge);
    here they are those of the table. Reference: name of the picture. Level: 1 (weakest) to 5. No
    official split. Licence: none found. Home: https://s2.smu.edu/~eclarson/csiq.html Citation: E.
    C. Larson and D. M. Chandler, "Most apparent distortion: full-reference image quality assessment
    and the role of strategy", Journal of Electronic Imaging 19(1), 2010,
    https://doi.org/10.1117/1.3267105 Format: checked against the official tables `csiq.beta.txt`
    and `csiq.beta.xlsx`; `csiq.DMOS.xlsx`, taken to have the same sheet, was not at hand.

    Args:
        root: the folder with `dst_imgs`.
        options: see `IQADataModule`.
    """

    native_range = (0.0, 1.0)
    native_higher_is_better = False
    home: ClassVar[str] = "https://s2.smu.edu/~eclarson/csiq.html"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def read_table(self) -> pd.DataFrame:
        """The 866 distorted images, in the order of the table.

        Raises:
            ValueError: the table is missing, damaged, or names an unknown distortion.
        """
        source = self.first("csiq.beta.txt", "csiq.DMOS.xlsx", "csiq.beta.xlsx")
        if source.endswith("txt"):
            rows = self.read_text(source, COLUMNS, NUMBERS, header=False, sep="\t")
        else:
            rows = self.read_file(source, _workbook)
        # the workbook of some releases writes "jpeg 2000"
        kinds = rows["dst_type"].str.replace(" ", "").str.lower()
        unknown = kinds[~kinds.isin(DISTORTIONS.keys())]
        if len(unknown):
            raise ValueError(
                f"data set {self.name!r}: row {unknown.index[0] + 1} of {self.root / source} "
                "names the distortion "
                f"{unknown.iloc[0]!r}, not one of {', '.join(DISTORTIONS)}; get it again from "
                f"{self.home}"
            )
        folder, word, name = zip(*(DISTORTIONS[kind] for kind in kinds), strict=True)
        files = zip(folder, rows["image"], word, rows["dst_lev"], strict=True)
        return pd.DataFrame(
            {
                "image": [
                    f"dst_imgs/{where}/{image}.{what}.{level:.0f}.png"
                    for where, image, what, level in files
                ],
                "mos": 1 - rows["dmos"],
                "mos_std": rows["dmos_std"],
                "reference": rows["image"],
                "distortion": name,
                "level": rows["dst_lev"],
            }
        )


def _workbook(path: Path) -> pd.DataFrame:
    table = read_workbook(path, "all_by_image", skip=3)
    if "image" in table:  # names of images are numbers, too
        table["image"] = table["image"].map(
            lambda name: f"{name:.0f}" if isinstance(name, float) else str(name)
        )
    return select(table, COLUMNS, NUMBERS)
