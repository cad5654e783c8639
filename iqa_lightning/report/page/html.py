"""A table and its runs as one HTML file that opens from disk and fetches nothing.

The same content gives the same bytes. Texts and tables are written here, the scripts in `page/`
draw the rest from JSON in the page. Plotly's library is kept compressed and unpacked by the
browser, which halves the file.
"""

import base64
import gzip
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from iqa_lightning.files import write_bytes
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.results import RUN, Results, run_row
from iqa_lightning.report.numbers.verdicts import Summary
from iqa_lightning.report.page import tables as page_tables
from iqa_lightning.report.page.gallery import below, gallery
from iqa_lightning.report.page.panels import Key, Predictions, payload
from iqa_lightning.report.page.tables import table
from iqa_lightning.report.text.paper import LEGEND, SYNTHETIC, notes
from iqa_lightning.stream.folders import named_folders

PAGE = Path(__file__).parent


SCRIPTS = ("page.js", "charts.js", "run.js")


NO_RUNS = (
    "This page was made from the stored results alone. The images that were forgotten most and "
    "the weights of the "
    "gates need the predictions of the runs, which were not at hand."
)


def write_page(
    folder: Path,
    results: Results,
    summary: Summary,
    runs: Sequence[tuple[RunFolder, dict[str, Any]]],
    data: str | None = None,
) -> str:
    """Write `dashboard.html` beside a table and say what it holds.

    Args:
        folder: of the table.
        results: the tables of its runs.
        summary: what `verdicts.summarise` made of them.
        runs: run folders with their configs; those that are not of the results are left out.
        data: where the user's data sets lie, for pictures; None: there are none.
    """
    known = {key: run for run in runs if (key := key_of(run[0], results)) is not None}
    predictions = {key: run.predictions() for key, (run, _) in known.items()}
    roots = data_roots([config for _, config in known.values()], data)
    content = page(folder.resolve().name, results, summary, predictions, roots)
    write_bytes(folder / "dashboard.html", content)
    return (
        f"written: {folder / 'dashboard.html'} ({len(content) / 1e6:.1f} MB): {len(results.runs)} "
        "runs, predictions of "
        f"{len(known)}, pictures from {', '.join(roots) or 'no data set'}"
    )


def key_of(folder: RunFolder, results: Results) -> Key | None:
    """The run that a folder holds; None if it is not one of the results: its images, commit or
    seconds are others.
    """
    row, runs = run_row(folder), results.runs.fillna({"git": ""})
    names = [*RUN, "split_hash", "git"]
    same = (runs[names] == [row[name] for name in names]).all(axis=1)
    other = (
        runs["train_seconds"] - row["train_seconds"]
    ).abs() > 1e-5  # stored with six decimals; may be unknown
    return tuple(row[name] for name in RUN) if (same & ~other).any() else None


def data_roots(configs: Sequence[Mapping[str, Any]], data: str | None) -> dict[str, Path]:
    """The folder of each data set of the runs that is there, below the user's folder.

    A run may be a stranger's: its config says what a set is called and where it lies below
    `paths.data`, never where on this machine; a folder of the user's own lies there by its name.

    Args:
        configs: of the runs.
        data: where the user's data sets lie; None: nowhere.
    """
    found: dict[str, Path] = {}
    if data is None:
        return found
    for config in configs:
        for name, task in (config.get("stream", {}).get("tasks") or {}).items():
            root, base = Path(task.get("root") or ""), config.get("paths", {}).get("data")
            if not task.get("root") or base is None or not root.is_relative_to(base):
                continue
            place = below(Path(data), str(root.relative_to(base)))
            if place is not None and place.is_dir():
                found.setdefault(str(name), place)
        folders = config.get("stream", {}).get("folders")
        for name, given in named_folders(folders).items() if folders else ():
            place = below(Path(data), Path(given["root"]).name)
            if place is not None and place.is_dir():
                found.setdefault(name, place)
    return found


def page(
    name: str,
    results: Results,
    summary: Summary,
    predictions: Mapping[Key, Predictions],
    roots: Mapping[str, Path],
) -> bytes:
    """The dashboard of a table.

    Args:
        name: the table.
        results: the tables of its runs.
        summary: what `verdicts.summarise` made of them.
        predictions: those that are at hand, by run.
        roots: the folder of each data set that is at hand.
    """
    data = payload(results, summary, predictions) | gallery(predictions, roots)
    runs, lines = results.runs, summary.lines
    counts = [
        (len(runs), "run"),
        (runs["method"].nunique(), "method"),
        (runs["order"].nunique(), "order"),
    ]
    counts += [(runs["split"].nunique(), "split"), (runs["seed"].nunique(), "seed")]
    parts = {
        "title": html.escape(name),
        "counts": ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in counts),
        "synthetic": f'<p class="warning">{html.escape(SYNTHETIC)}</p>'
        if lines["synthetic"].any()
        else "",
        "missing": "" if predictions else f'<p class="note">{html.escape(NO_RUNS)}</p>',
        "legend": html.escape(" ".join([LEGEND, *notes(summary, str)])).replace("`", ""),
        "overview": table(
            "overview-table", "Means of each method and readout", page_tables.overview(summary)
        ),
        "cost": table("cost-table", "Cost of a run of each method", page_tables.costs(lines)),
        "published": table(
            "published-table", "Published numbers beside ours", page_tables.published(lines)
        ),
        "tests": table(
            "tests-table",
            "Tests over splits between methods",
            page_tables.tests(summary.tests),
        ),
        "variance": table(
            "variance-table", "Standard deviation by source", page_tables.variance(summary.variance)
        ),
        "style": (PAGE / "style.css").read_text(),
        "script": "".join((PAGE / script).read_text() for script in SCRIPTS),
        "plotly": base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode(),
        "data": embedded(data),
    }
    return filled((PAGE / "page.html").read_text(), parts).encode()


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with each `{{name}}` replaced once, whatever the parts themselves hold."""
    pieces = template.split("{{")
    rest = (piece.split("}}", 1) for piece in pieces[1:])
    return pieces[0] + "".join(parts[name] + text for name, text in rest)


def embedded(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
