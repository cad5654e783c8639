"""The dashboard in a real browser, without a network; each page is opened once for all tests."""

import re
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from iqa_lightning.records import RunFolder
from tests.report.page.pages import EVIL, naive, write
from tests.test_reproduce import ORDER

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if path is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(browser: Any, folder: Path) -> tuple[Open, list[str]]:
    """Opens the page once for each width and scheme; with everything that was said on a console or
    fetched.
    """
    noticed: list[str] = []
    found: dict[tuple[int, str], Any] = {}

    def open_page(width: int = 1280, scheme: str = "light") -> Any:
        if (width, scheme) not in found:
            context = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme
            )
            page = found[width, scheme] = context.new_page()
            page.on("console", lambda message: noticed.append(message.text))
            page.on("pageerror", lambda error: noticed.append(str(error)))
            page.on("request", lambda request: noticed.append(request.url))
            page.goto((folder / "dashboard.html").as_uri())
            page.wait_for_selector("html[data-ready]", timeout=120_000)
        return found[width, scheme]

    return open_page, noticed


@pytest.fixture
def opened(pages: tuple[Open, list[str]], folder: Path) -> Iterator[Open]:
    """Opens the page; at the end nothing was said on the console, and nothing fetched but the page."""
    yield pages[0]
    assert {text for text in pages[1] if not text.startswith("data:")} == {
        (folder / "dashboard.html").as_uri()
    }


def heat(page: Any, name: str) -> list[list[float | None]]:
    """What a heat map shows."""
    return list(page.evaluate(f"document.getElementById('plot-{name}').data[0].z"))


@pytest.mark.slow
def test_the_slider_moves_the_heat_maps(opened: Open, runs: list[RunFolder]) -> None:
    page = opened()
    page.select_option("#method", "tsn_iqa")
    page.select_option("#split", "split 2, seed 0")
    page.select_option("#readout", "gated")
    run = next(
        run for run in runs if "tsn_iqa/compression" in str(run.path) and "split2" in str(run.path)
    )
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
    heading = page.locator("#overview-table thead th", has_text=re.compile(r"mSRCC\b"))

    def column() -> list[float]:
        place = heading.evaluate("th => th.cellIndex")
        cells = page.locator(f"#overview-table tbody tr :nth-child({place + 1})")
        return [float(text.split()[0]) for text in cells.all_inner_texts() if text.strip()]

    before = column()
    heading.locator("button").click()
    assert (
        column() == sorted(before, reverse=True) != before
    )  # higher is better, so the best comes first
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
    page = opened(width=390, scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = page.locator(".scroll").first
    assert box.evaluate(
        "box => box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX === 'auto'"
    )
    for plot in page.locator(".plot:visible").all():
        assert plot.evaluate("plot => plot.getBoundingClientRect().right <= 390")
        assert plot.locator("svg.main-svg").first.evaluate(
            "svg => svg.getBoundingClientRect().right <= 391"
        )


LONG = "sh_cl@backbone=tiny,crop=64,finetune.epochs=30,66af3529"
ODD = "a<b>|_&=[x]"

CUT = """() => [...document.querySelectorAll('.plot svg text')].filter(text => {
    const box = text.getBoundingClientRect(), plot = text.closest('.plot').getBoundingClientRect();
    return text.textContent.trim() && box.width && (box.left < plot.left - 1 || box.right > plot.right + 1
        || box.top < plot.top - 1 || box.bottom > plot.bottom + 1);
}).map(text => `${text.closest('.plot').id}: ${text.textContent}`)"""

EMPTY = """() => [...document.querySelectorAll('figure')].filter(card => card.offsetParent
    && !card.querySelector('.plot .main-svg')).map(card => card.textContent)"""

OUTSIDE = """() => [...document.querySelectorAll('.plot')].filter(plot => plot.offsetParent).flatMap(plot => {
    const {xaxis, yaxis} = plot._fullLayout;
    const beyond = (value, axis) => typeof value === 'number'
        && (value < Math.min(...axis.range) || value > Math.max(...axis.range));
    return plot.data.filter(trace => trace.mode?.includes('markers')).flatMap(trace => {
        const high = trace.error_y?.array ?? [], low = trace.error_y?.arrayminus ?? [];
        const ends = trace.y.flatMap((y, i) => y === null ? [] : [y, y + (high[i] ?? 0), y - (low[i] ?? 0)]);
        return [...trace.x.filter(x => beyond(x, xaxis)), ...ends.filter(y => beyond(y, yaxis)),
            ...[...high, ...low].filter(x => x < 0)].map(value => `${plot.id}: ${value}`);
    });
})"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1280])
def test_nothing_is_cut_no_card_is_empty_and_wide_tables_say_so(opened: Open, width: int) -> None:
    page = opened(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for details in page.locator("details").all():
        details.evaluate("part => { part.open = true; }")
    for measure in ("msrcc", "msi", "forgetting", "fwt", "train_seconds"):
        page.select_option("#measure", measure)
        page.wait_for_timeout(200)
        assert page.evaluate(CUT) == [], measure
        assert page.evaluate(EMPTY) == [], measure
        assert page.evaluate(OUTSIDE) == [], measure
    for box in page.locator(".scroll").all():
        wide = box.evaluate("box => box.scrollWidth > box.clientWidth")
        hint = box.evaluate("box => !box.previousElementSibling.hidden")
        assert hint == wide
        assert box.evaluate("box => box.previousElementSibling.textContent").startswith("Wider")
    page.select_option("#measure", "msrcc")


@pytest.mark.slow
def test_a_small_difference_does_not_fill_the_height(opened: Open) -> None:
    """What an axis shows of 0 to 1 stands below it."""
    page = opened()
    page.select_option("#measure", "msrcc")
    for plot, axis in (("means", "x"), ("orders", "x"), ("curves", "y"), ("datasets", "y")):
        low, high = page.evaluate(
            f"document.getElementById('plot-{plot}')._fullLayout.{axis}axis.range"
        )
        assert high - low >= 0.1
        said = page.inner_text(f"#plot-{plot}-axis")
        part = f"The axis shows {low:.2f} to {high:.2f}."
        assert said == ("" if low <= 0 and high >= 1 else part)
    range_of = "values => ranged(values).range"
    low, high = page.evaluate(range_of, [0.590, 0.597])
    assert low == pytest.approx(0.5935 - 0.055)
    assert high == pytest.approx(0.5935 + 0.055)
    assert page.evaluate(range_of, []) is None


@pytest.mark.slow
def test_one_order_has_no_spread_over_orders_and_long_names_are_whole(
    browser: Any, folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "one"
    shutil.copytree(folder / "results", home / "results")
    (home / "published.csv").write_text((folder / "published.csv").read_text())
    for file in (home / "results").glob("*.csv"):
        table = pd.read_csv(file, keep_default_na=False)
        if "order" in table:
            table = table[table["order"] == ">".join(ORDER)]
        table.replace({"sh_cl": LONG, "mh_cl": ODD}).to_csv(file, index=False)
    write(home, [])
    page = browser.new_page(viewport={"width": 500, "height": 900})
    page.goto((home / "dashboard.html").as_uri())
    page.wait_for_selector("html[data-ready]", timeout=120_000)
    assert page.inner_text("#orders-title") == "Spread over runs"
    assert "over task orders" not in page.inner_text("main")
    assert page.evaluate(EMPTY) == []
    assert page.evaluate(CUT) == []
    assert page.evaluate(OUTSIDE) == []
    shown = page.inner_text("#plot-means").replace("\n", "")
    assert LONG in shown
    assert ODD in shown
    heading = page.locator("#overview-table tbody th", has_text=LONG)
    assert heading.evaluate("th => th.getBoundingClientRect().width") < 250
    page.close()


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
    light, dark = opened(scheme="light"), opened(width=390, scheme="dark")
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
    traces = page.evaluate(
        "document.getElementById('plot-orders').data.map(trace => [trace.y[0], trace.x])"
    )
    assert dict(traces)["sh_cl"] == pytest.approx(expected, abs=1e-4)
    assert len(page.evaluate("document.getElementById('plot-ranks').data")) == 3
    page.select_option("#measure", "bwt")
    assert page.is_hidden("#plot-ranks"), "ranks are of the measures that are tested"
    page.select_option("#measure", "forgetting")
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
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.evaluate("document.querySelectorAll('th:not([scope])').length") == 0
    ids = page.evaluate("[...document.querySelectorAll('main [id], header [id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
