"""The dashboard as a file: what is in it, what is not, and where it comes from."""

import base64
import gzip
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from plotly.offline import get_plotlyjs

from iqa_lightning.records import RunFolder
from iqa_lightning.report.page.html import data_roots
from iqa_lightning.report.page.tables import Cell, Column, table
from iqa_lightning.reproduce import show
from tests.report.page.pages import EVIL, naive, write
from tests.test_reproduce import HEADER, ORDER, write_run
from tests.walks import ROOT


def text_of(home: Path) -> str:
    return (home / "dashboard.html").read_text()


def data_of(text: str) -> dict[str, Any]:
    """The JSON in the page, as a browser's HTML parser would cut it out."""
    return dict(
        json.loads(
            text.split('<script type="application/json" id="data">')[1].split("</script>", 1)[0]
        )
    )


def test_the_page_is_one_small_file_that_names_no_place_to_fetch_from(
    folder: Path, runs: list[RunFolder]
) -> None:
    first = (folder / "dashboard.html").read_bytes()
    assert len(first) < 3_000_000
    write(folder, runs)
    assert (folder / "dashboard.html").read_bytes() == first
    own = re.sub(r'id="plotly">[^<]*<', "<", text_of(folder))
    assert not re.search(r"https?://|url\(|@import|<link[^>]*href=\"[^d]", own)
    assert "default-src 'none'" in own
    packed = re.search(r'id="plotly">([^<]*)<', text_of(folder))
    assert packed
    assert gzip.decompress(base64.b64decode(packed[1])).decode() == get_plotlyjs()


def test_names_from_data_are_text_wherever_they_are(folder: Path) -> None:
    text = text_of(folder)
    assert EVIL not in text
    assert "<img src=x" not in text
    assert "a &lt;paper&gt;" in text
    assert EVIL in {image["image"] for image in data_of(text)["images"]}
    cell = table("t", EVIL, ([Column(EVIL, EVIL, False)], [[Cell(EVIL, EVIL)]]))
    assert "<img" not in cell
    assert cell.count(html.escape(EVIL)) == 6


def test_matrices_in_the_page_are_those_of_the_predictions(
    folder: Path, runs: list[RunFolder]
) -> None:
    found = {
        (run["method"], run["order"], run["split"]): run for run in data_of(text_of(folder))["runs"]
    }
    assert len(found) == len(runs) == 12
    for folder_of_run in runs:
        summary = folder_of_run.read_summary()
        run = found[summary["method"], ">".join(summary["order"]), summary["split"]]
        assert run["after"] == ["start", *run["datasets"]] == ["start", *summary["order"]]
        for readout, shown in run["readouts"].items():
            for kind, matrix in zip(
                ("srcc", "stability"), naive(folder_of_run, readout), strict=True
            ):
                np.testing.assert_allclose(np.array(shown[kind], float), matrix, atol=6e-5)
        if summary["method"] == "tsn_iqa":
            gate = np.array(run["gate"], float)
            assert gate.shape == (4, 4, 4)
            np.testing.assert_allclose(gate[3], np.where(np.eye(4), 0.7, 0.1), atol=1e-4)
            assert np.isnan(gate[0, :, 1:]).all()
        else:
            assert "gate" not in run


def test_the_overview_holds_the_means(folder: Path) -> None:
    text = re.search(r'<table id="overview-table">.*?</table>', text_of(folder))
    assert text
    head, *rows = [
        ["".join(cell.itertext()) for cell in row] for row in fromstring(text[0]).iter("tr")
    ]
    values = pd.read_csv(folder / "results" / "measures.csv")
    mine = values[(values["method"] == "sh_cl") & (values["measure"] == "msrcc")]["value"]
    (row,) = (row for row in rows if row[:2] == ["sh_cl", "single"])
    assert row[head.index("mSRCC ↑")].startswith(f"{mine.mean():.3f} [")
    assert "forgetting ↓" in head
    assert len(rows) == 3 + 1 + 2  # readouts of the three methods


def test_without_run_folders_the_page_says_what_is_left_out(
    folder: Path, runs: list[RunFolder]
) -> None:
    try:
        assert "predictions of 0" in write(folder, [])
        text = text_of(folder)
        assert "were not at hand" in text
        data = data_of(text)
        assert data["images"] == []
        assert len(data["runs"]) == 12
        assert not any("gate" in run for run in data["runs"])
    finally:
        assert "predictions of 12" in write(folder, runs)
    assert "were not at hand" not in text_of(folder)


def test_a_folder_that_holds_another_run_is_left_out(
    folder: Path, runs: list[RunFolder], tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "tiny")
    other = write_run(tmp_path, "sh_cl", ORDER)
    other.write_summary({"cost": other.read_summary()["cost"] | {"train_seconds": 99.0}})
    assert "predictions of 1," in write(tmp_path / "tiny", [other, runs[0]])


def test_the_command_shows_stored_results_else_the_runs(
    folder: Path, runs: list[RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, output = tmp_path / "tiny", runs[0].path.parents[4]
    home.mkdir()
    (home / "runs.yaml").write_text("experiment: demo\nmethods: [sh_cl]\n")
    (home / "published.csv").write_text(f"{HEADER}\n")
    words = [f"experiments={tmp_path}", "table=tiny", "dashboard=true", "resamples=20"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        show(compose("reproduce", [*words, f"output={output}"]))
        assert "12 runs, predictions of 12" in capsys.readouterr().out
        shutil.copytree(folder / "results", home / "results")
        show(compose("reproduce", [*words, f"output={tmp_path / 'nowhere'}"]))
        assert "12 runs, predictions of 0" in capsys.readouterr().out
        shutil.rmtree(home / "results")
        with pytest.raises(ValueError, match="make the table first"):
            show(compose("reproduce", [*words, f"output={tmp_path / 'nowhere'}"]))


def test_roots_follow_data_sets_that_were_moved(tmp_path: Path) -> None:
    (tmp_path / "new" / "blur").mkdir(parents=True)
    tasks = {"blur": {"root": "old/blur"}, "noise": {"root": "old/noise"}, "demo": {}}
    config = {"stream": {"tasks": tasks}, "paths": {"data": "old"}}
    assert data_roots([config], None) == {}
    assert data_roots([config], str(tmp_path / "new")) == {"blur": tmp_path / "new" / "blur"}


def test_a_strangers_run_names_no_place_of_this_machine(tmp_path: Path) -> None:
    """Roots come from the user; what a record says counts below them alone."""
    data, secret = tmp_path / "data", tmp_path / "secret"
    for folder in (data / "mine", data / "phones", secret):
        folder.mkdir(parents=True)
    given = {
        "absolute": {"root": str(secret)},
        "up": {"root": "data/../secret"},
        "base": {"root": "data/mine"},
    }
    config = {"stream": {"tasks": given}, "paths": {"data": "data"}}
    assert data_roots([config], str(data)) == {"base": data / "mine"}
    config["paths"]["data"] = str(tmp_path)
    assert data_roots([config], str(data)) == {}
    folders = {"a": str(secret), "b": {"root": "/home/them/phones"}, "c": ".."}
    assert data_roots([{"stream": {"folders": folders}}], str(data)) == {"b": data / "phones"}
