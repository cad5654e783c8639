"""The dashboard: what it is made of, and what it does in a real browser without a network."""

import base64
import gzip
import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs
from scipy import stats

from iqa_lightning.records import RunFolder
from iqa_lightning.report.html import data_roots, write_page
from iqa_lightning.report.page_tables import Cell, Column, table
from iqa_lightning.report.sweep import collect, read_results, write_results
from iqa_lightning.report.verdicts import read_published, summarise
from tests.test_reproduce import HEADER, ORDER, write_run

EVIL = '</script><img src=x onerror="boom()">&<b>'
METHODS = ("tsn_iqa", "sh_cl", "mh_cl")


def with_gate(folder: RunFolder) -> None:
    """Give a run an oracle and the weights of a gate: 0.7 to its own head, the rest to the others alike."""
    tasks = list(folder.predictions())
    for t, (task, frame) in enumerate(folder.predictions().items()):
        learnt = tasks[1 : t + 1]
        for head in learnt:
            share = 0.3 / max(len(learnt) - 1, 1)
            frame[f"gate/{head}"] = np.where(frame["dataset"] == head, 0.7, share)
        folder.write_predictions(t, task, frame.assign(oracle=frame["gated"] + 0.01 * frame["mos"]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Three methods, two orders, two splits; the runs of one method have a gate, one image has a wicked name."""
    output = tmp_path_factory.mktemp("outputs")
    made = []
    for method in METHODS:
        for order in (ORDER, ORDER[::-1]):
            for split in (1, 2):
                made.append(write_run(output, method, order, split, noise=10 if method == "tsn_iqa" else 40))
                if method == "tsn_iqa":
                    with_gate(made[-1])
    for run in made:
        for t, (task, frame) in enumerate(run.predictions().items()):
            row = frame.index[(frame["dataset"] == "noise") & (frame["split"] == "test")][0]
            frame.loc[row, "image"] = EVIL
            if task == run.read_summary()["order"][-1]:  # forgotten by all
                readouts = [name for name in ("single", "latest", "gated", "oracle") if name in frame]
                frame.loc[row, readouts] = 1e6 if frame.loc[row, "mos"] < 50 else -1e6
            run.write_predictions(t, task, frame)
    return made


@pytest.fixture(scope="module")
def folder(runs: list[RunFolder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of these runs, with its page."""
    home = tmp_path_factory.mktemp("experiments") / "tiny"
    home.mkdir()
    (home / "published.csv").write_text(f"{HEADER}\nsh_cl,single,,mSRCC,0.5,a <paper>,second-hand\n")
    write_results(home / "results", collect(runs, 50))
    write(home, runs)
    return home


def naive(run: RunFolder, readout: str) -> tuple[np.ndarray, np.ndarray]:
    """SRCC and stability matrices by scipy, data sets in the order in which they are learnt."""
    frames = {task: frame[frame["split"] == "test"] for task, frame in run.predictions().items()}
    tasks = list(frames)
    srcc, stability = np.full((2, len(tasks), len(tasks) - 1), np.nan)
    for t, frame in enumerate(frames.values()):
        for d, name in enumerate(tasks[1:]):
            rows = frame[frame["dataset"] == name]
            srcc[t, d] = stats.spearmanr(rows[readout], rows["mos"]).statistic
            if t > d + 1:
                just = frames[name].loc[rows.index, readout]
                stability[t, d] = stats.spearmanr(rows[readout], just).statistic
    return srcc, stability


def write(home: Path, runs: list[RunFolder], config: dict[str, Any] | None = None) -> str:
    results = read_results(home / "results")
    summary = summarise(results, read_published(home / "published.csv"))
    return write_page(home, results, summary, [(run, config or {}) for run in runs])


def text_of(home: Path) -> str:
    return (home / "dashboard.html").read_text()


def data_of(text: str) -> dict[str, Any]:
    """The JSON in the page, as a browser's HTML parser would cut it out."""
    return dict(json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>", 1)[0]))


def test_the_page_is_one_small_file_that_names_no_place_to_fetch_from(folder: Path, runs: list[RunFolder]) -> None:
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


def test_matrices_in_the_page_are_those_of_the_predictions(folder: Path, runs: list[RunFolder]) -> None:
    found = {(run["method"], run["order"], run["split"]): run for run in data_of(text_of(folder))["runs"]}
    assert len(found) == len(runs) == 12
    for folder_of_run in runs:
        summary = folder_of_run.read_summary()
        run = found[summary["method"], ">".join(summary["order"]), summary["split"]]
        assert run["after"] == ["start", *run["datasets"]] == ["start", *summary["order"]]
        for readout, shown in run["readouts"].items():
            for kind, matrix in zip(("srcc", "stability"), naive(folder_of_run, readout), strict=True):
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
    head, *rows = [["".join(cell.itertext()) for cell in row] for row in fromstring(text[0]).iter("tr")]
    values = pd.read_csv(folder / "results" / "measures.csv")
    mine = values[(values["method"] == "sh_cl") & (values["measure"] == "msrcc")]["value"]
    (row,) = (row for row in rows if row[:2] == ["sh_cl", "single"])
    assert row[head.index("mSRCC ↑")].startswith(f"{mine.mean():.3f} ±")
    assert "forgetting ↓" in head
    assert len(rows) == 3 + 1 + 2  # readouts of the three methods


def test_without_run_folders_the_page_says_what_is_left_out(folder: Path, runs: list[RunFolder]) -> None:
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


def test_a_folder_that_holds_another_run_is_left_out(folder: Path, runs: list[RunFolder], tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "tiny")
    other = write_run(tmp_path, "sh_cl", ORDER)
    other.write_summary({"cost": other.read_summary()["cost"] | {"train_seconds": 99.0}})
    assert "predictions of 1," in write(tmp_path / "tiny", [other, runs[0]])


def test_roots_follow_data_sets_that_were_moved(tmp_path: Path) -> None:
    (tmp_path / "new" / "blur").mkdir(parents=True)
    tasks = {"blur": {"root": "old/blur"}, "noise": {"root": "old/noise"}, "demo": {}}
    config = {"stream": {"tasks": tasks}, "paths": {"data": "old"}}
    assert data_roots([config], None) == {}
    assert data_roots([config], str(tmp_path / "new")) == {"blur": tmp_path / "new" / "blur"}


# In a browser. One is started for all of these.

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(browser: Any, folder: Path) -> tuple[Open, list[str]]:
    """Opens the page once for each width and scheme; with everything that was said on a console or fetched."""
    noticed: list[str] = []
    found: dict[tuple[int, str], Any] = {}

    def open_page(width: int = 1280, scheme: str = "light") -> Any:
        if (width, scheme) not in found:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = found[width, scheme] = context.new_page()
            page.on("console", lambda message: noticed.append(message.text))
            page.on("pageerror", lambda error: noticed.append(str(error)))
            page.on("request", lambda request: noticed.append(request.url))
            page.goto((folder / "dashboard.html").as_uri())
            page.wait_for_selector("html[data-ready]", timeout=30_000)
        return found[width, scheme]

    return open_page, noticed


@pytest.fixture
def opened(pages: tuple[Open, list[str]], folder: Path) -> Iterator[Open]:
    """Opens the page; at the end nothing was said on the console, and nothing fetched but the page."""
    yield pages[0]
    assert {text for text in pages[1] if not text.startswith("data:")} == {(folder / "dashboard.html").as_uri()}


def heat(page: Any, name: str) -> list[list[float | None]]:
    """What a heat map shows."""
    return list(page.evaluate(f"document.getElementById('plot-{name}').data[0].z"))


@pytest.mark.slow
def test_the_slider_moves_the_heat_maps(opened: Open, runs: list[RunFolder]) -> None:
    page = opened()
    page.select_option("#method", "tsn_iqa")
    page.select_option("#split", "split 2, seed 0")
    page.select_option("#readout", "gated")
    run = next(run for run in runs if "tsn_iqa/compression" in str(run.path) and "split2" in str(run.path))
    matrix, stability = naive(run, "gated")
    page.focus("#step")
    page.keyboard.press("End")
    np.testing.assert_allclose(np.array(heat(page, "srcc"), float), matrix, atol=6e-5)
    for t in (3, 2):
        page.keyboard.press("ArrowLeft")
        shown = np.array(heat(page, "srcc"), float)
        np.testing.assert_allclose(shown[: t + 1], matrix[: t + 1], atol=6e-5)
        assert np.isnan(shown[t + 1 :]).all()
        stable = np.array(heat(page, "stability"), float)
        np.testing.assert_allclose(stable[: t + 1], stability[: t + 1], atol=6e-5)
    assert page.inner_text("#step-name") == "2 of 4, after blur"
    gate = np.array(heat(page, "gate"), float)
    np.testing.assert_allclose(gate[:2, :2], [[0.7, 0.3], [0.3, 0.7]], atol=1e-4)
    page.select_option("#method", "sh_cl")
    assert page.is_hidden("#plot-gate")
    assert page.is_hidden("#plot-regret")


@pytest.mark.slow
def test_the_mean_of_runs_is_their_mean(opened: Open, runs: list[RunFolder]) -> None:
    page = opened()
    page.select_option("#method", "sh_cl")
    page.select_option("#order", ">".join(ORDER[::-1]))
    page.focus("#step")
    page.keyboard.press("End")
    chosen = [run for run in runs if "sh_cl/tone" in str(run.path)]
    mean = np.mean([naive(run, "single")[0] for run in chosen], axis=0)
    page.select_option("#split", "")
    assert page.inner_text("#split option:checked") == "mean of 2 runs"
    np.testing.assert_allclose(np.array(heat(page, "srcc"), float), mean, atol=1e-4)


@pytest.mark.slow
def test_columns_sort_by_click_and_by_key(opened: Open) -> None:
    page = opened()
    heading = page.locator("#overview-table thead th", has_text="mSRCC")

    def column() -> list[float]:
        place = heading.evaluate("th => th.cellIndex")
        cells = page.locator(f"#overview-table tbody tr :nth-child({place + 1})")
        return [float(text.split()[0]) for text in cells.all_inner_texts() if text.strip()]

    before = column()
    heading.locator("button").click()
    assert column() == sorted(before, reverse=True) != before  # higher is better, so the best comes first
    assert heading.get_attribute("aria-sort") == "descending"
    heading.locator("button").press("Enter")
    assert column() == sorted(before)
    assert heading.get_attribute("aria-sort") == "ascending"
    name = page.locator("#overview-table thead th", has_text="method")
    name.locator("button").press("Space")
    assert page.locator("#overview-table tbody tr th").all_inner_texts() == sorted(
        ["tsn_iqa"] * 3 + ["sh_cl"] + ["mh_cl"] * 2
    )
    assert heading.get_attribute("aria-sort") is None


@pytest.mark.slow
def test_a_phone_scrolls_tables_and_not_the_page(opened: Open) -> None:
    page = opened(width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = page.locator(".scroll").first
    assert box.evaluate("box => box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX === 'auto'")
    for plot in page.locator(".plot:visible").all():
        assert plot.evaluate("plot => plot.getBoundingClientRect().right <= 390")
        assert plot.locator("svg.main-svg").first.evaluate("svg => svg.getBoundingClientRect().right <= 391")


def colours(page: Any) -> tuple[str, str]:
    """Of the page's ground and of a chart's letters."""
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return ground, page.evaluate("document.getElementById('plot-srcc').layout.font.color")


def luminance(colour: str) -> float:
    """Relative luminance of rgb(...), WCAG 2.2."""
    parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.slow
def test_light_and_dark(opened: Open) -> None:
    light, dark = opened(scheme="light"), opened(scheme="dark")
    day, night = colours(light), colours(dark)
    assert luminance(day[0]) > 0.8
    assert luminance(night[0]) < 0.05
    for ground, ink in (day, night):
        high, low = sorted([luminance(ground), luminance(ink)], reverse=True)
        assert (high + 0.05) / (low + 0.05) > 7
    light.click("#theme")
    assert colours(light) == night
    assert light.get_attribute("#theme", "aria-pressed") == "true"
    light.click("#theme")
    assert colours(light) == day


@pytest.mark.slow
def test_measures_orders_and_images_can_be_chosen(opened: Open, folder: Path) -> None:
    page = opened()
    page.select_option("#measure", "msi")
    values = pd.read_csv(folder / "results" / "measures.csv")
    mine = values[(values["measure"] == "msi") & (values["method"] == "sh_cl")]
    expected = sorted(mine.groupby("order")["value"].mean())
    traces = page.evaluate("document.getElementById('plot-orders').data.map(trace => [trace.y[0], trace.x])")
    assert dict(traces)["sh_cl"] == pytest.approx(expected, abs=1e-4)
    assert len(page.evaluate("document.getElementById('plot-ranks').data")) == 3
    page.select_option("#measure", "forgetting")
    assert page.is_hidden("#plot-ranks")
    assert "Lower is better" in page.inner_text("#compared")
    page.select_option("#images-method", "mh_cl")
    page.select_option("#images-dataset", "noise")
    assert EVIL in page.locator("#gallery b").all_inner_texts()
    assert page.locator("#gallery p").first.inner_text().startswith("noise")
    assert page.locator("#gallery img").count() == 0


@pytest.mark.slow
def test_every_control_and_heading_has_a_name(opened: Open) -> None:
    page = opened()
    nameless = """[...document.querySelectorAll('select, input, button')]
        .filter(e => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).length"""
    assert page.evaluate(nameless) == 0
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    ids = page.evaluate("[...document.querySelectorAll('main [id], header [id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
