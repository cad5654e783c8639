"""The words of `score`, `export` and `watch`: `key=value`, with what `conf/<command>.yaml` holds as
the defaults.

Read without Hydra, so that a bundle answers at once; the way to write them is the same.
"""

import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

HERE = Path(__file__).resolve().parents[1]


CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"


LISTS = ("images", "reference", "size")
"""Keys that take a list."""


def read_words(command: str, words: Sequence[str]) -> dict[str, Any]:
    """The values of a command.

    Args:
        command: its name, that of its config too.
        words: what was typed after it.

    Raises:
        ValueError: an unknown key, or a word that is no `key=value`.
        SystemExit: help was asked for, and printed.
    """
    text = (CONF / f"{command}.yaml").read_text(encoding="utf-8")
    if any(word in ("--help", "-h") for word in words):
        print(text, end="")
        raise SystemExit(0)
    defaults: dict[str, Any] = yaml.safe_load(text)
    values = dict(defaults)
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise ValueError(f"{word!r} is no key=value; the keys are {', '.join(values)}")
        if key not in values:
            near = difflib.get_close_matches(key, values, 1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise ValueError(f"{key} is not known; {guess}the keys are {', '.join(values)}")
        values[key] = value_of(key, value, defaults[key])
    return values


def value_of(key: str, text: str, default: Any) -> Any:
    """A value as it is meant: `null` is none, `[a,b]` a list where lists are taken, a number a
    number where one stands; all else is text.

    Raises:
        ValueError: no whole number above 0 where one stands.
    """
    if text in ("null", ""):
        return None
    if key in LISTS and text.startswith("[") and text.endswith("]"):
        return [part.strip().strip("'\"") for part in text[1:-1].split(",") if part.strip()]
    if not isinstance(default, int):
        return text
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ValueError(f"{key} is {text!r}; it is a whole number above 0, as in {key}={default}")
    return int(text)


def needed(values: dict[str, Any], command: str, *keys: str) -> None:
    """Refuse a command without these.

    Raises:
        ValueError: naming the first that is missing.
    """
    for key in keys:
        if values[key] is None:
            raise ValueError(f"{key}= is missing: iqa-lightning {command} --help says what it is")


def run_words(main: Callable[[dict[str, Any]], int], command: str) -> NoReturn:
    """Run a command by its words; what goes wrong is one line and status 2.

    Args:
        main: takes the values, returns the status.
        command: its name.
    """
    from iqa_lightning.runs.start import one_line  # noqa: PLC0415

    status = 0
    with one_line():
        status = main(read_words(command, sys.argv[1:]))
    raise SystemExit(status)
