"""Stored configs in the names of today: `renamed_keys.yaml` says which have another."""

import copy
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

NAMES: Any = OmegaConf.to_container(OmegaConf.load(Path(__file__).parent / "renamed_keys.yaml"))


def renamed(config: dict[str, Any], experiment: str | None = None) -> dict[str, Any]:
    """A stored config as the code of today composes it.

    Args:
        config: as stored.
        experiment: whose config it is, for values that were mended there.

    Raises:
        AssertionError: A value that was mended is not what it is said to have been.
    """
    content: dict[str, Any] = _renamed(config, ())
    for key, (was, now) in NAMES["mended"].get(experiment, {}).items():
        *parts, last = key.split(".")
        node = content
        for part in parts:
            node = node[part]
        assert node[last] == was, key
        node[last] = now
    return content


def _renamed(node: Any, place: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_renamed(part, place) for part in node]
    if not isinstance(node, dict):
        known = NAMES["values"].get(place[-1], {}) if place else {}
        return known.get(node, node) if isinstance(node, str) else node
    return {_key((*place, key)): _renamed(value, (*place, key)) for key, value in node.items()}


def _key(place: tuple[str, ...]) -> str:
    for pattern, name in NAMES["keys"].items():
        if re.fullmatch(re.escape(pattern).replace(r"\*", r"[^.]+"), ".".join(place)):
            return str(name)
    return place[-1]


def without_added(config: dict[str, Any]) -> dict[str, Any]:
    """A config of today without the keys that did not exist, which must be as they stand there."""
    found = copy.deepcopy(config)
    for key, value in NAMES["added"].items():
        *parts, last = key.split(".")
        node: Any = found
        for part in parts:
            node = node.get(part) if isinstance(node, dict) else None
        known = value if isinstance(value, list) else [value]
        if isinstance(node, dict) and last in node and node[last] in known:
            node.pop(last)  # any other value stays, and makes the configs differ
    if isinstance(found.get("method"), dict):
        found["method"].pop("tune", None)  # ranges, which no run reads
    if found.get("variant") == "":  # which is none
        found["variant"] = None
    return found


def method_of(table: str, name: str) -> str:
    """A row of a table as it is called today, `lwf@qpt` with its variant."""
    method, sign, variant = name.partition("@")
    return f"{NAMES['methods'].get(table, {}).get(method, method)}{sign}{variant}"
