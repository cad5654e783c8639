"""BID (Blurred Image Database): photographs with real blur."""

import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xlrd

from iqa_lightning.datasets.release import Release, check_workbook, select

IMAGE, MOS, GRADE = "Image Number", "Average Subjective Grade", "Grade #"


class BID(Release):
    """BID: 586 photographs with realistic blur, rated in the laboratory.

    Official layout: `ImageDatabase/DatabaseImageNNNN.JPG` (numbers with gaps) and
    `DatabaseGrades.xls`, whose first sheet has a header and the columns `Image Number`, `Average
    Subjective Grade`, `Number of Grades` and `Grade #1` to `Grade #20`, blank where there was no
    grade.

    MOS: 0 to 5, higher is better (0.16 to 4.92 occur). Standard deviation: of the grades that are
    there (sample standard deviation, n - 1). No references: every image is a content of its own. No
    official split. Licence: none found. Home: http://www02.smt.ufrj.br/~eduardo/ImageDatabase.htm
    Citation: A. Ciancio et al., "No-Reference Blur Assessment of Digital Pictures Based on
    Multifeature Classifiers", IEEE Transactions on Image Processing 20(1), 2011,
    https://doi.org/10.1109/TIP.2010.2053549 Format: checked against the official table
    `DatabaseGrades.xls`.

    Args:
        root: the folder with `DatabaseGrades.xls` and `ImageDatabase`.
        options: see `IQADataModule`.
    """

    native_range = (0.0, 5.0)
    native_higher_is_better = True
    home: ClassVar[str] = "http://www02.smt.ufrj.br/~eduardo/ImageDatabase.htm"

    def __init__(self, root: str | Path, **options: Any) -> None:
        super().__init__(root, **options)

    def read_table(self) -> pd.DataFrame:
        """The 586 images, in the order of the table.

        Raises:
            ValueError: the table is missing or damaged.
        """
        return self.read_file("DatabaseGrades.xls", _parsed)


def _parsed(path: Path) -> pd.DataFrame:
    # pandas is about to drop its reader of .xls, so xlrd is called here
    check_workbook(path)
    book = xlrd.open_workbook(str(path), logfile=io.StringIO())
    header, *rows = book.sheet_by_index(0).get_rows()
    sheet = pd.DataFrame(
        [
            [cell.value if cell.ctype == xlrd.XL_CELL_NUMBER else np.nan for cell in row]
            for row in rows
        ],
        columns=[str(cell.value).strip() for cell in header],
    ).dropna(how="all")
    table = select(sheet, (IMAGE, MOS))
    grades = sheet.filter(like=GRADE)
    return pd.DataFrame(
        {
            "image": [
                f"ImageDatabase/DatabaseImage{int(number):04d}.JPG" for number in table[IMAGE]
            ],
            "mos": table[MOS],
            "mos_std": grades.std(axis=1, ddof=1),
        }
    )
