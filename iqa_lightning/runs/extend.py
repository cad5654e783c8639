"""`from=<finished run>`: the config of a run that goes on where another one ended.

All values are the parent's; what is typed besides is the stream of the new data sets, and keys that
change no result. Nothing heavy is imported here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from iqa_lightning.configs import config_changes, is_free
from iqa_lightning.runs.folder import method_name, read_config, shortened, spelt_order
from iqa_lightning.seeds import SCHEME
from iqa_lightning.stream.folders import named_folders
from iqa_lightning.stream.orders import numbered

Config = dict[str, Any]

STREAM = "iqa_lightning.stream.stream.TaskStream"
FOLDER = "iqa_lightning.datasets.csv.CSVData"
HOW = "as in stream=folders 'stream.folders=[<folder>]' or stream=zhang2022 'stream.order=[bid]'"
OF_SETS = ("splits", "split_files")
"""Keys of a stream that hold for each of its data sets."""


@dataclass(frozen=True)
class Parent:
    """A finished run that another one extends: its folder, config, summary and names of tasks."""

    folder: Path
    config: Config
    summary: Config
    tasks: list[str]

    @property
    def identity(self) -> Config:
        """What the summary of the extended run says of it."""
        return {
            "folder": str(self.folder.resolve()),
            "order": self.summary["order"],
            "config_hash": self.summary.get("config_hash"),
        }


def read_parent(place: str) -> Parent:
    """The run in a folder.

    Raises:
        ValueError: there is none, or it is not finished, or of a version that drew other numbers.
    """
    from iqa_lightning.records import RunFolder  # noqa: PLC0415  # pandas

    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise ValueError(f"from={place}: there is no such folder: give that of a finished run")
    summary, config = RunFolder(folder).read_summary(), read_config(folder)
    if "order" not in summary or "stream" not in config:
        raise ValueError(
            f"from={place} is not the folder of a training run, which holds a summary.json and a "
            "config.yaml"
        )
    if not summary.get("finished"):
        raise ValueError(
            f"from={place} is not finished: let the command that began it go on to its end first"
        )
    if summary.get("seeds") != SCHEME:
        raise ValueError(
            f"from={place} drew its random numbers in another way than this version does, so a run "
            "that goes on from it would not be the longer run: train that anew"
        )
    order = spelt_order(config["stream"])
    return Parent(folder, config, summary, ["+".join(sets) for sets in numbered(order)[0]])


def extended(cfg: DictConfig, words: Sequence[str]) -> tuple[DictConfig, Parent]:
    """The config of the extended run and its parent.

    Args:
        cfg: composed of the words; its stream holds the new data sets.
        words: the overrides that were typed.

    Raises:
        ValueError: naming what cannot be, in one line.
    """
    parent = read_parent(str(cfg["from"]))
    typed = OverridesParser.create().parse_overrides(list(words))
    if not any(is_of_stream(override) for override in typed):
        raise ValueError(f"from={cfg['from']}: which data sets are new? Name them, {HOW}")
    keys = [key_of(override) for override in typed if not is_of_stream(override)]
    if any(key == "experiment" for key in keys):
        raise ValueError(
            "from= takes all values from the run that it extends, and an experiment sets values: "
            "take experiment= out"
        )
    given = resolved(cfg, parent.config, keys)
    config = dict(parent.config) | {"from": str(cfg["from"])}
    for key in ("paths.output", *keys):
        place(config, key, given)
    new = given["stream"]
    stream = joined(parent, new)
    if "paths.data" in keys:
        stream = moved(stream, parent.config["paths"]["data"], given["paths"]["data"])
    for override in typed:
        key = key_of(override)
        if key.startswith("stream.") and key.count(".") == 1 and is_free(key):
            stream[key.partition(".")[2]] = new[key.partition(".")[2]]
    names = spelt_order(new)
    refuse_changes(parent, config, [name for task in names for name in listed(task)])
    return OmegaConf.create(config | {"stream": stream}), parent


def is_of_stream(override: Override) -> bool:
    """Whether a word says what the new data sets are."""
    package = str(override.package or "")
    return f"{package or key_of(override)}.".startswith("stream.")


def key_of(override: Override) -> str:
    """The dotted key of a word."""
    return str(override.key_or_group).replace("/", ".")


def resolved(cfg: DictConfig, old: Config, keys: Sequence[str]) -> Config:
    """The composed config without references, which lead to the values of the parent where these
    were not typed.
    """
    cfg = cfg.copy()
    with open_dict(cfg):
        for key in ("seed", "split", "paths.data"):
            if key not in keys:
                OmegaConf.update(cfg, key, OmegaConf.select(OmegaConf.create(old), key))
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    return dict(content)


def place(config: Config, key: str, given: Config) -> None:
    """Put the value at a dotted key of one config into another."""
    *way, last = key.split(".")
    for part in way:
        config[part] = dict(config.get(part) or {})
        config, given = config[part], given.get(part) or {}
    if last in given:
        config[last] = given[last]
    else:
        config.pop(last, None)


def joined(parent: Parent, new: Config) -> Config:
    """The stream of the longer run.

    Raises:
        ValueError: a new data set is learnt already.
    """
    old = parent.config["stream"]
    learnt = {name for task in spelt_order(old) for name in listed(task)}
    order = spelt_order(new)
    added = list(dict.fromkeys(name for task in order for name in listed(task)))
    if twice := next((name for name in added if name in learnt), None):
        raise ValueError(
            f"{twice!r} is learnt already by {parent.folder}: name new data sets alone, {HOW}; "
            f"another folder of that name takes a name of its own, as in "
            f"'stream.folders={{{twice}2: <folder>}}'"
        )
    longer = [*spelt_order(old), *order]
    names = ["+".join(sets) for sets in numbered(longer)[0]]
    if names[: len(parent.tasks)] != parent.tasks:
        raise ValueError(
            f"the new data sets {', '.join(added)} would give tasks of {parent.folder} other "
            "names: call them otherwise"
        )
    if "folders" in old and "folders" in new:
        folders = named_folders(old["folders"])
        folders |= {
            name: place for name, place in named_folders(new["folders"]).items() if name in added
        }
        named_folders(folders)  # refuses one place under two names
        return dict(old) | {"folders": folders, "order": longer}
    tasks, more = tasks_of(old), tasks_of(new)
    for name in added:
        if same := next((known for known in learnt if tasks[known] == more[name]), None):
            raise ValueError(f"{name!r} is learnt already by {parent.folder}, as {same!r}")
        own = {key: new.get(key) for key in OF_SETS if new.get(key) != old.get(key)}
        tasks[name] = {key: value for key, value in own.items() if value is not None} | more[name]
    rest = {key: value for key, value in old.items() if key not in ("folders", "groups", "data")}
    return rest | {"_target_": STREAM, "tasks": tasks, "order": longer}


def tasks_of(stream: Config) -> Config:
    """What builds each data set of a stream of any kind, by name."""
    if "folders" in stream:
        start = {"_target_": FOLDER, "_partial_": True}
        return {name: start | where for name, where in named_folders(stream["folders"]).items()}
    if groups := stream.get("groups"):
        named = groups if isinstance(groups, Mapping) else {name: [name] for name in groups}
        return {
            str(name): stream["data"] | {"distortions": list(group)}
            for name, group in named.items()
        }
    return dict(stream["tasks"])


def listed(task: str | list[str]) -> list[str]:
    """Data sets of a task of an order."""
    return [task] if isinstance(task, str) else task


def moved(node: Any, old: str, new: str) -> Any:
    """A config whose places below one folder lie below another."""
    if isinstance(node, Mapping):
        return {key: moved(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [moved(value, old, new) for value in node]
    if isinstance(node, str) and node.startswith(f"{old}/"):
        return new + node[len(old) :]
    return node


def refuse_changes(parent: Parent, config: Config, added: Sequence[str]) -> None:
    """Refuse other values than the parent's, but for those of the new data sets alone.

    Raises:
        ValueError: naming the first key and both values.
    """
    changes = {
        key: values
        for key, values in config_changes(parent.config, config).items()
        if key.rpartition(".")[2] not in added
    }
    for key, (there, now) in changes.items():
        raise ValueError(
            f"{key} is {there} in {parent.folder} and {now} here: an extended run has the values "
            f"of its parent; take {key} out"
        )


def names_of(config: Config, parent: Parent) -> tuple[str, str, str, str, str]:
    """The five names of the extended run: those of its parent with the longer order.

    The experiment is that of the parent's folder where it lies as it was made.
    """
    method = str(parent.summary["method"])
    if config.get("variant") != parent.config.get("variant"):
        method = method_name(method.split("@", maxsplit=1)[0], config["variant"])
    text = shortened(
        "-".join("+".join(sets) for sets in numbered(spelt_order(config["stream"]))[0])
    )
    last = (f"split{config['split']}", f"seed{config['seed']}")
    places = parent.folder.resolve().parts
    stands = len(places) > 5 and places[-2:] == last and places[-4] == parent.summary["method"]
    return places[-5] if stands else "extended", method, text, *last


def check_method(method: Any, parent: Parent) -> None:
    """Refuse a method that looks ahead.

    Raises:
        ValueError: with the reason.
    """
    if method.training_images.images == "all":
        raise ValueError(
            f"{parent.summary['method']} learns all data sets of its stream at once, so new ones "
            "would have had to be there from the start: train it anew with the longer stream"
        )


def described(config: Config, parent: Parent) -> Iterator[str]:
    """Lines that say what will be trained."""
    tasks = ["+".join(sets) for sets in numbered(spelt_order(config["stream"]))[0]]
    phases = [f"{name} {phase['epochs']}" for name, phase in config["schedule"].items()]
    yield f"extends   {parent.folder} ({', '.join(parent.tasks)})"
    yield f"new       {', '.join(tasks[len(parent.tasks) :])}"
    yield f"method    {parent.summary['method']}, all values as there"
    yield f"budget    {', '.join(phases)} epochs"
