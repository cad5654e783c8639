"""LIVE In the Wild Image Quality Challenge Database (CLIVE): authentic distortions, photographs
from many cameras.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.io import loadmat

from iqa_lightning.datasets.release import Release

# "the first seven images are training images": the phase that teaches the raters, README of the
# release.
TRAINING_IMAGES = 7


class CLIVE(Release):
    """LIVE in the Wild: 1,162 photographs with authentic distortions, rated by the crowd.

    Official layout: `Images/*.{bmp,JPG}` (some `.bmp` files may have a palette),
    `Images/trainingImages/` (seven images that teach the raters; they are not used), and three
    MATLAB files in `Data/` of 1,169 entries in one order, the first seven of which belong to the
    training images: `AllImages_release.mat` (names), `AllMOS_release.mat` and
    `AllStdDev_release.mat` (standard deviation of the raw ratings).

    MOS: 0 to 100, higher is better (3.42 to 92.43 occur). No references: every image is a content
    of its own. Licence: notice of the University of Texas at Austin; any purpose, the notice stays,
    the source is acknowledged. Home: http://live.ece.utexas.edu/research/ChallengeDB/index.html
    Citation: D. Ghadiyaram and A. C. Bovik, "Massive Online Crowdsourced Study of Subjective and
    Objective Picture Quality", IEEE Transactions on Image Processing 25(1), 2016,
    https://doi.org/10.1109/TIP.2015.2500021 Format: checked against the official tables, the three
    MATLAB files, and the images.

    Args:
        root: the folder `ChallengeDB_release`.
        options: see `IQADataModule`.
    """

    native_range = (0.0, 100.0)
    native_higher_is_better = True
    home: ClassVar[str] = "http://live.ece.utexas.edu/research/ChallengeDB/index.html"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def read_table(self) -> pd.DataFrame:
        """The 1,162 rated images, in the order of the release.

        Raises:
            ValueError: a file of the release is missing, damaged, or of another length than the
                others.
        """
        names = [str(np.squeeze(cell)) for cell in self._values("AllImages")]
        mos, deviation = (self._values(key).astype(np.float64) for key in ("AllMOS", "AllStdDev"))
        if not len(names) == len(mos) == len(deviation):
            raise ValueError(
                f"data set {self.name!r}: the files in {self.root / 'Data'} have {len(names)} "
                f"names, {len(mos)} mos "
                f"and {len(deviation)} standard deviations; get the release again from {self.home}"
            )
        images = [f"Images/{name}" for name in names]
        table = pd.DataFrame({"image": images, "mos": mos, "mos_std": deviation})
        return table.iloc[TRAINING_IMAGES:].reset_index(drop=True)

    def _values(self, key: str) -> NDArray[Any]:
        key = f"{key}_release"
        content: NDArray[Any] = self.read_file(
            f"Data/{key}.mat", lambda path: loadmat(str(path))[key]
        )
        return content.ravel()
