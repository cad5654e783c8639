"""Train a method on a stream of tasks: `python -m iqa_lightning.train experiment=<name>`; the same
command resumes.

Nothing heavy is imported at the top, so that `--help` and `--cfg job` answer at once.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from iqa_lightning.runs.folder import (
    BUSY,
    BusyError,
    is_first_process,
    keep_config,
    method_name,
    names_of,
    sole_owner,
)
from iqa_lightning.runs.process import follow_parent
from iqa_lightning.runs.sweep import run_job

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from iqa_lightning.methods.base import ContinualMethod
    from iqa_lightning.records import RunFolder
    from iqa_lightning.stream.stream import TaskStream


HERE = Path(__file__).resolve().parent


CONF = HERE / "conf" if (HERE / "conf").is_dir() else HERE.parent / "conf"


HINTS = (
    "does not have many workers",  # crops come out of a cache in memory
    "smaller than the logging interval",  # a task may be small
    "Checkpoint directory .* exists",  # that is what resuming means
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6 with torch 2.14
)


@hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Run the configured walk, or go on with it; as a job of a sweep, in a process of its own."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        run_job(cfg)
        return
    try:
        run(cfg)
    except BusyError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(BUSY) from error
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def run(cfg: DictConfig) -> None:
    """One run in its folder: nothing to do if it is finished, go on if it was interrupted, start
    otherwise.
    """
    import pytorch_lightning as pl  # noqa: PLC0415  # torch stays out of --help

    from iqa_lightning.continual.runtime import keep_freed_memory  # noqa: PLC0415
    from iqa_lightning.records import RunFolder  # noqa: PLC0415

    choices = HydraConfig.get().runtime.choices
    silence_hints()
    keep_freed_memory()
    pl.seed_everything(cfg.seed, verbose=False)
    stream = build_stream(cfg)
    cfg.stream.order = (
        stream.order
    )  # an order by name is the same run as the order that it stands for
    method = method_name(choices["method"], cfg.variant)
    names = names_of(choices.get("experiment"), method, stream.order, cfg.split, cfg.seed)
    records = RunFolder(Path(cfg.paths.output).joinpath(*names))
    with sole_owner(records.path):
        keep_config(records.path, to_dict(cfg))
        if not records.read_summary().get("finished"):
            identity = {
                "method": names[1],
                "order": stream.order,
                "split": cfg.split,
                "seed": cfg.seed,
                "git": git_commit(),
            }
            check_start(cfg, stream)
            fit(
                cfg,
                stream,
                build_method(cfg, stream),
                records,
                identity | {"synthetic": stream.synthetic},
                names,
            )
        if is_first_process():
            print_results(records, cfg)


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


def fit(
    cfg: DictConfig,
    stream: TaskStream,
    method: ContinualMethod,
    records: RunFolder,
    identity: dict[str, Any],
    names: tuple[str, ...],
) -> None:
    """Walk the stream from the last checkpoint, or from the start."""
    from pytorch_lightning.callbacks import ModelCheckpoint  # noqa: PLC0415  # torch

    from iqa_lightning.continual.callback import ContinualLearning  # noqa: PLC0415
    from iqa_lightning.continual.checkpoints import AtomicCheckpointIO  # noqa: PLC0415
    from iqa_lightning.continual.display import Display  # noqa: PLC0415
    from iqa_lightning.report.figures import heat_maps  # noqa: PLC0415
    from iqa_lightning.report.text.terminal import print_matrix  # noqa: PLC0415

    last = records.path / "last.ckpt"
    records.clean() if is_first_process() else None
    loggers = instantiate(cfg.logger, folder=records.path, name=" ".join(names[1:]), group=names[0])
    for logger in loggers:
        logger.log_hyperparams(to_dict(cfg))
    build = instantiate(cfg.trainer, _partial_=True)
    callbacks = [
        *build.keywords.get("callbacks", []),
        ContinualLearning(records, identity, cfg.select_best, heat_maps),
        Display(records, print_matrix),
        ModelCheckpoint(
            records.path, "last", save_on_train_epoch_end=True, enable_version_counter=False
        ),
    ]
    trainer: pl.Trainer = build(
        callbacks=callbacks,
        logger=loggers,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=records.path,
    )
    try:
        trainer.fit(
            method, datamodule=stream, ckpt_path=last if last.is_file() else None, weights_only=True
        )
    finally:
        for logger in loggers:
            logger.finalize("success" if trainer.state.finished else "failed")
        finish_wandb()
    if trainer.interrupted:
        raise SystemExit(f"interrupted; the same command goes on from {last}")


def print_results(records: RunFolder, cfg: DictConfig) -> None:
    """Print the results of a run, where they lie and how to look at them."""
    from rich.console import Console  # noqa: PLC0415

    from iqa_lightning.metrics.matrices import derive  # noqa: PLC0415
    from iqa_lightning.report.text.terminal import print_run  # noqa: PLC0415

    console, folder = Console(), records.path
    print_run(derive(records.predictions()), console, records.read_summary()["synthetic"])
    lines = [f"run folder  {folder}", f"figure      {folder / 'srcc.png'}"]
    if cfg.logger.get("wandb"):
        lines += [f"wandb       {path}" for path in sorted(folder.glob("wandb/*run-*"))]
        lines += [
            f"            look at it: wandb leet {folder / 'wandb'}; send it: wandb sync {folder}/wandb/offline-run-*"
        ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def finish_wandb() -> None:
    """Close the wandb run of this process, so that the next run of a sweep opens its own."""
    from iqa_lightning.continual.loggers import warn_on_failure  # noqa: PLC0415

    if "wandb" in sys.modules:
        warn_on_failure(sys.modules["wandb"].finish)()


def to_dict(cfg: DictConfig) -> dict[str, Any]:
    """The config with all references resolved, as to_dict dictionaries."""
    content: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]  # it is a dict
    return content


def git_commit() -> str | None:
    """The commit of the running code, with `+` where files were changed; null where there is no
    git.
    """
    try:
        ask = [
            "git",
            "-C",
            str(HERE),
            "describe",
            "--always",
            "--abbrev=40",
            "--dirty=+",
            "--exclude=*",
        ]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603  # fixed words
    except (OSError, subprocess.CalledProcessError):
        return None


def silence_hints() -> None:
    """Keep hints that do not apply to a walk out of the terminal; errors and warnings of the run
    itself stay.
    """
    import logging  # noqa: PLC0415

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for hint in HINTS:
        warnings.filterwarnings("ignore", f".*{hint}")


if __name__ == "__main__":
    follow_parent()
    main()
