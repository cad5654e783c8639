"""The page of scores in a real browser, without a network."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iqa_lightning import score
from iqa_lightning.scoring.words import read_words

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=alert(1)>&.png"
ENDS = "</script><script>alert(1)</script>.png"  # no such file


@pytest.fixture(scope="module")
def page(
    bundle: Path, places: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    tmp = tmp_path_factory.mktemp("page")
    folder = tmp / "pictures"
    folder.mkdir()
    for i, place in enumerate(places):
        for file in sorted(place.glob("images/*.png"))[:6]:
            shutil.copy(file, folder / f"{i}{file.name}")
    shutil.copy(file, folder / EVIL)
    (folder / "broken.png").write_bytes(b"no picture")
    given = {
        "run": bundle,
        "images": [str(folder), ENDS],
        "output": tmp / "s.csv",
        "report": tmp / "p.html",
    }
    assert score.main(read_words("score", []) | given) == 3
    noticed: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        opened = browser.new_page()
        opened.on("console", lambda message: noticed.append(message.text))
        opened.on("pageerror", lambda error: noticed.append(str(error)))
        opened.on("dialog", lambda dialog: noticed.append(dialog.message))
        opened.on("request", lambda request: noticed.append(request.url))
        opened.goto((tmp / "p.html").as_uri())
        opened.wait_for_selector("html[data-ready]")
        yield opened
        browser.close()
    assert [text for text in noticed if not text.startswith("data:")] == [(tmp / "p.html").as_uri()]


def scores(page: Any) -> list[float]:
    """The scores as they stand on the page."""
    return [float(text) for text in page.locator("figcaption b").all_inner_texts()]


def test_sorted_filtered_and_escaped(page: Any) -> None:
    assert page.locator("figure").count() == 15
    shown = scores(page)
    assert len(shown) == 13
    assert shown == sorted(shown, reverse=True)
    page.select_option("#sort", "up")
    assert scores(page) == sorted(shown)
    assert page.get_by_text("onerror").count() == 1  # a name, no element
    assert page.locator("figure img").count() == 13
    widths = "[...document.querySelectorAll('figure img')].map(i => i.naturalWidth)"
    assert min(page.evaluate(widths)) > 30
    page.select_option("#task", "a")
    assert 0 < page.locator("figure").count() < 15
    assert all(", a" in text for text in page.locator("figcaption").all_inner_texts())
    page.select_option("#task", "")
    page.select_option("#outside", "error")
    assert page.locator("figure").count() == 2
    assert "not a readable image" in page.locator("figure").first.inner_text()
    assert ENDS in page.locator("figure").last.inner_text()
    page.select_option("#outside", "in")
    inside = page.locator("figure").count()
    page.select_option("#outside", "out")
    assert page.locator("figure").count() == 13 - inside
    page.select_option("#outside", "")
    assert page.locator("#count").inner_text() == "15 of 15 pictures"
