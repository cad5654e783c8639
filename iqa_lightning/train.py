"""Train a method on a stream of tasks: `iqa-lightning train experiment=<name>`; the same command
resumes.

Nothing heavy is imported at the top, so that `--help` and `--cfg job` answer at once.
"""

from __future__ import annotations

from iqa_lightning import signals

if __name__ == "__main__":  # before anything that takes time
    signals.install()

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from iqa_lightning.runs.compose import (
    CONF,
    changes_of_experiment,
    check_kinds,
    describe,
    to_dict,
)
from iqa_lightning.runs.extend import Parent, described, extended, names_of
from iqa_lightning.runs.folder import (
    check_config,
    is_first_process,
    keep_config,
    run_names,
    sole_owner,
    wandb_parts,
)
from iqa_lightning.runs.mistakes import run_command
from iqa_lightning.runs.process import follow_parent
from iqa_lightning.runs.start import Begun, check_values, check_writable, one_line
from iqa_lightning.runs.sweep import run_job

if TYPE_CHECKING:
    from iqa_lightning.records import RunFolder


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
    from iqa_lightning.runs.building import (  # noqa: PLC0415  # torch
        build_method,
        build_stream,
        check_start,
    )
    from iqa_lightning.runs.data import keep_data  # noqa: PLC0415
    from iqa_lightning.runs.walking import Walk, prepare  # noqa: PLC0415

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


if __name__ == "__main__":
    follow_parent()
    run_command(main)
