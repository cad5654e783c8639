"""Runs seen from outside: where one lies, who owns it, the process that trains it. No torch and no
Hydra in here.

A run of a sweep or of a table is a process of its own, `python -m iqa_lightning.train <overrides>`,
whatever asked for it: several devices in it start as they do by hand, a crash takes nothing else
along, and nothing that one run sets (the environment of ranks, wandb, the state of torch) reaches
the next.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUSY = 75
"""Exit status of a run that another process is at work on: EX_TEMPFAIL of sysexits.h, `try again
later`.
"""


class BusyError(ValueError):
    """Another process is at work in the run folder."""


def task_names(stream: Mapping[str, Any]) -> list[str]:
    """Names of the tasks that the config of a stream builds: its data sets, a user's folders, or
    distortions.

    Raises:
        ValueError: It is a stream of another kind.
    """
    if tasks := stream.get("tasks") or stream.get("groups"):
        return [str(name) for name in tasks]
    if folders := stream.get("folders"):
        return [re.sub(r"[^A-Za-z0-9_-]+", "_", Path(folder).resolve().name) for folder in folders]
    raise ValueError(
        "the stream has no tasks, groups or folders, so its orders have no names: give a list as "
        "stream.order"
    )


def method_name(method: str, variant: str | None) -> str:
    """What folders and tables call the choice of `method=`, alone or with other settings that have
    a name.

    Raises:
        ValueError: the name of the variant is not made of letters, digits, `_`, `.` and `-`.
    """
    if variant is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", str(variant)):
        raise ValueError(
            f"variant={variant!r} becomes the name of a folder: letters, digits, _ . and - only"
        )
    return method if variant is None else f"{method}@{variant}"


def names_of(
    experiment: str | None, method: str, order: Sequence[Any], split: int, seed: int
) -> tuple[str, ...]:
    """The five names of a run, which are its folder: experiment, method, order, split, seed."""
    from iqa_lightning.stream.orders import numbered  # noqa: PLC0415

    tasks, _ = numbered(list(order))
    name = shortened("-".join("+".join(names) for names in tasks))
    return experiment or "none", method, name, f"split{split}", f"seed{seed}"


def shortened(order: str) -> str:
    """A folder name of an order; long ones end in a hash, since file systems allow 255 bytes."""
    import hashlib  # noqa: PLC0415

    return (
        order
        if len(order) <= 120
        else f"{order[:100]}-{hashlib.sha256(order.encode()).hexdigest()[:12]}"
    )


def keep_config(folder: Path, config: dict[str, Any]) -> None:
    """Store the config of a new run; refuse an old folder whose config says something else.

    Raises:
        ValueError: naming each key that differs.
    """
    from omegaconf import OmegaConf  # noqa: PLC0415

    from iqa_lightning.records import write_bytes  # noqa: PLC0415  # pandas

    check_config(folder, config)
    if is_first_process() and not (folder / "config.yaml").is_file():
        write_bytes(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)).encode())


def check_config(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a folder that holds a run of another config.

    Raises:
        ValueError: naming each key that differs.
    """
    from omegaconf import OmegaConf  # noqa: PLC0415

    from iqa_lightning.configs import config_changes  # noqa: PLC0415

    if not (folder / "config.yaml").is_file():
        return
    old: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))  # type: ignore[assignment]  # a dict
    if changed := config_changes(old, config):
        lines = "\n".join(
            f"  {key}: {there} there, {now} now" for key, (there, now) in changed.items()
        )
        raise ValueError(
            f"{folder} holds a run of another config:\n{lines}\n"
            "take these back to go on with it, or choose another paths.output (or delete the "
            "folder)"
        )


def is_first_process() -> bool:
    """Whether this is the process that the user started, not one that it started for another
    device.
    """
    return all(int(os.environ.get(name, "0")) == 0 for name in ("LOCAL_RANK", "NODE_RANK"))


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold the run folder, so that two processes never write into one run.

    Raises:
        BusyError: another process holds it.
    """
    import fcntl  # noqa: PLC0415  # not on every system

    folder.mkdir(parents=True, exist_ok=True)
    if not is_first_process():
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            # of this process alone: loader workers, which live on a while after a kill, do not
            # inherit it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                f"another process is at work in {folder}: wait for it, or choose another "
                "paths.output"
            ) from error
        yield
