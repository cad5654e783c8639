"""experiments/<table> -> missing runs -> table.md, table.tex, details.md, results/*.csv,
figures/*.png.

`python -m iqa_lightning.reproduce table=<name> jobs=2` trains what `runs.yaml` asks for and is not
finished, then writes the table from the records alone: ours beside the published numbers.
`dashboard=true` shows the results as a page (HTML), `diff <run> <run>` compares two runs, `gmad
<run>[@<task>] <run>[@<task>]` finds the images about which they disagree. No torch in this process.
"""

from iqa_lightning import signals

if __name__ == "__main__":  # before anything that takes time
    signals.install()

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra

from iqa_lightning.configs import config_changes
from iqa_lightning.runs.compose import CONF, check_kinds
from iqa_lightning.runs.folder import method_name, read_config, task_names
from iqa_lightning.runs.mistakes import run_command
from iqa_lightning.runs.process import Outcome, run_subprocess
from iqa_lightning.runs.start import one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from iqa_lightning.records import RunFolder


GRID: dict[str, Any] = {"experiment": None, "methods": None, "variants": {}, "overrides": []}


GRID |= {"orders": ["default"], "splits": [1], "seeds": [0], "chosen": ""}
"""Keys of runs.yaml with their defaults; the first two have none. A variant without overrides is
the method itself.
"""


KINDS = {
    "chosen": (str, "a sentence: how the values of its rows were chosen"),
    "experiment": (str, "a name"),
    "variants": (dict, "names with a list of overrides each"),
}


SOURCES = ("runs", "records", "results")


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


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="reproduce")
def main(cfg: "DictConfig") -> None:
    """Make a table, show one, or compare two runs.

    Raises:
        SystemExit: Something is wrong with the files of the table or with the runs, or a run
            failed.
    """
    with one_line():
        check_kinds("reproduce")
        for kind, number in (("diff", cfg.resamples), ("gmad", cfg.levels)):
            if cfg[kind] is not None:
                print(compare(kind, list(cfg[kind]), number))
                return
        if cfg.dashboard:
            show(cfg)
            return
        failed = reproduce(cfg)
    if failed:
        raise SystemExit("\n".join(["runs that failed or are unfinished:", *failed]))


def reproduce(cfg: "DictConfig") -> list[str]:
    """Make the missing runs and write the table; one line for each run that failed.

    Raises:
        ValueError: naming the file of the table, or the run, that is wrong.
    """
    from iqa_lightning.report.details import collect_details, write_details  # noqa: PLC0415  # pandas, scipy
    from iqa_lightning.report.numbers.results import collect, write_results  # noqa: PLC0415
    from iqa_lightning.report.table_files import write_table  # noqa: PLC0415

    folder, output, source = (
        Path(cfg.experiments) / str(cfg.table),
        Path(cfg.output),
        str(cfg["from"]),
    )
    if source not in SOURCES or cfg.jobs < 1:
        raise ValueError(
            f"from={source} jobs={cfg.jobs}: from is one of {', '.join(SOURCES)}, jobs 1 or more"
        )
    grid = read_grid(folder / "runs.yaml")
    runs, failed = planned_runs(grid, list(cfg.overrides)), []
    if source != "results":
        if source == "runs":
            finished = finished_runs(runs, output, grid["experiment"])
            failed = make(
                [run for run in runs if str(run) not in finished],
                cfg.jobs,
                output,
                grid["experiment"],
            )
        finished = finished_runs(runs, output, grid["experiment"])
        if not finished:
            raise ValueError(
                "\n".join([f"no run of {folder}/runs.yaml is finished under {output}", *failed])
            )
        folders = list(finished.values())
        write_results(folder / "results", collect(folders, cfg.resamples))
        write_details(
            folder / "results",
            collect_details(folders, list(map(independent, folders)), cfg.resamples),
        )
    named = ({"method": label(run), "order": ">".join(map(joined, run.order))} for run in runs)
    planned = [
        name | {"split": run.split, "seed": run.seed} for name, run in zip(named, runs, strict=True)
    ]
    print(write_table(folder, planned, cfg.figures, str(grid["chosen"])))
    return failed


def read_grid(file: Path) -> dict[str, Any]:
    """The grid of a table.

    Raises:
        ValueError: The file is missing, or a key of it is.
    """
    from omegaconf import OmegaConf  # noqa: PLC0415

    if not file.is_file():
        raise ValueError(
            f"{file} is missing: table=<name> is a folder of `experiments` that holds the grid of "
            "its runs"
        )
    given: Any = OmegaConf.to_container(OmegaConf.load(file))
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
                f"{folder.path} is a run of another config:\n{lines}\ntake these into runs.yaml or overrides=[...], "
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
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    env = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // jobs))}

    def train(run: Run) -> Outcome:
        config = run.config | {"paths": run.config["paths"] | {"output": str(output)}}
        words = [*run.words, f"paths.output={quoted(output)}"]
        choices = {"experiment": experiment, "method": run.method.split("@")[0], "stream": None}
        outcome = run_subprocess(config, choices, words, env)
        print(outcome, flush=True)
        return outcome

    signals.move_to(signals.RAISE)
    if runs:
        print(f"{len(runs)} runs to make, {jobs} at a time", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        return [
            f"  {outcome.run}: {outcome.reason}"
            for outcome in pool.map(train, runs)
            if outcome.state in ("failed", "unfinished")
        ]


def compare(kind: str, runs: list[str], number: int) -> str:
    """What differs between two runs (`diff`), or the images about which two states of runs disagree
    (`gmad`), as text.

    `number` is that of resamples or of levels.

    Raises:
        ValueError: They are not two, or not runs that can be compared.
    """
    from iqa_lightning.report.numbers.difference import difference_text  # noqa: PLC0415  # pandas
    from iqa_lightning.report.numbers.gmad import gmad_text  # noqa: PLC0415

    if len(runs) != 2:
        raise ValueError(f"{kind}={runs}: give two run folders, as in `{kind} <run> <run>`")
    if kind == "gmad":
        return gmad_text(runs[0], runs[1], number)
    changes = config_changes(*(read_config(Path(run)) for run in runs))
    return difference_text(runs[0], runs[1], changes, number)


def independent(folder: "RunFolder") -> bool:
    """Whether no task of a run learns from another. Runs of before this was recorded tell by their
    config.
    """
    summary = folder.read_summary()
    method = read_config(folder.path).get("method") or {}
    return bool(summary.get("independent_tasks", method.get("init") == "pretrained"))


def show(cfg: "DictConfig") -> None:
    """Write `dashboard.html` beside a table; push its views to wandb where `push` says whereto.
    Nothing is trained.

    Stored results are shown; those of the finished runs where none are stored, or with
    `from=records`.

    Raises:
        ValueError: There are neither results nor finished runs, or wandb cannot be reached.
    """
    from iqa_lightning.report import wandb_views as dashboard  # noqa: PLC0415  # pandas
    from iqa_lightning.report.numbers import results as sweep  # noqa: PLC0415  # pandas
    from iqa_lightning.report.numbers import verdicts  # noqa: PLC0415
    from iqa_lightning.report.numbers.published import read_published  # noqa: PLC0415
    from iqa_lightning.report.page import html  # noqa: PLC0415  # pandas

    folder, output = Path(cfg.experiments) / str(cfg.table), Path(cfg.output)
    experiment = read_grid(folder / "runs.yaml")["experiment"]
    runs = [run for *_, run in found_runs(output, experiment)]
    results = sweep.results_of(folder / "results", runs, cfg.resamples, cfg["from"] == "records")
    summary = verdicts.summarise(results, read_published(folder / "published.csv"))
    print(
        html.write_page(
            folder, results, summary, [(run, read_config(run.path)) for run in runs], cfg.images
        )
    )
    if cfg.push is not None:
        print(dashboard.push(str(cfg.push), folder.resolve().name, experiment, results, summary))


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


def overrides(words: list[str]) -> list[str]:
    """`diff <run> <run>` and `gmad <run> <run>` as Hydra reads them; other words as they are."""
    if not words or words[0] not in ("diff", "gmad"):
        return words
    runs = list(
        takewhile(
            lambda word: not word.startswith("-") and "=" not in word.split("/")[0], words[1:]
        )
    )
    return [f"{words[0]}=[{','.join(quoted(run) for run in runs)}]", *words[1 + len(runs) :]]


if __name__ == "__main__":
    sys.argv[1:] = overrides(sys.argv[1:])
    run_command(main, "reproduce")
