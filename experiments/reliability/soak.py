"""Kill runs at random instants, let the same command go on, compare bytes: `make soak`.

60 kills: 3 signals x 5 methods x 2 caches x 1 and 2 ranks. Each is drawn by its number and a seed,
and a row of `results/kills.csv` once it is through; the same command goes on after the last row.
`--methods lwf --kills 6` does a part. A kill is `held` when the run ended in time with the status
of its signal, the same command finished it, and every record and weight has the bytes of a run that
was left alone (one reference a method and number of ranks, with the cache in memory).
"""

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

METHODS = ("lwf", "tsn_iqa", "ewc", "mh_cl_replay", "der_pp")
CACHES = ("ram", "disk")
RANKS = (1, 2)
SIGNALS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}
WORDS = (
    *("experiment=demo", "stream.order=[compression,blur]", "backbone=tiny", "logger=csv"),
    *("schedule.finetune.epochs=2", "view.crop=32", "view.resize=64", "pairs.min_images=60"),
)
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
COLUMNS = (
    *("number", "seed", "method", "cache", "ranks", "signal", "to", "after_s", "run_s"),
    *("status", "end_s", "resumed", "same_bytes", "held", "said"),
)
RESULTS = Path(__file__).parent / "results" / "kills.csv"
TRIES = 5  # draws of an instant, where a run was over before it


def main() -> None:
    """Kill, resume, compare, note."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60, help="how many at most, now")
    parser.add_argument("--methods", default=",".join(METHODS), help="a part of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("outputs/soak"))
    parser.add_argument("--patience", type=float, default=120, help="seconds that an end may take")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
    done, chosen = {(int(row["seed"]), int(row["number"])) for row in rows()}, given.methods
    cases = list(enumerate(product(METHODS, RANKS, CACHES, SIGNALS)))
    for number, case in cases:
        if (given.seed, number) in done or case[0] not in chosen.split(","):
            continue
        if given.kills <= 0:
            break
        given.kills -= 1
        row = kill(number, case, given)
        note(row)
        print(f"{number}: {row}", flush=True)
    broken = [row for row in rows() if row["held"] != "yes"]
    print(f"{len(rows())} kills noted, {len(broken)} did not hold: {RESULTS}")
    sys.exit(bool(broken))


def kill(
    number: int, case: tuple[str, int, str, str], given: argparse.Namespace
) -> dict[str, object]:
    """One kill and what became of it."""
    method, ranks, cache, name = case
    whole, seconds = reference(method, ranks, given.output)
    draw = random.Random(f"{given.seed}-{number}")  # noqa: S311  # an instant, no secret
    place = given.output / f"seed{given.seed}-{number}"
    command = words(method, ranks, cache, place)
    for _ in range(TRIES):
        shutil.rmtree(place, ignore_errors=True)
        after, to = draw.uniform(0.05, 0.95) * seconds, draw.choice(("all", "first"))
        status, end, said = interrupt(command, place, after, name, to, given.patience)
        if status != 0:  # it was not over yet
            break
    resumed = [run(command, place)[0] for _ in range(2)][-1] == 0
    same = resumed and content(place) == content(whole)
    held = same and status in (SIGNALS[name], -signal.Signals[name])  # one and the same to a shell
    return {
        **{"number": number, "seed": given.seed, "method": method, "cache": cache},
        **{"ranks": ranks, "signal": name, "to": to if ranks > 1 else "all"},
        **{"after_s": round(after, 2), "run_s": round(seconds, 2), "status": status},
        **{"end_s": round(end, 2), "resumed": yes(resumed), "same_bytes": yes(same)},
        **{"held": yes(held), "said": said},
    }


def interrupt(
    command: list[str], place: Path, after: float, name: str, to: str, patience: float
) -> tuple[int | str, float, str]:
    """Start a run, signal it after so many seconds; its status, the seconds that its end took (of
    all its processes), and its last line.
    """
    place.mkdir(parents=True)
    log = place / "killed.log"
    with log.open("w") as file:
        process = subprocess.Popen(  # noqa: S603  # ours
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
    try:
        return process.wait(after), 0.0, ""
    except subprocess.TimeoutExpired:
        begun = time.monotonic()
    group = to == "all"
    (os.killpg if group else os.kill)(process.pid, signal.Signals[name])
    status: int | str = "hangs"
    while time.monotonic() - begun < patience:
        status = process.poll() if process.poll() is not None else "hangs"
        if status != "hangs" and not members(process.pid):
            break
        time.sleep(0.05)
    else:
        status = "hangs"
    end = time.monotonic() - begun
    for pid in members(process.pid):
        os.kill(pid, signal.SIGKILL)
    lines = log.read_text(errors="replace").strip().splitlines()
    return status, end, lines[-1].replace(f"{place}/", "")[:160] if lines else ""


def members(group: int) -> list[int]:
    """The living processes of a process group, by /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def reference(method: str, ranks: int, output: Path) -> tuple[Path, float]:
    """The folder of a run that was left alone, and the seconds that it takes; made once."""
    place = output / f"whole-{method}-{ranks}"
    if not (place / "seconds").is_file():
        shutil.rmtree(place, ignore_errors=True)
        status, seconds = run(words(method, ranks, "ram", place), place)
        if status:
            raise SystemExit(f"the run that is left alone failed: {place / 'run.log'}")
        (place / "seconds").write_text(str(seconds))
    return place, float((place / "seconds").read_text())


def run(command: list[str], place: Path) -> tuple[int, float]:
    """A run to its end: status and seconds."""
    place.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with (place / "run.log").open("a") as log:
        done = subprocess.run(  # noqa: S603  # ours
            command, stdout=log, stderr=subprocess.STDOUT, env=environment(), check=False
        )
    return done.returncode, time.monotonic() - begun


def words(method: str, ranks: int, cache: str, place: Path) -> list[str]:
    """The command of a run below a place."""
    few = TWO if ranks == 2 else ("trainer=cpu",)
    more = (f"method={method}", f"stream.cache={cache}", f"stream.cache_dir={place / 'cache'}")
    command = [sys.executable, "-m", "iqa_lightning.train", *WORDS, *few, *more]
    return [*command, f"paths.output={place / 'out'}"]


def environment() -> dict[str, str]:
    """One thread a process: the same number of threads gives the same bits."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def content(place: Path) -> dict[str, bytes]:
    """The bytes of all records and weights of the one run below a place, by name."""
    folders = list((place / "out").glob("*/*/*/split*/seed*"))
    if len(folders) != 1:
        return {}
    files = [
        path
        for pattern in ("*.csv", "predictions/*", "tasks/*")
        for path in folders[0].glob(pattern)
    ]
    return {str(path.relative_to(folders[0])): path.read_bytes() for path in files}


def yes(value: bool) -> str:
    """In the words of the file."""
    return "yes" if value else "no"


def rows() -> list[dict[str, str]]:
    """What is noted already."""
    if not RESULTS.is_file():
        return []
    with RESULTS.open(newline="") as file:
        return list(csv.DictReader(file))


def note(row: dict[str, object]) -> None:
    """Add a row."""
    new = not RESULTS.is_file()
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
