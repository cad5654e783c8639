"""BID: the workbook generated and the official one whole."""

from pathlib import Path
from shutil import copy

import numpy as np
import pytest

from iqa_lightning.datasets.bid import BID
from iqa_lightning.images.transforms import View
from tests.datasets.layouts import assert_as_listed, write_bid


def test_generated_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = BID(write_bid(tmp_path / "BID"), view=View(0, 32))
    data.setup()
    table = data.samples.table
    assert data.name == "bid"
    assert list(table["image"].iloc[[0, -1]]) == [
        f"ImageDatabase/DatabaseImage{n}.JPG" for n in ("0003", "0590")
    ]
    assert tuple(table.iloc[0][["mos", "mos_std"]]) == pytest.approx((0.25, 0.1 * 2**0.5))
    assert np.isnan(table["mos_std"].iloc[-1]), "one grade has no deviation"
    assert capsys.readouterr().out == "", "the reader of workbooks must not print"


def test_official_table(shared_data: Path, tmp_path: Path) -> None:
    """Rows copied by hand; the deviations from the grades of images 3 and 590 with numpy."""
    copy(
        shared_data
        / "tables"
        / "unique"
        / "IQA_database"
        / "BID"
        / "splits2"
        / "DatabaseGrades.xls",
        tmp_path,
    )
    table = BID(tmp_path).read_table()
    assert len(table) == 586
    assert (table["mos"].min(), table["mos"].max()) == pytest.approx((0.163806, 4.919752), abs=1e-6)
    found = table.set_index("image")
    grades = [
        0.91488016,
        2.49684752,
        1.89785632,
        1.33039072,
        2.7679696,
        1.4312736,
        1.41235808,
        0.7503152,
        0.0,
        0.0,
    ]
    third = found.loc["ImageDatabase/DatabaseImage0003.JPG"]
    assert tuple(third) == pytest.approx((1.30018912, np.std(grades, ddof=1)))
    last = found.loc["ImageDatabase/DatabaseImage0590.JPG"]
    assert tuple(last) == pytest.approx((2.15618492, 0.843686), abs=1e-6)
    assert_as_listed(table, shared_data, "BID", "bid")
