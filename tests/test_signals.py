"""Every signal that asks a process to end has a status of its own and a line."""

import signal
import subprocess
import sys

import pytest

from iqa_lightning.signals import ASKED, STATUS

WAITS = """
import sys, time
from iqa_lightning import signals
signals.install(sys.argv[1])
try:
    print("ready", flush=True)
    for _ in range(600):
        time.sleep(0.05)
        if sys.argv[1] == signals.NOTE:
            signals.check("in task 1 of 2")
except signals.Interrupted as interrupt:
    signals.say(str(interrupt))
    raise SystemExit(interrupt.status)
"""


def told(place: str, *numbers: int, ignored: int | None = None) -> subprocess.CompletedProcess[str]:
    """What becomes of a process at `place` that is sent signals, one of which it may have to ignore."""

    def before() -> None:
        # a test may run under nohup; the others stand as a shell leaves them
        for number in STATUS:
            signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, place],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,  # noqa: PLW1509
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for number in numbers:
        process.send_signal(number)
    said, error = process.communicate(timeout=60)
    return subprocess.CompletedProcess([], process.returncode, said, error)


@pytest.mark.skipif(sys.platform != "linux", reason="the numbers are those of Linux")
def test_the_statuses_are_those_of_shells() -> None:
    shells = {"HUP": 129, "INT": 130, "QUIT": 131, "USR1": 138, "USR2": 140, "TERM": 143}
    assert {number.name: status for number, status in STATUS.items()} == {
        f"SIG{name}": status for name, status in (shells | {"XCPU": 152}).items()
    }


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("leave", "interrupted before the run began; the same command goes on"),
        ("raise", "interrupted; the same command goes on"),
        ("note", "interrupted in task 1 of 2; the same command goes on"),
    ],
)
def test_a_signal_ends_with_its_status_and_one_line(name: str, place: str, line: str) -> None:
    number = signal.Signals[name]
    done = told(place, number)
    assert done.returncode == 128 + number
    assert done.stderr.splitlines() == [line]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_what_a_parent_lets_a_process_ignore_it_ignores() -> None:
    """As `nohup` does with SIGHUP, and a shell in the background with SIGINT."""
    done = told("raise", signal.SIGHUP, signal.SIGTERM, ignored=signal.SIGHUP)
    assert done.returncode == 143
