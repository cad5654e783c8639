"""Tables of scores as files, and how far a command is."""

import io
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

from iqa_lightning.files import write_bytes

SUFFIXES = (".csv", ".parquet", ".json")


def check_output(path: str, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """The place of an output, before any work is done for it.

    Raises:
        ValueError: a suffix that is none of these, or a folder that is not there.
    """
    place = Path(path).expanduser()
    if place.suffix.lower() not in suffixes:
        raise ValueError(
            f"{path} ends in {place.suffix or 'nothing'}: choose {', '.join(suffixes)}"
        )
    if not place.absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {place.absolute().parent}; make it first")
    return place


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as its suffix says, whole or not at all."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        content = table.to_csv(index=False).encode()
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
