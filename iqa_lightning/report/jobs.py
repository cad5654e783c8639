"""Runs as processes of their own: how a sweep and a table start one, what became of it, and the report at the end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iqa_lightning.records import write_bytes

BUSY = 75  # the exit status of a run whose folder another process holds: EX_TEMPFAIL of sysexits.h
SKIPPED = "finished before, nothing trained"  # what such a run says
RANKS = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class BusyError(ValueError):
    """Another process is at work in the run folder."""


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that two processes never write into one run.

    Raises:
        BusyError: another process holds it.
    """
    import fcntl  # noqa: PLC0415  # not on every system

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            # of this process alone: loader workers, which live on a while after a kill, do not inherit it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another process is at work in {folder}: wait for it, or choose another paths.output"
            ) from error
        yield


@dataclass(frozen=True)
class Outcome:
    """What became of a run: `state` is `finished`, `skipped` (it was before), `busy` (elsewhere) or `failed`."""

    state: str
    reason: str
    seconds: float
    log: str
    words: tuple[str, ...]


def train(words: Sequence[str], log: Path, threads: int | None = None) -> Outcome:
    """Start a training as a process of its own and wait for it; all it says goes to `log`.

    A process, so that neither a crash nor what a run leaves in memory reaches the next one, and so that several devices
    work under any launcher: Lightning starts their processes by the command line of this one, which is no sweep, and
    knows nothing of the ranks or the Slurm step that the launcher itself runs in.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {key: value for key, value in os.environ.items() if key not in RANKS and not key.startswith("SLURM_")}
    env |= {"PYTHONUNBUFFERED": "1"} | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    command, start = [sys.executable, "-m", "iqa_lightning.train", *words], monotonic()
    with log.open("w") as file:
        call = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=env, check=False)  # noqa: S603  # ours
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    states = {0: "skipped" if any(SKIPPED in line for line in lines) else "finished", BUSY: "busy"}
    state = states.get(call.returncode, "failed")
    said = lines[-1] if lines else f"it said nothing and ended with status {call.returncode}"
    reason = said if state in ("failed", "busy") else ""
    return Outcome(state, reason, round(monotonic() - start, 1), str(log), tuple(words))


def note(outcome: Outcome, file: Path) -> None:
    """Write an outcome down for the report of its sweep."""
    write_bytes(file, json.dumps(asdict(outcome), indent=2).encode())


def report(folder: Path, console: Console | None = None) -> int:
    """Print what became of the runs of a sweep; how many failed."""
    files = sorted(folder.glob("*.json"), key=lambda file: int(file.stem))
    outcomes = [Outcome(**json.loads(file.read_text())) for file in files]
    words = [set(outcome.words) for outcome in outcomes]
    common = set.intersection(*words) if len(words) > 1 else set()
    table = Table(title=escape(f"sweep of {len(outcomes)} runs: {' '.join(sorted(common))}"), title_justify="left")
    for column in ("state", "s", "run", "reason"):
        table.add_column(column, overflow="fold", justify="right" if column == "s" else "left")
    for outcome in outcomes:
        own = " ".join(word for word in outcome.words if word not in common)
        table.add_row(outcome.state, f"{outcome.seconds:.0f}", escape(own), escape(outcome.reason))
    console, failed = console or Console(), [outcome for outcome in outcomes if outcome.state == "failed"]
    console.print(table)
    for outcome in failed:
        console.print(f"all that it said: {outcome.log}", markup=False, highlight=False, soft_wrap=True)
    return len(failed)
