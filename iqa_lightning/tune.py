"""Choose the free values of a table's methods with equal trials: `iqa-lightning tune table=open4`.

A trial is a run of its own on one or two tasks and on a partition that the table does not report;
what counts is the SRCC on its validation parts. The same command goes on where it was interrupted:
the sampler is seeded, so it asks for the same values, and finished trials are there. No torch here.
"""

from iqa_lightning import signals

if __name__ == "__main__":  # before anything that takes time
    signals.install()

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import hydra

from iqa_lightning.report.numbers.trials import Trial, winner, write_trials
from iqa_lightning.runs.compose import CONF, check_kinds
from iqa_lightning.runs.folder import task_names
from iqa_lightning.runs.grid import Run, joined, listed, make_run, orders_of, read_grid, threads
from iqa_lightning.runs.mistakes import run_command
from iqa_lightning.runs.start import check_ranges, check_writable, one_line, whole_number

if TYPE_CHECKING:
    from omegaconf import DictConfig


KEYS = ("trials", "order", "split")


MOST_TRIALS = 1000


COMPOSING = Lock()
"""Hydra composes one config at a time."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="tune")
def main(cfg: "DictConfig") -> None:
    """Make the missing trials of a table and write the winners.

    Raises:
        SystemExit: Something is wrong with the files of the table, or a method has no trial that
            ended.
    """
    with one_line():
        check_kinds("tune")
        check_ranges(cfg)
        tune(cfg)


def tune(cfg: "DictConfig") -> list[Trial]:
    """Make the missing trials; write `tuning.csv` and a yaml for each winner.

    Raises:
        ValueError: naming the file of the table and the key that is wrong, or a method without a
            single score.
    """
    folder, output = Path(cfg.experiments) / str(cfg.table), Path(cfg.output)
    grid = read_grid(folder / "runs.yaml")
    check_writable(output, "output")
    if cfg.methods is not None and not Path(cfg.methods).is_dir():
        raise ValueError(
            f"methods is {cfg.methods}, which is no folder: say where winners are written, or null"
        )
    bases = {method: planned(grid, method, list(cfg.overrides)) for method in grid["methods"]}
    settings = checked(grid, next(iter(bases.values())), folder / "runs.yaml")
    spaces = {method: space(method, base.config["method"]) for method, base in bases.items()}
    signals.move_to(signals.RAISE)
    for method in (method for method, free in spaces.items() if not free):
        print(f"{method}: no free values", flush=True)

    def search(method: str) -> list[Trial]:
        return study(
            bases[method], spaces[method], settings, output / str(cfg.table), threads(cfg.jobs)
        )

    with ThreadPoolExecutor(cfg.jobs) as pool:
        found = list(pool.map(search, [method for method, free in spaces.items() if free]))
    trials = [trial for group in found for trial in group]
    write_trials(folder, trials)
    for group in found:
        best = winner(group)
        print(f"{best.method}: {best.score:.3f} with {said(best.values)} (trial {best.number})")
        if cfg.methods is not None:
            text = as_yaml(best, str(cfg.table), len(group), settings)
            file = Path(cfg.methods) / f"{best.method}_{cfg.table}.yaml"
            file.write_text(text, encoding="utf-8")
            print(f"  written: {file}")
    return trials


def checked(grid: Mapping[str, Any], base: Run, file: Path) -> dict[str, Any]:
    """What `tune:` of a table says.

    Raises:
        ValueError: A key is missing, unknown or wrong, or the table reports what is asked for.
    """
    given = dict(grid["tune"])
    if set(given) != set(KEYS):
        raise ValueError(
            f"{file}: tune has the keys {sorted(given) or 'none'}; expected "
            "tune: {trials: 12, order: [<task>, <task>], split: 1}"
        )
    whole_number(f"{file}: tune.trials", given["trials"], 1, MOST_TRIALS)
    whole_number(f"{file}: tune.split", given["split"], 1, 10)
    names, order = task_names(base.config["stream"]), given["order"]
    if not isinstance(order, list) or not 1 <= len(order) <= 2 or set(order) - set(names):
        raise ValueError(
            f"{file}: tune.order is {order}; expected one or two of {', '.join(names)}, as a list"
        )
    if any(reported[: len(order)] == order for reported in orders_of(grid["orders"], names)):
        raise ValueError(
            f"{file}: tune.order is {order}, and an order of the table begins so: give another"
        )
    return given


def planned(grid: Mapping[str, Any], method: str, overrides: Sequence[str]) -> Run:
    """The trial of a method as its yaml stands, without the words of the trial."""
    from hydra import compose  # noqa: PLC0415
    from omegaconf import OmegaConf  # noqa: PLC0415

    words = (
        f"experiment={grid['experiment']}",
        f"method={method}",
        *grid["overrides"],
        *overrides,
    )
    config: Any = OmegaConf.to_container(compose("train", list(words)), resolve=True)
    return Run(method, [], 1, int(grid["seeds"][0]), words, config)


def space(method: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The free values of a method by key within it: lists of choices, or `{low, high, log}`.

    Raises:
        ValueError: A key is not one of the method's, or a range is none.
    """
    free = dict(config.get("tune") or {})
    for key, values in free.items():
        place: Any = config
        for part in key.split("."):
            place = place.get(part) if isinstance(place, Mapping) else None
        if place is None:
            raise ValueError(f"conf/method/{method}.yaml: tune names {key!r}, which has no value")
        fits = isinstance(values, list) and len(values) > 1
        if isinstance(values, Mapping) and set(values) <= {"low", "high", "log"}:
            fits = values.get("low", 0) < values.get("high", 0)
        if not fits:
            raise ValueError(
                f"conf/method/{method}.yaml: tune.{key} is {values}; expected a list of choices or "
                "{low: ..., high: ..., log: true}"
            )
    return free


def study(
    base: Run,
    free: Mapping[str, Any],
    settings: Mapping[str, Any],
    output: Path,
    env: Mapping[str, str],
) -> list[Trial]:
    """All trials of a method, one after another: the method as it stands, then what the tree-
    structured Parzen estimator of Optuna asks for.

    Raises:
        ValueError: Optuna is not installed.
    """
    try:
        import optuna  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(
            "tune needs Optuna, which is not installed: pip install 'iqa-lightning[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=base.seed, n_startup_trials=5)
    search = optuna.create_study(direction="maximize", sampler=sampler)
    start = {key: value_at(base.config["method"], key) for key in free}
    ranges = {key: distribution(values, start[key]) for key, values in free.items()}
    search.enqueue_trial(start)
    trials = []
    for number in range(1, settings["trials"] + 1):
        asked = search.ask(ranges)
        values = {key: rounded(value) for key, value in asked.params.items()}
        trial = attempt(base, number, values, settings, output, env)
        failed = trial.score != trial.score  # NaN
        state = optuna.trial.TrialState.FAIL if failed else None
        search.tell(asked, None if failed else trial.score, state=state)
        trials.append(trial)
    return trials


def distribution(values: Any, start: Any) -> Any:
    """Optuna's name for a range, which is widened so that the method's own value lies in it."""
    from optuna.distributions import (  # noqa: PLC0415
        CategoricalDistribution,
        FloatDistribution,
    )

    if isinstance(values, list):
        return CategoricalDistribution([*values, *([start] if start not in values else [])])
    low, high = min(values["low"], start), max(values["high"], start)
    return FloatDistribution(low, high, log=bool(values.get("log", False)))


def attempt(
    base: Run,
    number: int,
    values: Mapping[str, Any],
    settings: Mapping[str, Any],
    output: Path,
    env: Mapping[str, str],
) -> Trial:
    """Make the run of a trial, or find it, and read its score."""
    from hydra import compose  # noqa: PLC0415
    from omegaconf import OmegaConf  # noqa: PLC0415

    order, split = list(settings["order"]), settings["split"]
    words = (
        *base.words,
        *(f"method.{key}={value}" for key, value in values.items()),
        "stream.splits=tuning",
        *(f"stream.tasks.{name}.splits=tuning" for name in own_splits(base.config["stream"])),
        f"stream.order={listed(order)}",
        f"split={split}",
        f"seed={base.seed}",
    )
    variant = f"trial{number}-{hashlib.sha256(repr(words).encode()).hexdigest()[:8]}"
    words = (*words, f"variant={variant}")
    with COMPOSING:
        config: Any = OmegaConf.to_container(compose("train", list(words)), resolve=True)
    run = Run(f"{base.method}@{variant}", order, split, base.seed, words, config)
    outcome = make_run(run, output, base.words[0].removeprefix("experiment="), env)
    if outcome.state not in ("finished", "skipped"):
        return Trial(base.method, number, dict(values), float("nan"), outcome.seconds)
    score, seconds = read_score(Path(outcome.folder))
    return Trial(base.method, number, dict(values), score, seconds)


def own_splits(stream: Mapping[str, Any]) -> list[str]:
    """The tasks of a stream whose data sets say by themselves where their splits come from."""
    tasks = stream.get("tasks") or {}
    return [
        name for name, task in tasks.items() if isinstance(task, Mapping) and task.get("splits")
    ]


def read_score(folder: Path) -> tuple[float, float]:
    """Mean SRCC on the validation parts of a run's tasks after the last of them, by the readout
    that the method is used with, and the seconds that the training took.
    """
    from iqa_lightning.metrics.correlation import srcc  # noqa: PLC0415  # scipy
    from iqa_lightning.records import RunFolder  # noqa: PLC0415  # pandas
    from iqa_lightning.report.numbers.gmad import chosen_readout  # noqa: PLC0415

    records = RunFolder(folder)
    frame = list(records.predictions().values())[-1]
    readout = chosen_readout(frame)
    parts = [part for _, part in frame[frame["split"] == "val"].groupby("dataset", sort=False)]
    scores = [srcc(part[readout].to_numpy(), part["mos"].to_numpy()) for part in parts]
    cost = records.read_summary().get("cost") or {}
    return float(sum(scores) / len(scores)), float(cost.get("train_seconds", float("nan")))


def value_at(node: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        node = node[part]
    return node


def rounded(value: Any) -> Any:
    """A number with three digits, which is what a yaml can show."""
    return float(f"{value:.2e}") if isinstance(value, float) else value


def as_yaml(best: Trial, table: str, trials: int, settings: Mapping[str, Any]) -> str:
    """The method of a winner, with where its values come from."""
    from omegaconf import OmegaConf  # noqa: PLC0415

    nested = OmegaConf.create()
    for key, value in best.values.items():
        OmegaConf.update(nested, key, value)
    order = " > ".join(map(joined, settings["order"]))
    return (
        f"# {best.method} for the table {table}: the best of {trials} trials by validation SRCC "
        f"({best.score:.3f}), trial {best.number},\n"
        f"# on {order}, split {settings['split']} of stream.splits=tuning; all of them in "
        f"experiments/{table}/tuning.csv\n"
        f"defaults: [{best.method}, _self_]\n{OmegaConf.to_yaml(nested)}"
    )


def said(values: Mapping[str, Any]) -> str:
    """Values as a person types them."""
    return " ".join(f"method.{key}={value}" for key, value in values.items())


if __name__ == "__main__":
    run_command(main, "tune")
