"""Signals that ask a process to end: noted at once, acted upon where a run can be left whole.

What a signal does depends on where the process is (`place`): before anything is written it leaves
on the spot (`LEAVE`, also inside an import, where an exception would abort in a C++ library);
between steps of Python it raises `Interrupted` (`RAISE`); in a training it is only noted (`NOTE`),
and whoever is between two batches asks `check`. A second signal always ends the process.
No import but the standard library's: this stands before all that is slow.
"""

import os
import signal
import threading
from types import FrameType

LEAVE, RAISE, NOTE = "leave", "raise", "note"


ASKED = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Of Slurm, Kubernetes, `timeout`; Ctrl-C; a terminal that is closed; Ctrl-\\; what batch systems
send before the end of a job (`sbatch --signal`, LSF); a limit of processor time."""


STATUS: dict[signal.Signals, int] = {
    number: 128 + number
    for name in ASKED
    if (number := getattr(signal, name, None)) is not None  # Windows knows two of them
}
"""Exit status by signal, as shells, Slurm and Kubernetes know them."""


AGAIN = "the same command goes on"


class Interrupted(BaseException):
    """The process was asked to end; not an error, so `except Exception` lets it pass.

    Args:
        number: the signal.
        place: where in the work it came, as in `interrupted in task 2 of 4`; may be empty.
    """

    def __init__(self, number: int, place: str = "") -> None:
        self.number, self.place = signal.Signals(number), place
        super().__init__(f"interrupted{f' {place}' if place else ''}; {AGAIN}")

    @property
    def status(self) -> int:
        """The exit status that says so."""
        return STATUS[self.number]


class _State:
    place = LEAVE
    received: int | None = None
    installed = False


def install(place: str = LEAVE) -> None:
    """Handle these signals in this process, unless its parent lets it ignore them (`nohup`)."""
    _State.place, _State.received, _State.installed = place, None, True
    take_over()


def take_over() -> None:
    """Put the handlers in place again, where a library has put its own; nothing in a process that
    did not `install` them.
    """
    if not _State.installed or threading.current_thread() is not threading.main_thread():
        return
    for number in STATUS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


def move_to(place: str) -> None:
    """Say where the process is: `LEAVE`, `RAISE` or `NOTE`."""
    _State.place = place
    if place == RAISE:
        check()


def received() -> int | None:
    """The signal that came, or none."""
    return _State.received


def check(place: str = "") -> None:
    """Raise where a signal has come.

    Raises:
        Interrupted: it has.
    """
    if _State.received is not None:
        raise Interrupted(_State.received, place)


def say(text: str) -> None:
    """Write a line to standard error, whatever the state of the interpreter's own streams."""
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:  # nobody listens any more
        return


def _handle(number: int, _: FrameType | None) -> None:
    again, _State.received = _State.received is not None, number
    if again or _State.place == LEAVE:
        say(f"interrupted{'' if again else ' before the run began'}; {AGAIN}")
        os._exit(STATUS[signal.Signals(number)])
    if _State.place == RAISE:
        raise Interrupted(number)
