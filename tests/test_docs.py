"""The pages of the project: links lead somewhere, commands compose, and the site opens in a browser
without a network.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from iqa_lightning.cli import COMMANDS, HERE
from iqa_lightning.new import new
from iqa_lightning.reproduce import overrides
from tests.walks import ROOT

SITE = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "api")
PAGES = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
]
PAGES += [*SITE, *sorted((ROOT / "experiments").rglob("README.md"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(page: Path) -> set[str]:
    """As GitHub and MyST make them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = unquote(target).partition("#")
        found = (page.parent / file).resolve() if file else page
        made = found.parent == ROOT / "docs" / "api"  # by the build
        assert made or found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_tests_that_a_page_names_are_there(page: Path) -> None:
    """A name that ends in dots stands for those that begin so."""
    for file, test in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", page.read_text()):
        if re.search(r"test_(my_set|low_rank|x)\.py", file):  # the reader's own, written by `new`
            continue
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}" in (ROOT / file).read_text(), f"{file}::{test}"


def commands() -> list[str]:
    """Each line of a block of shell, without its comment; of the READMEs of results, which also hold
    recipes with variables of the shell, those of the package.
    """
    lines: dict[str, None] = {}
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.partition("  #")[0].strip()
                recipe = "experiments" in page.parts and not words.startswith("python -m iqa_")
                if words and not recipe and "$" not in words:
                    lines[words] = None
    return list(lines)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `conf` in which the lines with `new` have been obeyed."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "conf", root / "conf")
    shutil.copy(ROOT / "pyproject.toml", root)
    for place in ("methods", "datasets"):
        (root / "tests" / place).mkdir(parents=True)
        (root / "iqa_lightning" / place).mkdir(parents=True)
    for line in commands():
        if found := re.search(r"iqa_lightning\.new (\w+) (\w+)$", line):
            new(found[1], found[2], root)
    return root


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher/")  # as Hydra says of each launcher's file
@pytest.mark.parametrize("line", commands())
def test_a_command_is_one_that_works(line: str, checkout: Path) -> None:
    program, *words = shlex.split(re.sub(r"<[^>]*>", "given", line))
    if program == "make":
        done = subprocess.run(
            ["make", "-n", *words], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stderr
    elif program == "wandb":
        assert words[0] in ("leet", "sync")
    elif program == "python" and words[:2] == ["-m", "pytest"]:
        named = [word for word in words if word.startswith("tests/")]
        assert named
        assert all((ROOT / word).exists() or (checkout / word).exists() for word in named)
    else:
        if program == "python":
            assert words[0] == "-m", line
            program, words = words[1], words[2:]
            assert program.startswith("iqa_lightning."), line
            words.insert(0, program.removeprefix("iqa_lightning."))
        else:
            assert program == "iqa-lightning", line
        check_words(words[0], words[1:], checkout)


def check_words(command: str, words: list[str], checkout: Path) -> None:
    """The words of a command of the package: known keys and choices, as `--cfg job` would say; of a
    sweep its first run.
    """
    assert command in COMMANDS
    if not (HERE / f"{command}.py").is_file():
        pytest.skip(f"this version has no command {command} yet")
    if command == "new":  # obeyed by the fixture
        assert len(words) == 2
        return
    if not (ROOT / "conf" / f"{command}.yaml").is_file():  # no Hydra: its help names the keys
        done = subprocess.run(
            [sys.executable, "-m", f"iqa_lightning.{command}", "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
        assert all(word.partition("=")[0] in done.stdout for word in words)
        return
    if command == "reproduce":  # `diff <run> <run>`
        words = overrides(words)
    for override in OverridesParser.create().parse_overrides([w for w in words if w != "-m"]):
        if override.is_sweep_override():
            first = next(iter(override.sweep_string_iterator()))
            words[words.index(override.input_line)] = f"{override.get_key_element()}={first}"
    with initialize_config_dir(str(checkout / "conf"), version_base="1.3"):
        assert compose(command, [word for word in words if word != "-m"])


def test_the_citation_is_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert project["description"] in cited["title"].replace("continual", "Continual")


class Page(HTMLParser):
    """Where the links of a page lead, and the names of its places."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key in ("href", "src") and value:
                self.links.append(value)
            if key == "id" and value:
                self.ids.add(value)


def broken(site: Path) -> list[str]:
    """Links of the pages that lead to no file or to no place of it."""
    pages = {path: Page(path) for path in site.rglob("*.html")}
    found = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"https?:|data:|mailto:", link):
                continue
            file, _, place = unquote(link).partition("#")
            target = (path.parent / file.partition("?")[0]).resolve() if file else path
            if not target.exists() or (
                place and target in pages and place not in pages[target].ids
            ):
                found.append(f"{path.relative_to(site)}: {link}")
    return found


@pytest.mark.slow
def test_the_site_is_built_and_opens_in_a_browser(tmp_path: Path) -> None:
    """One test, since the site is built once."""
    pytest.importorskip("sphinx", reason="sphinx is not installed (extra docs)")
    site = tmp_path / "site"
    words = ["--fail-on-warning", "--quiet", "-d", str(tmp_path / "kept"), "docs", str(site)]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not broken(site)
    assert {name_of(page) for page in SITE} == {
        f"docs/{path.relative_to(site).with_suffix('.md').as_posix()}"
        for path in site.rglob("*.html")
        if path.parent.name != "api" and path.name not in ("genindex.html", "search.html")
    }
    reference = "".join(path.read_text() for path in (site / "api").glob("*.html"))
    for module in (ROOT / "iqa_lightning").rglob("*.py"):
        name = ".".join(module.relative_to(ROOT / "iqa_lightning").with_suffix("").parts)
        assert module.name == "__init__.py" or f">{name}<a" in reference, name
    browse(site)


def browse(site: Path) -> None:
    """Every kind of page, wide and narrow, light and dark: nothing is fetched from elsewhere, nothing
    is said on the console, no page is wider than its window; the search finds a word.
    """
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    noticed: list[str] = []

    def watch(page: Any) -> None:
        page.on("console", lambda message: noticed.append(message.text))
        page.on("pageerror", lambda error: noticed.append(str(error)))
        page.on("request", lambda request: noticed.append(request.url))

    with driver.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        grounds = set()
        for width, scheme in ((1400, "light"), (500, "dark")):
            window = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme
            )
            page = window.new_page()
            watch(page)
            for name in (
                "index",
                "guide/first-run",
                "methods/lwf_kg",
                "architecture",
                "api/methods",
            ):
                page.goto((site / f"{name}.html").as_uri())
                assert page.locator("h1").count() == 1
                assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.goto(f"{(site / 'search.html').as_uri()}?q=plasticity")
            page.wait_for_selector("ul.search li a", timeout=30_000)
        assert len(grounds) == 2
        browser.close()
    elsewhere = [text for text in noticed if not text.startswith(("file://", "data:"))]
    assert not elsewhere
