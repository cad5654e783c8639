"""LIVE Image Quality Assessment Database, release 2: synthetic distortions of 29 photographs."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.io import loadmat

from iqa_lightning.datasets.release import Release

# Folders in the order of the tables, with their number of images (references included); readme of
# the release.
FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}


DISTORTIONS = {
    "jp2k": "jpeg2000",
    "jpeg": "jpeg",
    "wn": "white_noise",
    "gblur": "gaussian_blur",
    "fastfading": "fast_fading",
}


class LIVE(Release):
    """LIVE, release 2: 779 distorted images of 29 references, five kinds of distortion.

    Official layout (`databaserelease2`): `{jp2k,jpeg,wn,gblur,fastfading}/imgN.bmp`, N from 1, and
    two MATLAB files of 982 entries, folder after folder: `dmos_realigned.mat` (`dmos_new`,
    `dmos_std`, `orgs`, which is 1 for a copy of a reference) and `refnames_all.mat` (file name of
    the reference). The 203 copies of references are left out.

    MOS: max(DMOS) - DMOS over the distorted images, so that higher is better (0 to 114.41 occur).
    Standard deviation: of the realigned DMOS. Level: not known (the release gives bit rates and
    filter widths). Reference: name of the picture. No official split. Licence: notice of the
    University of Texas at Austin; any purpose, the notice stays, the source is acknowledged. Home:
    https://live.ece.utexas.edu/research/quality/subjective.htm Citation: H. R. Sheikh, M. F. Sabir
    and A. C. Bovik, "A Statistical Evaluation of Recent Full Reference Image Quality Assessment
    Algorithms", IEEE Transactions on Image Processing 15(11), 2006,
    https://doi.org/10.1109/TIP.2006.881959 Format: as documented. The MATLAB files were not at
    hand; the tests write them from a published text copy of the scores, and the converted scores
    are those of LIQE's lists.

    Args:
        root: the folder `databaserelease2`.
        options: see `IQADataModule`.
    """

    native_range = (0.0, 120.0)
    native_higher_is_better = False
    home: ClassVar[str] = "https://live.ece.utexas.edu/research/quality/subjective.htm"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def read_table(self) -> pd.DataFrame:
        """The 779 distorted images, in the order of the release.

        Raises:
            ValueError: a file of the release is missing, damaged, or of another length than 982.
        """
        table = pd.DataFrame(
            [
                (f"{folder}/img{n}.bmp", DISTORTIONS[folder])
                for folder, count in FOLDERS.items()
                for n in range(1, count + 1)
            ],
            columns=["image", "distortion"],
        )
        scores, names = "dmos_realigned.mat", "refnames_all.mat"
        table["reference"] = [
            str(np.squeeze(cell)).rsplit(".", 1)[0] for cell in self._values(names, "refnames_all")
        ]
        table["mos_std"] = self._values(scores, "dmos_std").astype(np.float64)
        dmos = pd.Series(self._values(scores, "dmos_new").astype(np.float64))
        distorted = self._values(scores, "orgs") == 0
        table["mos"] = dmos[distorted].max() - dmos
        kept: pd.DataFrame = table[distorted].reset_index(drop=True)
        return kept

    def _values(self, name: str, key: str) -> NDArray[Any]:
        values: NDArray[Any] = self.read_file(name, lambda path: loadmat(str(path))[key]).ravel()
        if len(values) != sum(FOLDERS.values()):
            raise ValueError(
                f"data set {self.name!r}: {key} in {self.root / name} has {len(values)} entries "
                "instead of "
                f"{sum(FOLDERS.values())}; get release 2 from {self.home}"
            )
        return values
