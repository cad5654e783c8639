"""The folder of a run: what it is called, which values it stands for, who owns it. No torch and no
Hydra is imported here before it is needed.

`outputs/<experiment>/<method>[@<variant>]/<order>/split<n>/seed<n>`: the name determines the
content. A value that changes results and is typed on the command line becomes part of the name, as
in `lwf@lr=1e-3`; values that a named experiment sets are part of the experiment's name.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iqa_lightning.configs import canonical, config_changes, flat, is_free, read_yaml
from iqa_lightning.files import write_bytes

BUSY = 75
"""Exit status of a run that another process is at work on: EX_TEMPFAIL of sysexits.h, `try again
later`.
"""


FREE_CHOICES = {"trainer": ("default", "cpu")}
"""Choices of a config group that change nothing but free keys."""


NAMED = ("experiment", "method", "stream", "stream.order", "stream.folders", "split", "seed")
"""Keys that have a place of their own in the name."""


LONGEST = 60


LOG = "train.log"


class BusyError(ValueError):
    """Another process is at work in the run folder."""


def run_names(
    config: Mapping[str, Any], choices: Mapping[str, str | None], words: Sequence[str]
) -> tuple[str, str, str, str, str]:
    """The five names of a run, which are its folder: experiment, method, order, split, seed.

    Args:
        config: all of it, references resolved.
        choices: what was chosen of each config group.
        words: the overrides that were typed.

    Raises:
        ValueError: The order or the variant is none.
    """
    from iqa_lightning.stream.orders import numbered  # noqa: PLC0415

    order = spelt_order(config["stream"])
    text = shortened("-".join("+".join(names) for names in numbered(order)[0]))
    variant = config.get("variant")
    made = variant_of(words, config, choices) if variant is None else str(variant)
    method = method_name(str(choices["method"]), made or None)
    experiment = str(choices.get("experiment") or choices["stream"])
    return experiment, method, text, f"split{config['split']}", f"seed{config['seed']}"


def spelt_order(stream: Mapping[str, Any]) -> list[str | list[str]]:
    """The order of the config of a stream as a list of names.

    Raises:
        ValueError: It names what the stream does not hold.
    """
    from iqa_lightning.stream.orders import checked_order  # noqa: PLC0415

    tasks, given = task_names(stream), stream.get("order")
    if not isinstance(given, str | Sequence | None):
        raise ValueError(
            f"stream.order is {given!r}; it is a list of names, as in "
            f"'stream.order=[{','.join(tasks)}]', or the name of an order, as in "
            "stream.order=reverse"
        )
    return checked_order(tasks if given is None else given, tasks)


def task_names(stream: Mapping[str, Any]) -> list[str]:
    """Names of the tasks that the config of a stream builds: its data sets, a user's folders, or
    distortions.

    Raises:
        ValueError: It is a stream of another kind.
    """
    from iqa_lightning.stream.folders import named_folders  # noqa: PLC0415

    if tasks := stream.get("tasks") or stream.get("groups"):
        return [str(name) for name in tasks]
    if sets := stream.get("sets"):
        return [f"{name}_{task}" for name, one in sets.items() for task in one["groups"]]
    if "folders" in stream:
        return list(named_folders(stream["folders"]))
    raise ValueError(
        "the stream has no tasks, groups or folders, so its orders have no names: give a list as "
        "stream.order"
    )


def method_name(method: str, variant: str | None) -> str:
    """What folders and tables call the choice of `method=`, alone or with other settings that have
    a name.

    Raises:
        ValueError: the name of the variant cannot be that of a folder.
    """
    if variant is not None and not re.fullmatch(r"\w[\w.,=+-]*", str(variant)):
        raise ValueError(
            f"variant={variant!r} becomes the name of a folder: letters, digits, _ . , = + and - "
            "only"
        )
    return method if variant is None else f"{method}@{variant}"


def variant_of(
    words: Sequence[str], config: Mapping[str, Any], choices: Mapping[str, Any]
) -> str | None:
    """A short name of what was typed besides the names of a run and free keys: `lr=1e-3`; none
    where there is nothing.

    A key is shortened to the end that no other key of the config has. A long name ends in a hash.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: PLC0415

    leaves = [key for key in flat(dict(config)) if not is_free(key)]
    typed = {}
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = str(override.key_or_group)
        if key in NAMED or is_free(key):
            continue
        value = None if override.is_delete() else override.value()
        if key in choices:
            if value in FREE_CHOICES.get(key, ()):
                continue
            key = key.replace("/", ".")
        typed[key] = f"{short_key(key, leaves)}={short_value(value)}"
    said = [f"folders={text}" for text in [folder_options(config)] if text]
    parts = sorted({*typed.values(), *said})
    text = ",".join(parts)
    if len(text) <= LONGEST:
        return text or None
    end = hashlib.sha256(text.encode()).hexdigest()[:8]
    while len(",".join([*parts, end])) > LONGEST:
        parts.pop()
    return ",".join([*parts, end])


def short_key(key: str, leaves: Sequence[str]) -> str:
    """The shortest end of a dotted key that no other key ends in."""
    parts = key.split(".")
    for count in range(1, len(parts)):
        end = ".".join(parts[-count:])
        if not any(other != key and f".{other}".endswith(f".{end}") for other in leaves):
            return end
    return key


def short_value(value: Any) -> str:
    """A value in the letters of a folder name; what does not fit is told apart by a hash."""
    if isinstance(value, float):
        text = repr(value)
        mantissa, exponent = f"{value:.16e}".split("e")
        short = f"{float(mantissa):g}e{int(exponent)}"
        return short if len(short) < len(text) and float(short) == value else text
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list) and all(isinstance(item, int | float | str) for item in value):
        return "+".join(map(short_value, value))
    text = str(value)
    plain = re.sub(r"[^\w.+-]+", "_", Path(text).stem if "/" in text else text).strip("_")
    return (
        plain if plain == text else f"{plain[-20:]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    )


def folder_options(config: Mapping[str, Any]) -> str | None:
    """A hash of what is said of a user's folders besides their places; none for nothing."""
    options = canonical(config).get("stream", {}).get("folders")
    said = {name: more for name, more in (options or {}).items() if more}
    return (
        hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:6] if said else None
    )


def shortened(order: str) -> str:
    """A folder name of an order; long ones end in a hash, since file systems allow 255 bytes."""
    if len(order) <= 120 and len(order.encode()) <= 240:
        return order
    end = hashlib.sha256(order.encode()).hexdigest()[:12]
    return f"{order.encode()[:100].decode(errors='ignore')}-{end}"


def keep_config(folder: Path, config: dict[str, Any]) -> None:
    """Store the config of a new run; refuse an old folder whose config says something else.

    Raises:
        ValueError: naming each key that differs.
    """
    from omegaconf import OmegaConf  # noqa: PLC0415

    from iqa_lightning.records import RunFolder  # noqa: PLC0415  # pandas

    check_config(folder, config)
    if is_first_process() and not (
        RunFolder(folder).begun and (folder / "config.yaml").is_file()
    ):  # a run that recorded nothing blocks nobody
        write_bytes(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)).encode())


def check_config(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a folder that holds a run of another config.

    Raises:
        ValueError: naming each key that differs.
    """
    from iqa_lightning.records import RunFolder  # noqa: PLC0415  # pandas

    old = read_config(folder) if RunFolder(folder).begun else {}
    if old and (changed := config_changes(old, config)):
        lines = "\n".join(
            f"  {key}: {there} there, {now} now" for key, (there, now) in changed.items()
        )
        raise ValueError(
            f"{folder} holds a run of another config:\n{lines}\n"
            "take these back to go on with it, or give this run a name (variant=<name>) or another "
            "paths.output (or delete the folder)"
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The config that a run was made with; empty where it is not there.

    Raises:
        ValueError: It is not YAML.
    """
    file = folder / "config.yaml"
    try:
        return dict(read_yaml(file)) if file.is_file() else {}
    except Exception as error:  # of YAML, of OmegaConf, of the system
        raise ValueError(
            f"{file} cannot be read ({' '.join(str(error).split())}): bring back a copy; without "
            "it the run cannot be told from others, so delete the folder to start again"
        ) from error


def is_first_process() -> bool:
    """Whether this is the process that the user started, not one that it started for another
    device.
    """
    return all(int(os.environ.get(name, "0")) == 0 for name in ("LOCAL_RANK", "NODE_RANK"))


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold the run folder, so that two processes never write into one run; it is made here.

    If what happens inside fails before anything is recorded, all that it left is removed.

    Raises:
        BusyError: another process holds it.
        OSError: it cannot be made or written, naming it.
    """
    import fcntl  # noqa: PLC0415  # not on every system

    if not is_first_process():
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
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
            try:
                yield
            except BaseException:
                clear_unbegun(folder)
                raise
    except BaseException:
        remove_empty(made)
        raise


def clear_unbegun(folder: Path, *more: str) -> None:
    """Empty a folder in which nothing was recorded, but for the log that another process writes,
    unless it is among `more`.
    """
    from iqa_lightning.records import RunFolder  # noqa: PLC0415  # pandas

    if RunFolder(folder).begun or not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name == LOG and LOG not in more:
            continue
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove the folders that are empty, the innermost first."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # it holds something, or is gone
            return


def wandb_parts(folder: Path) -> list[tuple[bool, Path]]:
    """The folders in which wandb wrote something, and whether they are still to be sent.

    A run that was killed early leaves a file of 7 bytes, which `wandb sync` cannot read.
    """
    found = sorted(folder.glob("wandb/*run-*/*.wandb"))
    return [
        (file.parent.name.startswith("offline-"), file.parent)
        for file in found
        if file.stat().st_size > 7
    ]
