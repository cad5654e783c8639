"""The files of a table that follow from its stored results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iqa_lightning.files import write_bytes
from iqa_lightning.report.details import written_details
from iqa_lightning.report.numbers.published import read_published
from iqa_lightning.report.numbers.results import csv_bytes, read_results
from iqa_lightning.report.numbers.trials import read_trials
from iqa_lightning.report.numbers.verdicts import missing_runs, summarise
from iqa_lightning.report.text.paper import latex, markdown, without_runs


def write_table(
    folder: Path, planned: Sequence[dict[str, Any]], figures: bool = True, chosen: str = ""
) -> str:
    """Write summary, tests, tables, details and figures from `results/*.csv`; the text of table.md.

    Args:
        folder: Of the table.
        planned: The runs that the table should have, by method, order, split and seed.
        figures: Whether to draw.
        chosen: How the values of its rows were chosen.
    """
    name, published = folder.resolve().name, read_published(folder / "published.csv")
    if not (folder / "results" / "runs.csv").is_file() and not published.empty:
        text = without_runs(name, published, planned)
        write_bytes(folder / "table.md", text.encode())
        return f"{text}\nwritten in {folder}: table.md, of published numbers alone"
    results = read_results(folder / "results")
    summary = summarise(results, published)
    for table_name, table in (
        ("summary", summary.lines),
        ("tests", summary.tests),
        ("variance", summary.variance),
    ):
        write_bytes(folder / "results" / f"{table_name}.csv", csv_bytes(table))
    text = markdown(
        name, summary, missing_runs(list(planned), results.runs), chosen, read_trials(folder)
    )
    write_bytes(folder / "table.md", text.encode())
    write_bytes(folder / "table.tex", latex(name, summary).encode())
    written_details(folder, name, results, summary, figures)
    made = [name for name in ("table.md", "details.md", "table.tex") if (folder / name).is_file()]
    return f"{text}\nwritten in {folder}: {', '.join(made)}"
