"""What surrounds the work of a command: cheap checks before anything slow is imported, one line for
what goes wrong, exit statuses.

| status | meaning |
|---|---|
| 0 | done |
| 1 | a run failed after it had begun |
| 2 | it could not begin: a wrong value, missing data, no such device; nothing was left behind |
| 75 | another process is at work in the folder: try again later |
| 130, 143, 128 + n | interrupted by SIGINT, SIGTERM, signal n: the same command goes on |
| 141 | nobody reads what it says any more: the same command goes on |
"""

import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from iqa_lightning import signals
from iqa_lightning.report.text.escaping import terminal_text
from iqa_lightning.runs.folder import BUSY, BusyError

FAILED, NOT_BEGUN, UNREAD = 1, 2, 141


OWNED = {
    "max_epochs": -1,
    "reload_dataloaders_every_n_epochs": 1,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 0,
}
"""Arguments of the trainer that the walk sets, with the values that it needs."""


FOREIGN = (
    *("max_steps", "min_steps", "min_epochs", "max_time", "fast_dev_run", "overfit_batches"),
    *("val_check_interval", "check_val_every_n_epoch", "enable_checkpointing", "default_root_dir"),
    *("limit_test_batches", "limit_predict_batches", "logger", "plugins"),
)
"""Arguments of the trainer that would cut a walk short or are given by the command itself."""


FULL = "IQA_FULL_ERROR"
"""What the user said by HYDRA_FULL_ERROR, which commands set for themselves
(`runs/mistakes.py`).
"""


def shows_all() -> bool:
    """Whether an error is shown with the place where it happened."""
    return os.environ.get(FULL, os.environ.get("HYDRA_FULL_ERROR")) == "1"


RANGES = {
    "split": (1, 10),
    "seed": (0, 2**32 - 1),
    "jobs": (1, 1000),
    "resamples": (1, 10**6),
    "levels": (1, 1000),
    "epochs": (1, 10**6),
    "data.batch_size": (1, 10**6),
    "stream.num_workers": (0, 1024),
    "stream.max_pixels": (1, 10**12),
}
"""Whole numbers of any command by dotted key, and what they can be."""


class Begun:
    """Whether the work has begun, which decides the exit status of what goes wrong."""

    def __init__(self) -> None:
        self.yes = False


@contextmanager
def one_line() -> Iterator[Begun]:
    """End the process with one line and a status for whatever goes wrong inside.

    `HYDRA_FULL_ERROR=1` shows where it happened. An error that is none of a user's, after the work
    has begun, keeps its traceback.
    """
    begun = Begun()
    try:
        yield begun
    except signals.Interrupted as interrupt:
        leave(interrupt)
    except BusyError as error:
        fail(error, BUSY)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich leaves so, without a word
            leave_unread()
        raise
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and is_unread():
            leave_unread()
        fail(error, FAILED if begun.yes else NOT_BEGUN)
    except Exception as error:
        if begun.yes and not is_from_outside(error):
            raise
        fail(error, FAILED if begun.yes else NOT_BEGUN)


def leave(interrupt: signals.Interrupted) -> NoReturn:
    """End an interrupted process: a line, and the status of its signal."""
    from iqa_lightning.runs.folder import is_first_process  # noqa: PLC0415

    if is_first_process():
        signals.say(str(interrupt))
        raise SystemExit(interrupt.status)
    # the first process says it; a status would make Lightning kill that one, and the usual end
    # waits for it
    sys.stdout.flush()
    os._exit(0)


def is_unread() -> bool:
    """Whether what standard output leads to is gone: a closed terminal, a `| head` that ended."""
    import select  # noqa: PLC0415

    if not hasattr(select, "poll"):  # Windows
        return False
    output = select.poll()
    output.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0))


def leave_unread() -> NoReturn:
    """End a process whose output nobody reads, as SIGPIPE would, or as the signal that came with
    it.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what Python still holds back goes there
    if (number := signals.received()) is not None:
        leave(signals.Interrupted(number))
    signals.say(f"interrupted: nobody reads what it says any more; {signals.AGAIN}")
    raise SystemExit(UNREAD) from None


def fail(error: BaseException, status: int) -> NoReturn:
    """Say in one line what went wrong, and leave."""
    if shows_all():
        traceback.print_exception(error)
    print(f"error: {terminal_text(one_line_of(error))}", file=sys.stderr, flush=True)
    raise SystemExit(status) from None


def one_line_of(error: BaseException) -> str:
    """An error in one line: what Hydra and Lightning wrap around it is taken off."""
    key = str(getattr(error, "full_key", "") or "")
    while type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        found = str(error).rpartition("full_key: ")[2].splitlines()
        key = key or (found[0] if "full_key: " in str(error) else "")
        error = error.__cause__
    if is_from_outside(error):
        gone = is_of_another_rank(error)
        why = "another process of this run has gone" if gone else f"{first_line(error)}: {MEMORY}"
        return f"{why}; {signals.AGAIN}"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.filename or 'a file'}: {error.strerror}; {remedy(error.errno)}"
    if type(error).__module__.startswith("omegaconf"):
        key = str(getattr(error, "full_key", "") or "")
        if key.startswith("hydra.runtime.choices."):
            group = key.rpartition(".")[2]
            return f"~{group} takes away what a run needs: choose one, as in {group}=<name>"
        return f"{key}: {first_line(error)}; give it a value, as in {key}=<value>"
    text = " ".join(str(error).split())
    if unknown := re.search(
        r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", text
    ):
        return f"{f'{key}: ' if key else ''}{unknown[1]} takes no {unknown[2]!r}: leave it out"
    kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
    known = type(error).__name__ == "MisconfigurationException"
    return f"{f'{key}: ' if key and key not in text else ''}{'' if known else kind}{text}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def remedy(number: int) -> str:
    """What to do about an error of the system."""
    import errno  # noqa: PLC0415

    if number in (errno.ENOSPC, errno.EDQUOT):
        return "free some space and type the same command again; what was finished is whole"
    return "make the place readable and writable, or choose another with paths.output=<folder>"


def is_of_another_rank(error: BaseException) -> bool:
    """Whether an error says that another rank has gone."""
    text = str(error)
    signs = ("onnection closed by peer", "onnection reset by peer", "roken pipe", "NCCL", "gloo")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def is_from_outside(error: BaseException) -> bool:
    """Whether something beyond this process is the reason: another rank, a process that loads
    images, memory.
    """
    text = str(error)
    signs = ("DataLoader worker", "out of memory", "can't allocate memory")
    short = isinstance(error, RuntimeError) and any(sign in text for sign in signs)
    return short or isinstance(error, MemoryError) or is_of_another_rank(error)


MEMORY = (
    "the memory is not enough, or a process was killed; close what else is running, or take "
    "stream.num_workers=0, stream.cache=disk or a smaller schedule.<phase>.batch_size"
)


def check_values(cfg: Mapping[str, Any]) -> None:
    """Refuse, in less than a second, values that no run can have.

    Raises:
        ValueError: naming key, value and remedy.
    """
    check_ranges(cfg)
    check_schedule(cfg)
    check_trainer(cfg.get("trainer") or {}, "schedule" in cfg)
    check_folders(cfg.get("stream") or {})
    check_writable(cfg["paths"]["output"])


def check_ranges(cfg: Mapping[str, Any]) -> None:
    """Refuse a number of `RANGES` that no command can have."""
    for key, (low, high) in RANGES.items():
        group, _, name = key.rpartition(".")
        node = (cfg.get(group) or {}) if group else cfg
        if name in node:
            whole_number(key, node[name], low, high)


def whole_number(key: str, value: Any, low: int, high: int) -> None:
    """Refuse what is no whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(
            f"{key} is {value!r}; it is a whole number from {low} to {high}, as in {key}={low}"
        )


def check_schedule(cfg: Mapping[str, Any]) -> None:
    """Refuse a phase of half an epoch, a batch of none, and a rate below zero."""
    for name, phase in (cfg.get("schedule") or {}).items():
        for key, low in (("epochs", 0), ("batch_size", 2)):
            if isinstance(phase.get(key), int | float | str):
                whole_number(f"schedule.{name}.{key}", phase[key], low, 10**6)
    rate = ((cfg.get("method") or {}).get("optimizer") or {}).get("lr")
    if isinstance(rate, int | float) and not 0 <= rate < float("inf"):
        raise ValueError(
            f"method.optimizer.lr is {rate}; a learning rate is a number above 0, as in "
            "method.optimizer.lr=1e-3"
        )


def check_trainer(trainer: Mapping[str, Any], walks: bool) -> None:
    """Refuse values of the trainer that a command sets itself, and a missing device."""
    for key, value in trainer.items():
        if key in FOREIGN or (key in OWNED and value != OWNED[key]):
            raise ValueError(
                f"trainer.{key} is {value!r}, but {'the walk' if walks else 'a pre-training'} sets "
                "it by itself: leave it out; how long a run trains is "
                f"{'schedule.<phase>.epochs' if walks else 'epochs'}"
            )
    devices = trainer.get("devices", 1)
    if isinstance(devices, int) and (devices == 0 or devices < -1):
        raise ValueError(
            f"trainer.devices is {devices}; it is how many, -1 for all, or a list of their "
            "numbers, as in trainer.devices=1"
        )
    if trainer.get("accelerator") in ("gpu", "cuda") and sys.platform == "linux" and not has_gpu():
        raise ValueError(
            f"trainer.accelerator is {trainer['accelerator']!r}, and this machine has no GPU that "
            "can be used: take trainer=cpu, or trainer=default, which takes what is there"
        )


def has_gpu() -> bool:
    """Whether a driver of a GPU shows a device: NVIDIA's, AMD's, or Windows' below Linux."""
    signs = ("nvidia[0-9]*", "nvidiactl", "kfd", "dxg")
    return any(next(Path("/dev").glob(sign), None) for sign in signs)


def check_folders(stream: Mapping[str, Any]) -> None:
    """Refuse a stream of folders that are not there."""
    from iqa_lightning.stream.folders import named_folders  # noqa: PLC0415

    if "folders" not in stream:
        return
    for name, place in named_folders(stream["folders"]).items():
        root = Path(place["root"]).expanduser()
        if not root.is_dir():
            raise ValueError(
                f"stream.folders: the folder {root} of {name!r} does not exist: give the place of "
                "a folder with images and a ratings.csv"
            )


def check_writable(place: str | Path, key: str = "paths.output", example: str = "outputs") -> None:
    """Refuse a place where no folder can be made; nothing stays there.

    Args:
        place: the folder.
        key: that says it, for the message.
        example: of a better value, for the message.

    Raises:
        ValueError: naming it.
    """
    output = Path(str(place)).expanduser()
    place = next((path for path in (output, *output.absolute().parents) if path.exists()), output)
    try:
        with tempfile.TemporaryDirectory(prefix=".writable-", dir=place):
            return
    except OSError as error:
        raise ValueError(
            f"{key} is {output}, and no folder can be made in {place} ({error.strerror}): "
            f"choose another, as in {key}={example}"
        ) from error
