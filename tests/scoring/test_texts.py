"""Names of files in tables that a spreadsheet opens."""

import csv
from pathlib import Path

import pandas as pd

from iqa_lightning.scoring.images import find_images
from iqa_lightning.scoring.tables import write_table
from tests.datasets.folders import noise


def test_no_name_is_a_formula_and_the_list_is_read_back(tmp_path: Path) -> None:
    names = ["=1+1.png", "+a.png", "-b.png", "@c.png", "plain.png"]
    for name in names:
        noise(0).save(tmp_path / name)
    table = pd.DataFrame({"image": names, "score": -1.5, "error": ""})
    write_table(table, tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [*(f"'{name}" for name in names[:-1]), "plain.png"]
    assert {row["score"] for row in rows} == {"-1.5"}, "numbers are numbers"
    assert find_images(str(tmp_path / "scores.csv")) == [str(tmp_path / name) for name in names]
    write_table(table, tmp_path / "scores.json")
    assert pd.read_json(tmp_path / "scores.json")["image"].tolist() == names
