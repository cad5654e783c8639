"""Which configs are one: what differs between two of them and can change a result, and their hash.

A config is the resolved content of a run's `config.yaml`: dictionaries, lists, numbers and texts.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

FREE = (
    *("paths", "root", "logger", "variant", "allow_leakage", "allow", "from"),
    "tune",
    *("cache", "cache_dir", "num_workers", "max_pixels", "max_megapixels"),
    *("accelerator", "log_every_n_steps", "enable_progress_bar", "enable_model_summary"),
)
"""Config keys, at any depth, that change where things lie, how fast they go or what is shown, but
no result: they are not part of a name and refuse no resume. The places of `stream.folders` are free
too, what else is said of them is not."""


LARGEST_YAML = 1_000_000
"""Bytes of a YAML file, and values that it stands for once its aliases are written out: more than
any config has, and what a few lines of aliases of aliases pass at once."""


NAMES_OF_RUN = ("split", "seed", "stream.order", "pairs.split")
"""Dotted keys in which the runs of one row of a table differ: they name the run within its row."""


def config_changes(
    old: Mapping[str, Any], new: Mapping[str, Any], ignored: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Values of both configs by dotted key, for each key that differs and can change a result.

    Args:
        old: One config.
        new: The other.
        ignored: Dotted keys that may differ.
    """
    one, other = flat(canonical(old)), flat(canonical(new))
    return {
        key: (one.get(key), other.get(key))
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key) and key not in ignored and not is_free(key)
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that runs share when they may stand in one row of a table.

    Keys that change no result (`FREE`) and those that name the run within its row
    (`NAMES_OF_RUN`) do not count.
    """
    leaves = {
        key: value
        for key, value in flat(canonical(config)).items()
        if key not in NAMES_OF_RUN and not is_free(key) and value is not None
    }
    text = json.dumps(leaves, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_free(key: str) -> bool:
    """Whether a dotted key changes no result."""
    return bool(set(re.split(r"[./]", key)) & set(FREE))


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with a user's folders by name and without their places."""
    from iqa_lightning.stream.folders import named_folders  # noqa: PLC0415  # numpy

    stream = config.get("stream")
    if not isinstance(stream, Mapping) or not stream.get("folders"):
        return dict(config)
    places = named_folders(stream["folders"])
    named = {
        name: {key: value for key, value in place.items() if key != "root"}
        for name, place in places.items()
    }
    return dict(config) | {"stream": dict(stream) | {"folders": named}}


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key; a list is a leaf, and so is an empty mapping."""
    if not isinstance(node, Mapping) or (prefix and not node):
        return {prefix: node}
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def without_places(node: Any) -> Any:
    """A config for other eyes: of a path from the root of this machine, the last part alone."""
    if isinstance(node, Mapping):
        return {key: without_places(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [without_places(value) for value in node]
    if isinstance(node, str) and (Path(node).is_absolute() or node.startswith("~")):
        return f".../{Path(node).name}"
    return node


def read_yaml(file: Path) -> Any:
    """What a YAML file holds; nothing in it is executed, references are left as they are.

    Raises:
        ValueError: it is larger than `LARGEST_YAML`, or holds itself.
    """
    import yaml  # noqa: PLC0415  # stays out of --help
    from omegaconf import OmegaConf  # noqa: PLC0415

    if file.stat().st_size > LARGEST_YAML:
        raise ValueError(f"{file} has more than {LARGEST_YAML} bytes, and is no config")
    text = file.read_text(encoding="utf-8")
    count = written_out(yaml.compose(text, Loader=yaml.SafeLoader), {})
    if count > LARGEST_YAML:
        raise ValueError(
            f"{file} stands for more than {LARGEST_YAML} values once its aliases (*name) are "
            "written out: write them out, or leave them out"
        )
    return OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}


def written_out(node: Any, known: dict[int, float]) -> float:
    """How many values a node of YAML stands for; without end where it holds itself."""
    if not isinstance(getattr(node, "value", None), list):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")  # what holds itself comes here before it is counted
        parts = [
            part
            for entry in node.value
            for part in (entry if isinstance(entry, tuple) else (entry,))
        ]
        known[id(node)] = 1 + sum(written_out(part, known) for part in parts)
    return known[id(node)]
