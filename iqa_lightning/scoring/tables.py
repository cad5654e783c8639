"""Tables of scores as files, and how far a command is."""

import io
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from iqa_lightning.datasets.ratings import cell
from iqa_lightning.files import write_bytes

SUFFIXES = (".csv", ".parquet", ".json")

TEXTS = ("image", "task", "error")
"""Columns with names of files, which a spreadsheet must not calculate."""


def check_output(path: str, suffixes: tuple[str, ...] = SUFFIXES, key: str = "output") -> Path:
    """The place of an output, before any work is done for it.

    Args:
        path: as it was typed.
        suffixes: one of which it has to have.
        key: that says it, for messages.

    Raises:
        ValueError: a suffix that is none of these, or a folder that is not there or not writable.
    """
    place = Path(path).expanduser()
    if place.suffix.lower() not in suffixes:
        raise ValueError(
            f"{key}={path} ends in {place.suffix or 'nothing'}: choose {', '.join(suffixes)}"
        )
    folder = place.parent
    if not folder.is_dir():
        raise ValueError(f"{key}={path}: there is no folder {folder}; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            return place
    except OSError as error:
        raise ValueError(
            f"{key}={path}: nothing can be written in {folder} ({error.strerror}); choose another "
            "place"
        ) from error


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as its suffix says, whole or not at all."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        safe = table.assign(**{name: table[name].map(cell) for name in TEXTS if name in table})
        content = safe.to_csv(index=False).encode()
    elif suffix == ".json":
        content = table.to_json(orient="records", indent=1, double_precision=15).encode()
    else:
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), sink)
        content = sink.getvalue()
    write_bytes(path, content)


@contextmanager
def shown_progress(count: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal with rate and remaining time; elsewhere nothing."""
    console = Console(stderr=True)
    rate = TextColumn("{task.fields[rate]} images/s")
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        rate,
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("scoring", total=count, rate="-")

        def advance(images: int) -> None:
            bar.advance(task, images)
            bar.update(task, rate=f"{bar.tasks[0].speed or 0:.1f}")

        yield advance
