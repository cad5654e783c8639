"""The grid of a table, `experiments/<table>/runs.yaml`: the runs that it asks for, those that are
there, and the making of the others. No torch in this process.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iqa_lightning import signals
from iqa_lightning.configs import config_changes, read_yaml
from iqa_lightning.runs.folder import method_name, read_config, task_names
from iqa_lightning.runs.process import Outcome, run_subprocess

if TYPE_CHECKING:
    from iqa_lightning.records import RunFolder


GRID: dict[str, Any] = {"experiment": None, "methods": None, "variants": {}, "overrides": []}


GRID |= {"orders": ["default"], "splits": [1], "seeds": [0], "chosen": "", "tune": {}}
"""Keys of runs.yaml with their defaults; the first two have none. A variant without overrides is
the method itself.
"""


KINDS = {
    "chosen": (str, "a sentence: how the values of its rows were chosen"),
    "experiment": (str, "a name"),
    "variants": (dict, "names with a list of overrides each"),
    "tune": (dict, "trials, order and split, as conf/tune.yaml says"),
}


Order = list[Any]  # names of data sets; a list in it is a joint task


@dataclass(frozen=True)
class Run:
    """One run of a grid: `words` are the overrides of its training, `config` is what they compose
    to.
    """

    method: str
    order: Order
    split: int
    seed: int
    words: tuple[str, ...]
    config: dict[str, Any]

    def __str__(self) -> str:
        return (
            f"{self.method} {'-'.join(map(joined, self.order))} split{self.split} seed{self.seed}"
        )


def read_grid(file: Path) -> dict[str, Any]:
    """The grid of a table.

    Raises:
        ValueError: The file is missing, or a key of it is.
    """
    if not file.is_file():
        raise ValueError(
            f"{file} is missing: table=<name> is a folder of `experiments` that holds the grid of "
            "its runs"
        )
    given: Any = read_yaml(file)
    if not isinstance(given, dict) or (unknown := sorted(given.keys() - GRID.keys())):
        raise ValueError(
            f"{file}: {unknown if isinstance(given, dict) else given} not known; keys: "
            f"{', '.join(GRID)}"
        )
    grid: dict[str, Any] = GRID | given
    for key, value in grid.items():
        kind, words = KINDS.get(key, (list, "a list"))
        if not isinstance(value, kind):
            raise ValueError(f"{file}: {key} is {value}; expected {words}")
    return grid


def planned_runs(grid: dict[str, Any], overrides: list[str]) -> list[Run]:
    """All runs of a grid, each with the config that its training will have."""
    from hydra import compose  # noqa: PLC0415
    from omegaconf import OmegaConf  # noqa: PLC0415

    runs = []
    plain = ("variant=''",)  # a table's overrides are part of the table, not of a method's name
    named = [
        (f"variant={name}", *words) if words else plain for name, words in grid["variants"].items()
    ]
    for method, variant in product(grid["methods"], named or [plain]):
        words = (
            f"experiment={grid['experiment']}",
            f"method={method}",
            *grid["overrides"],
            *variant,
            *overrides,
        )
        cfg = compose("train", list(words))
        names = task_names(cfg.stream)
        for order, split, seed in product(
            orders_of(grid["orders"], names), grid["splits"], grid["seeds"]
        ):
            cfg.stream.order, cfg.split, cfg.seed = order, split, seed
            config: Any = OmegaConf.to_container(cfg, resolve=True)
            last = (f"stream.order={listed(order)}", f"split={split}", f"seed={seed}")
            runs.append(
                Run(
                    method_name(method, cfg.variant or None),
                    order,
                    split,
                    seed,
                    (*words, *last),
                    config,
                )
            )
    return runs


def orders_of(entries: Sequence[Any], names: list[str]) -> list[Order]:
    """The orders that the entries of a grid stand for, each once."""
    from iqa_lightning.stream.orders import expand_orders  # noqa: PLC0415

    orders: list[Order] = []
    for entry in entries:
        for order in expand_orders(entry, names) if isinstance(entry, str) else [list(entry)]:
            if order not in orders:
                orders.append(order)
    return orders


def finished_runs(runs: Sequence[Run], output: Path, experiment: str) -> "dict[str, RunFolder]":
    """The finished ones of the planned runs, in their order, with their folders.

    Raises:
        ValueError: A folder holds a finished run of another config.
    """
    there = {
        (method, str(order), split, seed): run
        for method, order, split, seed, run in found_runs(output, experiment)
    }
    finished = {}
    for run in runs:
        folder = there.get((run.method, str(run.order), run.split, run.seed))
        if folder is None:
            continue
        if changed := config_changes(read_config(folder.path) or run.config, run.config):
            lines = "\n".join(
                f"  {key}: {old} there, {new} in the grid" for key, (old, new) in changed.items()
            )
            raise ValueError(
                f"{folder.path} is a run of another config:\n{lines}\ntake these into runs.yaml or "
                "overrides=[...], "
                "choose another output=, or delete the folder"
            )
        finished[str(run)] = folder
    return finished


def found_runs(output: Path, experiment: str) -> "Iterator[tuple[str, Order, int, int, RunFolder]]":
    """Every finished run of an experiment: method, order, split, seed, folder."""
    from iqa_lightning.records import RunFolder  # noqa: PLC0415  # pandas

    for path in sorted((output / experiment).glob("*/*/split*/seed*/summary.json")):
        summary = (folder := RunFolder(path.parent)).read_summary()
        if summary.get("finished"):
            yield summary["method"], summary["order"], summary["split"], summary["seed"], folder


def make(runs: Sequence[Run], jobs: int, output: Path, experiment: str) -> list[str]:
    """Train `runs`, `jobs` at a time, with the threads that are set or a share of the cores; a line
    for each failed.
    """
    env = threads(jobs)
    signals.move_to(signals.RAISE)
    if runs:
        print(f"{len(runs)} runs to make, {jobs} at a time", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = pool.map(lambda run: make_run(run, output, experiment, env), runs)
        return [
            f"  {outcome.run}: {outcome.reason}"
            for outcome in outcomes
            if outcome.state in ("failed", "unfinished")
        ]


def threads(jobs: int) -> dict[str, str]:
    """The environment of one of `jobs` runs at a time: the threads set, or its share of cores."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // jobs))}


def make_run(run: Run, output: Path, experiment: str, env: Mapping[str, str]) -> Outcome:
    """Train one run in a process of its own, go on with it, or leave it where it is finished."""
    config = run.config | {"paths": run.config["paths"] | {"output": str(output)}}
    words = [*run.words, f"paths.output={quoted(output)}"]
    choices = {"experiment": experiment, "method": run.method.split("@")[0], "stream": None}
    outcome = run_subprocess(config, choices, words, env)
    print(outcome, flush=True)
    return outcome


def joined(task: Any) -> str:
    """The name of a task of an order."""
    return task if isinstance(task, str) else "+".join(task)


def listed(order: Order) -> str:
    """An order as Hydra reads it."""
    return f"[{','.join(task if isinstance(task, str) else listed(task) for task in order)}]"


def quoted(path: Path | str) -> str:
    """A path as Hydra reads it, whatever signs it holds."""
    return "'" + str(path).replace("'", r"\'") + "'"


def label(run: Run) -> str:
    """The method of a run as tables call it."""
    return (
        run.method if all(isinstance(task, str) for task in run.order) else f"{run.method} (joint)"
    )
