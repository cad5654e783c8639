"""From a composed config to objects, and what an experiment changed in it. No torch in here.

`instantiate` is the only one of the package: a config can come from a stranger (a run folder, a
bundle, a plug-in), and what Hydra's own would call with it is anything, `os.system` included.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from inspect import isclass
from pathlib import Path
from typing import Any

import hydra.utils
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from iqa_lightning.kinds import check_arguments

HERE = Path(__file__).resolve().parents[1]


CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"
"""The configs: inside the package in a wheel, beside it in a checkout."""


ROOMS = (
    "continual",
    "datasets",
    "images",
    "losses",
    "methods",
    "models",
    "pretraining",
    "stream",
)


HOMES = (
    *(f"iqa_lightning.{room}." for room in ROOMS),
    "torch.optim.",
    "torch.nn.",
    "timm.optim.",
    "pytorch_lightning.trainer.",
    "pytorch_lightning.callbacks.",
    "pytorch_lightning.strategies.",
    "open_clip.",
)
"""Where classes live that a config may name."""


FUNCTIONS = (
    "iqa_lightning.continual.loggers.make_loggers",
    "iqa_lightning.stream.distortions.distortion_stream",
    "iqa_lightning.stream.distortions.distortion_streams",
    "iqa_lightning.stream.stream.folder_stream",
)
"""The functions that a config may name; others, such as those that delete a cache, it may not."""


ALLOW = "IQA_ALLOW"


RANGES = "tune"
"""Key of a method's ranges for `iqa-lightning tune`: no argument of its constructor."""


def instantiate(node: Any, *args: Any, **kwargs: Any) -> Any:
    """Build what a config names, as `hydra.utils.instantiate` does, where all of it is allowed.

    Args:
        node: of a config, with `_target_`; other targets may lie in it, at any depth.
        args: of the target.
        kwargs: the same, and Hydra's `_partial_`, `_convert_`, `_recursive_`.

    Raises:
        ValueError: A value is missing, or a target lies outside of what is allowed, and nothing was
            built; or the target refuses its arguments, with its own words.
    """
    if isinstance(node, DictConfig) and {"_target_", RANGES} <= node.keys():
        node = copy(node)
        with open_dict(node):
            node.pop(RANGES)
    if OmegaConf.is_config(node) and (missing := sorted(OmegaConf.missing_keys(node))):
        key = missing[0]
        raise ValueError(f"{key} has no value yet: give it as {key}=...")
    try:
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        place = node._get_full_key(None) if OmegaConf.is_config(node) else ""
        for key, target in (*targets(plain, place), *targets(kwargs, place), *targets(args, place)):
            check_target(key, target)
        for key, node_given in constructed(plain, place):
            check_arguments(hydra.utils.get_object(node_given["_target_"]), node_given, key)
        return hydra.utils.instantiate(node, *args, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, (ValueError, TypeError, OSError)):
            key = str(error).rpartition("full_key: ")[2] if "full_key: " in str(error) else place
            raise ValueError(f"{key}: {cause}" if key else str(cause)) from error
        raise
    except OmegaConfBaseException as error:
        raise ValueError(str(error).splitlines()[0]) from error


def targets(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every `_target_` in a plain config with its dotted key."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, Mapping):
        for key, value in node.items():
            where = f"{place}.{key}" if place else str(key)
            if key == "_target_":
                yield where, value
            else:
                yield from targets(value, where)
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from targets(value, f"{place}[{number}]")


def constructed(node: Any, place: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every part of a plain config that names a `_target_`, with its dotted key."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield place, node
        for key, value in node.items():
            yield from constructed(value, f"{place}.{key}" if place else str(key))
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            yield from constructed(value, f"{place}[{number}]")


def check_target(key: str, target: Any) -> None:
    """Refuse a target unless it is a class of `HOMES`, one of `FUNCTIONS`, or of a package that the
    user named.

    The path that is written decides what may be imported; then the object's own home decides,
    since a path can lead through a module to what that one imports
    (`iqa_lightning.datasets.base.os.system`).

    Raises:
        ValueError: naming the key, the target and what is allowed.
    """
    named = admitted()
    homes = (*HOMES, *(f"{package}." for package in named))
    packages = {home.split(".")[0] for home in homes}
    name = target if isinstance(target, str) else f"{target!r}"
    refusal = ValueError(
        f"{key}={name} is not allowed in a config: classes of "
        f"{', '.join(dict.fromkeys(short(home) for home in homes))} are, and what lies in a "
        f"package that you name in the variable {ALLOW} or by allow=[package]"
    )
    if not isinstance(target, str) or name.split(".")[0] not in packages:
        raise refusal
    try:
        found = hydra.utils.get_object(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{key}={name} is not there: {' '.join(str(error).split())[:200]}"
        ) from error
    home = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', '')}"
    if home.split(".", maxsplit=1)[0] in named:
        return
    if home not in FUNCTIONS and not (isclass(found) and home.startswith(homes)):
        raise refusal


def short(home: str) -> str:
    """A home as the message names it: the rooms of this package by their package."""
    return "iqa_lightning" if home.startswith("iqa_lightning.") else home.rstrip(".")


def admitted() -> tuple[str, ...]:
    """Packages that the user admits beside ours: those of `IQA_ALLOW`, by commas, and of `allow=`
    as it was typed.

    The key of the composed config has no say, since a stranger may have written that.
    """
    named = [name.strip() for name in os.environ.get(ALLOW, "").split(",")]
    if HydraConfig.initialized():
        for override in OverridesParser.create().parse_overrides(typed()):
            if override.key_or_group == "allow" and not override.is_delete():
                value = override.value()
                named += [str(name) for name in (value if isinstance(value, list) else [value])]
    return tuple(dict.fromkeys(name for name in named if name))


def typed() -> list[str]:
    """The overrides of the running command."""
    return list(HydraConfig.get().overrides.task)


SEVERAL_KINDS = ("stream.order", "stream.folders")
"""Keys that take a list, a name or a mapping; who reads them judges them."""


def check_kinds(config: str) -> None:
    """Refuse a typed value of another kind than the one that the configs hold (a number, true or
    false, a list, a text), and one that nothing would read; Lightning judges its own (`trainer.*`).

    Args:
        config: name of the command's config.

    Raises:
        ValueError: naming the key and what stands there.
    """
    parser, words = OverridesParser.create(), typed()
    values: dict[str, tuple[Any, Any]] = {}
    added: dict[str, tuple[Any, Any]] = {}
    choices = HydraConfig.get().runtime.choices
    for override in parser.parse_overrides(words):
        key = str(override.key_or_group)
        if override.is_delete() or key in choices or key.startswith(("trainer.", *SEVERAL_KINDS)):
            continue
        kept = added if override.is_add() or override.is_force_add() else values
        kept[key] = (override.input_line, override.value())
    if not values and not added:
        return
    with composing():
        lines = {line for line, _ in (*values.values(), *added.values())}
        content, _ = compose_words(config, [word for word in words if word not in lines])
    for key in added:
        if key.split(".")[0] not in content:
            raise ValueError(f"nothing reads {key}: leave it out")
    there = leaves(content)
    for key, (_, value) in values.items():
        said = other_kind(there.get(key), value)
        if said is not None:
            raise ValueError(f"{key} is {value!r}; it is {said}, as in {key}={shown(there[key])}")


def other_kind(before: Any, value: Any) -> str | None:
    """What a value should be, where it is of another kind than the one before it; null where that
    one does not say or either is null.
    """
    if value is None or before is None or (isinstance(value, str) and "${" in value):
        return None
    if isinstance(before, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(before, int | float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if number else "a number"
    return other_list(before, value) if isinstance(before, list) else None


def other_list(before: list[Any], value: Any) -> str | None:
    """The same where a list stands."""
    if not isinstance(value, list):
        return "a list"
    numbers = bool(before) and all(isinstance(part, int | float) for part in before)
    if numbers and any(isinstance(part, str | bool) for part in value):
        return "a list of numbers"
    return None


@dataclass(frozen=True)
class Changes:
    """What an experiment changed: choices of groups and values by dotted key, each without it and
    with it; null where there is none.
    """

    groups: dict[str, tuple[str | None, str | None]]
    values: dict[str, tuple[Any, Any]]


def changes_of_experiment(config: str = "train") -> Changes:
    """What the experiment of the running command changed.

    Groups are compared with the same command without the experiment; values with the same choices
    of groups without the experiment, so that a changed group counts once and not key by key. What
    the user typed is not the experiment's.

    Args:
        config: name of the command's config.
    """
    chosen = dict(HydraConfig.get().runtime.choices)
    if chosen.get("experiment") is None:
        return Changes({}, {})
    words, choices = typed(), own_choices(chosen)
    with composing():
        own = {word.split("=")[0].lstrip("+~") for word in words}
        groups = [word for word in words if word.split("=")[0] in choices]
        groups = [word for word in groups if not word.startswith("experiment=")]
        try:
            _, before = compose_words(config, [*groups, "~experiment"])
        except HydraException:  # a group that only the experiment brings
            groups = [word for word in groups if "/" not in word.split("=")[0]]
            _, before = compose_words(config, [*groups, "~experiment"])
        kept = {key: value for key, value in choices.items() if key != "experiment"}
        same = [f"{key}={value}" for key, value in kept.items() if value is not None]
        plain, _ = compose_words(config, [*same, "~experiment"])
        full, _ = compose_words(config, words)
    changed = {key: (before.get(key), value) for key, value in kept.items()}
    changed = {key: pair for key, pair in changed.items() if pair[0] != pair[1]}
    values = {
        key: pair
        for key, pair in differences(plain, full)
        if not any(key == word or key.startswith(f"{word}.") for word in own)
    }
    return Changes(
        {
            key: pair
            for key, pair in changed.items()
            if key.split("/")[0] not in changed or "/" not in key
        },
        values,
    )


@contextmanager
def composing() -> Iterator[None]:
    """Compose in a running command with its search path, elsewhere with ours."""
    started = GlobalHydra.instance().is_initialized()
    with nullcontext() if started else hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def compose_words(config: str, words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A config, unresolved, and the choices of its groups, but for those of Hydra and of single
    data sets.
    """
    cfg: DictConfig = hydra.compose(config, list(words), return_hydra_config=True)
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    del content["hydra"]
    return content, own_choices(cfg.hydra.runtime.choices)


def own_choices(choices: Mapping[Any, Any]) -> dict[str, Any]:
    """Choices of groups, but for those of Hydra and of single data sets."""
    return {
        str(key): value
        for key, value in choices.items()
        if not str(key).startswith("hydra/") and "@" not in str(key)
    }


def differences(one: Any, other: Any, place: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Where two plain configs differ: dotted key and both values; a part that only one of them has
    counts as one value.
    """
    if not (isinstance(one, dict) and isinstance(other, dict)):
        if one != other:
            yield place, (one, other)
        return
    for key in dict.fromkeys((*other, *one)):
        where = f"{place}.{key}" if place else str(key)
        yield from differences(one.get(key), other.get(key), where)


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key; a list is a leaf."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= leaves(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def describe(cfg: Mapping[str, Any], choices: Mapping[str, Any], changes: Changes) -> list[str]:
    """Lines that say what will be trained: method, backbone, budget, and what the experiment
    changed.

    Args:
        cfg: the composed config.
        choices: of groups, `HydraConfig.get().runtime.choices`.
        changes: of the experiment.
    """
    phases = [
        f"{name} {phase['epochs']} x {phase['batch_size']} ({phase.get('trains', 'all')}"
        f"{'' if phase.get('tasks', 'all') == 'all' else ', tasks: ' + phase['tasks']})"
        for name, phase in cfg["schedule"].items()
        if phase["epochs"]
    ]
    size = epoch_size(cfg["pairs"])
    rows = [
        ("method", choices["method"]),
        ("backbone", choices["backbone"]),
        ("budget", f"{choices['schedule']}: {', '.join(phases)} (epochs x batch size); {size}"),
    ]
    if choices.get("experiment") is not None:
        rows.append(("experiment", choices["experiment"]))
        rows += [
            (f"  {key}", f"{shown(now)} (without it {shown(before)})")
            for key, (before, now) in (changes.groups | changes.values).items()
        ]
    width = max(len(key) for key, _ in rows) + 2
    return [f"{key:{width}}{value}" for key, value in rows]


def shown(value: Any) -> str:
    """A value as a config writes it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {shown(part)}' for key, part in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def epoch_size(pairs: Mapping[str, Any]) -> str:
    """How much an epoch is, from the config of pairs."""
    for key, text in (
        ("min_images", "at least {} images an epoch"),
        ("count", "{} pairs an epoch"),
        ("steps", "{} steps an epoch"),
    ):
        if pairs.get(key):
            return text.format(pairs[key])
    return "all training images an epoch"


def to_dict(cfg: DictConfig, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """The config with all references resolved, as plain dictionaries; an order by name is spelt out
    where the `names` of the run are given.
    """
    content: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]  # it is a dict
    if names:
        from iqa_lightning.runs.folder import spelt_order  # noqa: PLC0415

        content["stream"]["order"] = spelt_order(content["stream"])
    return content
