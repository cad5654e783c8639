"""Runs as processes: the one that trains a run, and what became of it. No torch in here.

A run of a sweep or of a table is a process of its own, `python -m iqa_lightning.train <overrides>`,
whatever asked for it: several devices in it start as they do by hand, a crash takes nothing else
along, and nothing that one run sets (the environment of ranks, wandb, the state of torch) reaches
the next.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from iqa_lightning.runs.folder import (
    BUSY,
    LOG,
    check_config,
    clear_unbegun,
    remove_empty,
    run_names,
    spelt_order,
)
from iqa_lightning.signals import STATUS, check

PARENT = "IQA_LIGHTNING_PARENT"


RANKS = (
    "RANK",
    "LOCAL_RANK",
    "NODE_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)


JOB_STEP = ("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")
"""By these Lightning takes Slurm for the one who starts ranks; here the job is one task, and the
run starts its own.
"""


PAUSE = 2.0
"""Seconds between two looks at the log of a run."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run: `finished`, `skipped` (finished before), `unfinished` (interrupted or
    killed: the same command goes on), `busy` (another process is at it), `failed`.

    `reason` says why for the last three. `folder` is empty where none could be named.
    """

    run: str
    state: str
    reason: str = ""
    folder: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        seconds = f" ({self.seconds:.0f} s)" if self.state == "finished" else ""
        return f"{self.state}: {self.run}{seconds}" + (f": {self.reason}" if self.reason else "")


def run_subprocess(
    config: dict[str, Any],
    choices: Mapping[str, str | None],
    words: Sequence[str],
    env: Mapping[str, str] | None = None,
    more: Sequence[str] = (),
) -> Outcome:
    """Train the run of a config unless it is finished, in a process of its own; go on with it if it
    was interrupted.

    Args:
        config: all of it, references resolved; its order may be a name.
        choices: what was chosen of each config group.
        words: the overrides that compose to `config`.
        env: environment variables to set or change.
        more: further words of its command that say where configs lie.

    Returns:
        What became of it, by its records; no error of the run is raised.
    """
    from iqa_lightning.records import RunFolder  # noqa: PLC0415  # pandas

    start, folder, title = monotonic(), Path(), title_of(config, choices)
    try:
        if config.get("from") is not None:
            raise ValueError("from= extends one run: leave -m out")
        names = run_names(config, choices, words)
        title, folder = " ".join(names[1:]), Path(config["paths"]["output"]).joinpath(*names)
        records = RunFolder(folder)
        order = spelt_order(config["stream"])
        check_config(folder, config | {"stream": config["stream"] | {"order": order}})
        if records.finished:
            return Outcome(title, "skipped", folder=str(folder))
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        status, said = train(
            [*words, *more],
            folder / LOG,
            env or {},
            lambda line: print(f"{title}: {line}", flush=True),
        )
        finished = records.finished
    except (ValueError, OSError) as error:
        return Outcome(
            title, "failed", " ".join(str(error).split()), str(folder) if folder.name else ""
        )
    outcome = what_became(status, said, finished)
    if outcome[0] == "failed" and not records.begun:
        clear_unbegun(folder, LOG)
        remove_empty(made)
        return Outcome(title, *outcome, seconds=monotonic() - start)
    state, reason = outcome
    if state == "failed":
        reason = f"{reason} (all of it in {folder / LOG})"
    return Outcome(title, state, reason, str(folder), monotonic() - start)


def title_of(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> str:
    """What a run is called before it has a folder."""
    given = config["stream"].get("order")
    text = given if isinstance(given, str) else "-".join(map(str, given or ["default"]))
    return f"{choices.get('method')} {text} split{config['split']} seed{config['seed']}"


def what_became(status: int, said: str, finished: bool) -> tuple[str, str]:
    """State and reason of a run, of which the record decides whether it is finished."""
    if finished:
        return "finished", ""
    if status == BUSY:
        return "busy", "another process is at work in its folder"
    if status < 0 or status in STATUS.values():
        return "unfinished", said
    if status == 0:
        return "unfinished", "its process ended well, and its record does not say finished"
    return "failed", said


def train(
    words: Sequence[str],
    log: Path,
    env: Mapping[str, str],
    tell: Callable[[str], None] | None = None,
) -> tuple[int, str]:
    """Run the train command to its end, with its output appended to `log`.

    Whatever ends this function ends the command: SIGTERM, and SIGKILL ten seconds later. If this
    process itself is killed, Linux kills the command too (see `follow_parent`).

    Args:
        words: its overrides.
        log: the file of its output.
        env: environment variables to set or change.
        tell: called with where the log is, and with where the run is whenever it is in another
            task.

    Returns:
        Exit status, and the last thing that was said, or the signal that killed it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    own = {name: value for name, value in os.environ.items() if name not in (*RANKS, *JOB_STEP)}
    own |= {"PYTHONUNBUFFERED": "1", "HYDRA_FULL_ERROR": "1", PARENT: str(os.getpid())}
    with log.open("ab") as file:
        before = file.tell()
        command = [sys.executable, "-m", "iqa_lightning.train", *words]
        process = subprocess.Popen(  # noqa: S603  # ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=own | dict(env),
        )
        try:
            if tell:
                tell(f"training, log in {log}")
            status = wait(process, log, before, tell or (lambda _: None))
        finally:
            stop(process)
    if status < 0:
        return status, f"killed by {signal.Signals(-status).name}"
    lines = log.read_bytes()[before:].decode(errors="replace").strip().splitlines() or [
        "it said nothing"
    ]
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    said = lines[errors[-1] :] if errors else lines[-1:]  # an error message may have several lines
    return status, " ".join(" ".join(line.removeprefix("error: ").split()) for line in said)


def wait(
    process: "subprocess.Popen[bytes]", log: Path, at: int, tell: Callable[[str], None]
) -> int:
    """Wait for a run, and tell the first line of each task that it says."""
    known = ""
    while True:
        check()  # in a thread, which no signal reaches
        try:
            return process.wait(PAUSE)
        except subprocess.TimeoutExpired:
            text = log.read_bytes()[at:].decode(errors="replace")
            lines = [line for line in text.splitlines() if line.startswith("task ")]
            if lines and (task := lines[-1].split(",")[0]) != known:
                known = task
                tell(lines[-1])


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process that still runs, gently if it lets."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def follow_parent() -> None:
    """Let this process be killed with the one that started it by `train` (Linux; elsewhere it would
    go on alone).
    """
    parent = os.environ.pop(
        PARENT, None
    )  # so that ranks, which this process starts, do not take it for theirs
    if parent is None or sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG of linux/prctl.h
    if os.getppid() != int(parent):  # it is dead already
        raise SystemExit("the process that asked for this run is gone")


@contextmanager
def lead_children() -> Iterator[None]:
    """Let the ranks that are started inside be killed with this process (see `follow_parent`)."""
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(PARENT, None)
