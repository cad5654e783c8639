"""What a person typed that cannot be: one line that says what is meant. No torch in here."""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from iqa_lightning.runs import start
from iqa_lightning.runs.compose import CONF, compose_words, leaves

FULL = "HYDRA_FULL_ERROR"


STATUS = 2  # of a command that was typed wrongly, as in the shell


SHOWN = (60, 300)  # signs of a list of names that is shown beside the nearest one, and without one


def run_command(main: Callable[[], Any], config: str = "train") -> None:
    """Run a command of Hydra; a mistake in its words ends it with one line and status 2.

    `HYDRA_FULL_ERROR=1` shows where it was found as well.

    Args:
        main: decorated by `hydra.main`.
        config: name of its config.

    Raises:
        SystemExit: The words are wrong.
    """
    full = os.environ.get(FULL) == "1"
    os.environ[start.FULL] = "1" if full else "0"
    os.environ[FULL] = "1"  # Hydra prints what goes wrong, or lets it through, by this alone
    try:
        main()
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last of composing
        if full:
            traceback.print_exc()
        print(f"error: {explain(error, config, sys.argv[1:])}", file=sys.stderr)
        raise SystemExit(STATUS) from None
    finally:
        os.environ.pop(start.FULL, None)
        if not full:
            os.environ.pop(FULL, None)


def explain(error: Exception, config: str, words: Sequence[str]) -> str:
    """What is wrong with the words of a command, in one line.

    Args:
        error: of Hydra or OmegaConf.
        config: name of the command's config.
        words: of the command line.
    """
    GlobalHydra.instance().clear()
    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return quoting(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return unknown_choice(group, name, list(error.options or []))
    if "Config group override must be a string" in text:
        group = next((word for word in words if word.endswith("=null")), "group=null")
        key = group.removesuffix("=null")
        return f"{group} takes away what this command needs: choose one, as in {key}=<name>"
    if found := re.search(r"Could not override '([^']+)'", text):
        return not_overridden(found[1], str(error.__cause__), config, words)
    if found := re.search(r"Could not delete from config. '([^']+)' does not exist", text):
        return unknown_key(found[1], [f"~{found[1]}"], config, words)
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    found = re.search(r"full_key: (\S+)", str(error))
    return f"{found[1]}: {first}" if found and found[1] not in first else first


def unknown_choice(group: str, name: str, options: list[str]) -> str:
    """A group has no such name."""
    if group == "experiment" and (CONF / "pretraining" / f"{name}.yaml").is_file():
        return (
            f"experiment={name} is a pre-training: "
            f"python -m iqa_lightning.pretrain pretraining={name}"
        )
    if not group:
        return f"no config is called {name}"
    near = difflib.get_close_matches(name, options, 3, 0.6)
    listed = ", ".join(options)
    hint = f"did you mean {' or '.join(f'{group}={option}' for option in near)}?" if near else ""
    if len(listed) <= SHOWN[not near]:
        hint = f"{hint} there are: {listed}".strip()
    return f"{group}={name} is not there; {hint or f'see conf/{group}'}"


def unknown_key(key: str, typed: Sequence[str], config: str, words: Sequence[str]) -> str:
    """The config has no such key or group."""
    word = next((word for word in typed if word.lstrip("+~").split("=")[0] == key), key)
    if config == "pretrain" and key == "experiment":
        value = word.partition("=")[2]
        return f"{word}: a pre-training is no experiment: pretraining={value}"
    content, choices = known_keys(config, key, words)
    nodes = {".".join(part.split(".")[:n]) for part in content for n in range(1, 9)}
    keys = [*choices, *sorted(nodes - set(choices))]
    near = difflib.get_close_matches(key, keys, 1, 0.75)
    last = re.split(r"[./]", key)[-1]
    if not near:  # the right word in the wrong place
        ends = {re.split(r"[./]", known)[-1]: known for known in reversed(keys)}
        near = [ends[end] for end in difflib.get_close_matches(last, list(ends), 1, 0.75)]
    if near:
        return f"{key} is not a key of this config; did you mean {near[0]}?"
    parent = key.rpartition(".")[0]
    inside = sorted(
        {part[len(parent) + 1 :].split(".")[0] for part in content if part.startswith(f"{parent}.")}
    )
    there = f"; {parent} has {', '.join(inside)}" if inside else ""
    return f"{key} is not a key of this config{there} (+{word} would add it)"


def not_overridden(key: str, cause: str, config: str, words: Sequence[str]) -> str:
    """A key that is not there, or a mapping with a key that the one in the config does not have."""
    inner = re.search(r"Key '([^']+)' is not in struct", cause)
    content, _ = known_keys(config, key, words)
    if inner and any(known.startswith(f"{key}.") for known in content):
        return new_key(key, inner[1], content)
    return unknown_key(key, [word for word in words if "=" in word], config, words)


def new_key(place: str, name: str, content: Sequence[str]) -> str:
    """A mapping was typed with a key that the one in the config does not have."""
    inside = [key.removeprefix(f"{place}.") for key in content if key.startswith(f"{place}.")]
    has = f"; it has {', '.join(inside)}" if inside else ""
    return f"{place} has no key {name!r}{has}; to add one: +{place}.{name}=<value>"


def known_keys(config: str, key: str, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Dotted keys and groups of the config that was meant: that of the words without the wrong one,
    or of none.
    """
    others = [
        word
        for word in words
        if "=" in word and not word.startswith("-") and word.lstrip("+~").split("=")[0] != key
    ]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for tried in (others, []):
            try:
                content, choices = compose_words(config, tried)
            except HydraException:
                continue
            return list(leaves(content)), list(choices)
    return [], []


def quoting(word: str) -> str:
    """A word that Hydra cannot read, and how to write it."""
    key, sign, value = word.partition("=")
    if not sign:
        return f"{word!r} is no word of this command: it takes key=value"
    fixed = f"{key}={quoted(value)}"
    try:
        OverridesParser.create().parse_override(fixed)
    except HydraException:
        fixed = f'{key}="..."'
    shell = "'" + fixed.replace("'", "'\"'\"'") + "'"
    return f"cannot read {word}: quote the value, for Hydra and for the shell: {shell}"


def quoted(value: str) -> str:
    """A value in double quotes, a list element by element."""
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(quoted(part.strip()) for part in value[1:-1].split(','))}]"
    bare = value.strip("\"'").replace('"', r"\"")
    return value if re.fullmatch(r"[A-Za-z0-9_./:-]+", value) else f'"{bare}"'
