"""Runs seen from outside: where one lies, who owns it, the process that trains it. No torch and no
Hydra in here.

A run of a sweep or of a table is a process of its own, `python -m iqa_lightning.train <overrides>`,
whatever asked for it: several devices in it start as they do by hand, a crash takes nothing else
along, and nothing that one run sets (the environment of ranks, wandb, the state of torch) reaches
the next.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from iqa_lightning.runs.folder import BUSY, check_config, names_of, task_names

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


LOG = "train.log"


@dataclass(frozen=True)
class Outcome:
    """What became of a run: `finished`, `skipped` (finished before), `busy` (another process is at
    it), `failed`.

    `reason` says why for the last two. `folder` is empty where none could be named.
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
    experiment: str | None,
    method: str,
    words: Sequence[str],
    env: Mapping[str, str] | None = None,
) -> Outcome:
    """Train the run of a config unless it is finished, in a process of its own; go on with it if it
    was interrupted.

    Args:
        config: all of it, references resolved; its order may be a name.
        experiment: the choice of `experiment=`, part of the folder.
        method: the name of the method, the same.
        words: the overrides that compose to `config`.
        env: environment variables to set or change.

    Returns:
        What became of it; no error of the run is raised.
    """
    from iqa_lightning.records import RunFolder  # noqa: PLC0415  # pandas
    from iqa_lightning.stream.orders import checked_order  # noqa: PLC0415

    given, split, seed = config["stream"]["order"], config["split"], config["seed"]
    title = (
        f"{method} {given if isinstance(given, str) else '-'.join(map(str, given or ['default']))}"
    )
    title, start, folder = f"{title} split{split} seed{seed}", monotonic(), Path()
    try:
        tasks = task_names(config["stream"])
        order = checked_order(tasks if given is None else given, tasks)
        names = names_of(experiment, method, order, split, seed)
        title, folder = " ".join(names[1:]), Path(config["paths"]["output"]).joinpath(*names)
        check_config(folder, config | {"stream": config["stream"] | {"order": order}})
        if RunFolder(folder).read_summary().get("finished"):
            return Outcome(title, "skipped", folder=str(folder))
        status, said = train(words, folder / LOG, env or {})
    except (ValueError, OSError) as error:
        return Outcome(title, "failed", str(error), str(folder) if folder.name else "")
    known = {0: ("finished", ""), BUSY: ("busy", "another process is at work in its folder")}
    state, reason = known.get(status, ("failed", f"{said} (all of it in {folder / LOG})"))
    return Outcome(title, state, reason, str(folder), monotonic() - start)


def train(words: Sequence[str], log: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Run the train command to its end, with its output appended to `log`.

    Whatever ends this function ends the command: SIGTERM, and SIGKILL ten seconds later. If this
    process itself is killed, Linux kills the command too (see `follow_parent`).

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
            status = process.wait()
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
