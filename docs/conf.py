"""How Sphinx makes the site: `make docs`. No network is used, neither by the build nor by a page."""

import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402  # beside this file

project = "iqa_lightning"
version = release = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"][
    "version"
]
extensions = ["myst_parser"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
html_theme = "furo"
html_title = f"iqa_lightning {version}"
html_show_copyright = False
html_copy_source = False
html_show_search_summary = False  # a page that was opened from disk may not read another


def without_mermaid(_app: object, _name: str, source: list[str]) -> None:
    """A diagram needs a script from elsewhere: the site shows its arrows as a table."""
    source[0] = re.sub(r"```mermaid\n(.*?)```", as_table, source[0], flags=re.DOTALL)


def as_table(block: re.Match[str]) -> str:
    """Each box of a diagram and where its arrows lead."""
    arrows: dict[str, list[str]] = {}
    for here, count, there in re.findall(r"(\w+) -->\|(\d+)\| (\w+)", block[1]):
        arrows.setdefault(here, []).append(f"`{there}` {count}")
    rows = [f"| `{here}` | {', '.join(there)} |" for here, there in arrows.items()]
    return "\n".join(["| room | imports from |", "|---|---|", *rows])


def setup(app: object) -> None:
    """Called by Sphinx."""
    reference.write(HERE.parent)
    app.connect("source-read", without_mermaid)  # type: ignore[attr-defined]  # an application
