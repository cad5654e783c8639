"""Train a method on a stream of tasks: `iqa-lightning train experiment=<name>`; the same command
resumes.

Nothing heavy is imported at the top, so that `--help` and `--cfg job` answer at once.
"""

from __future__ import annotations

from iqa_lightning import signals

if __name__ == "__main__":  # before anything that takes time
    signals.install()

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from iqa_lightning.runs.compose import (
    CONF,
    changes_of_experiment,
    check_kinds,
    describe,
    instantiate,
)
from iqa_lightning.runs.extend import Parent, described, extended, names_of
from iqa_lightning.runs.folder import (
    check_config,
    is_first_process,
    keep_config,
    run_names,
    sole_owner,
)
from iqa_lightning.runs.mistakes import run_command
from iqa_lightning.runs.process import follow_parent
from iqa_lightning.runs.start import Begun, check_values, check_writable, one_line
from iqa_lightning.runs.sweep import run_job

if TYPE_CHECKING:
    from iqa_lightning.methods.base import ContinualMethod
    from iqa_lightning.records import RunFolder
    from iqa_lightning.stream.stream import TaskStream


HERE = Path(__file__).resolve().parent


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the configured walk, or go on with it; as a job of a sweep, in a process of its own."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        run_job(cfg)
        return
    with one_line() as begun:
        check_kinds("train")
        run(cfg, begun)


def run(cfg: DictConfig, begun: Begun | None = None) -> None:
    """One run in its folder: nothing to do if it is finished, go on if it was interrupted, start
    otherwise. Nothing is written before all is built and checked.
    """
    hydra, parent = HydraConfig.get(), None
    words = list(hydra.overrides.task or [])
    if cfg["from"] is not None:
        cfg, parent = extended(cfg, words)
    check_values(cfg)
    config = to_dict(cfg)
    names = names_of(config, parent) if parent else run_names(config, hydra.runtime.choices, words)
    from iqa_lightning.records import RunFolder  # noqa: PLC0415  # pandas, which takes a second

    records = RunFolder(Path(cfg.paths.output).joinpath(*names))
    if is_first_process():
        state = "finished" if records.finished else "going on" if records.begun else "starting"
        print(f"{state}: {' '.join(names)}", flush=True)
    check_config(records.path, to_dict(cfg, names))
    if not records.finished:
        check_writable(records.path)
        train(cfg, names, records, begun or Begun(), parent)
    if is_first_process():
        print_results(records)


def train(
    cfg: DictConfig,
    names: tuple[str, ...],
    records: RunFolder,
    begun: Begun,
    parent: Parent | None = None,
) -> None:
    """Build, hold the folder, walk."""
    from iqa_lightning.runs.data import keep_data  # noqa: PLC0415
    from iqa_lightning.runs.walking import Walk, prepare  # noqa: PLC0415  # torch

    prepare(cfg.seed)
    with ExitStack() as held:
        if records.begun:  # another process may be at it, which is better said at once
            held.enter_context(sole_owner(records.path))
        stream = build_stream(cfg)
        cfg.stream.order = stream.order  # by name or not, it is the same run
        walk = Walk(cfg, stream, build_method(cfg, stream), records, names, parent)
        signals.move_to(signals.RAISE)
        check_start(cfg, stream)
        walk.check()
        if not records.begun:
            held.enter_context(sole_owner(records.path))
        if records.finished:  # by another process, meanwhile
            return
        keep_config(records.path, to_dict(cfg))
        if is_first_process():
            print("\n".join(lines_about(cfg, parent)), flush=True)
            keep_data(records.path, stream.data.values(), parent.folder if parent else None)
        walk.find_restart()
        begun.yes = True
        walk.fit()


def lines_about(cfg: DictConfig, parent: Parent | None) -> list[str]:
    """What is said of a run before it trains."""
    if parent is not None:
        return list(described(to_dict(cfg), parent))
    return describe(cfg, HydraConfig.get().runtime.choices, changes_of_experiment())


def build_stream(cfg: DictConfig) -> TaskStream:
    """The task stream, with the schedule, view and pairs of the config; a phase of no epochs is
    left out.
    """
    from iqa_lightning.stream.schedule import Phase  # noqa: PLC0415  # torch

    phases = [
        Phase(name=str(name), **phase) for name, phase in cfg.schedule.items() if phase.epochs
    ]
    build = instantiate(cfg.stream, _partial_=True, _convert_="all")
    stream: TaskStream = build(
        phases=phases,
        view=instantiate(cfg.view),
        pairs=instantiate(cfg.pairs),
        split=cfg.split,
        seed=cfg.seed,
    )
    return stream


def build_method(cfg: DictConfig, stream: TaskStream) -> ContinualMethod:
    """The method over its backbone, sized for the tasks of the stream."""
    tasks = [task.name for task in stream.tasks]
    build = instantiate(cfg.method, _partial_=True, _convert_="all")
    method: ContinualMethod = build(
        backbone=instantiate(cfg.backbone), tasks=tasks, task_datasets=stream.task_datasets
    )
    return method


def check_start(cfg: DictConfig, stream: TaskStream) -> None:
    """Refuse weights whose pre-training has seen test images, unless `allow_leakage` is set; then
    say so.
    """
    from iqa_lightning.audit.contents import refuse_leaks  # noqa: PLC0415  # torch

    allowed, found = bool(cfg.allow_leakage), []
    for weights in {cfg.backbone.get("weights"), cfg.method.get("prior")}:
        found += refuse_leaks(weights, stream.data.values(), allowed)
    if found:
        warnings.warn(
            f"the weights were pre-trained on {len(found)} test images of this stream", stacklevel=1
        )


def print_results(records: RunFolder) -> None:
    """Print the results of a run, where they lie and how to look at them."""
    from rich.console import Console  # noqa: PLC0415

    from iqa_lightning.metrics.matrices import derive  # noqa: PLC0415
    from iqa_lightning.report.text.terminal import print_run  # noqa: PLC0415

    console, folder = Console(), records.path
    summary = records.read_summary()
    print_run(derive(records.predictions()), console, bool(summary.get("synthetic")))
    lines = [f"run folder  {folder}", f"figure      {folder / 'srcc.png'}"]
    lines += [f"note        {note}" for note in summary.get("notes", [])]
    for offline, part in wandb_parts(folder):
        lines.append(
            f"wandb       {part}{' (send it: wandb sync ' + str(part) + ')' if offline else ''}"
        )
    if any(offline for offline, _ in wandb_parts(folder)):
        lines.append(f"            look at it: wandb leet {folder / 'wandb'}")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


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


def to_dict(cfg: DictConfig, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """The config with all references resolved, as plain dictionaries; an order by name is spelt out
    where the `names` of the run are given.
    """
    content: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]  # it is a dict
    if names:
        from iqa_lightning.runs.folder import spelt_order  # noqa: PLC0415

        content["stream"]["order"] = spelt_order(content["stream"])
    return content


if __name__ == "__main__":
    follow_parent()
    run_command(main)
