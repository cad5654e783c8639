"""The stream and the method of a config."""

import warnings

from omegaconf import DictConfig

from iqa_lightning.audit.contents import refuse_leaks
from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.runs.compose import instantiate
from iqa_lightning.stream.schedule import Phase
from iqa_lightning.stream.stream import TaskStream


def build_stream(cfg: DictConfig) -> TaskStream:
    """The task stream, with the schedule, view and pairs of the config; a phase of no epochs is
    left out.
    """
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
    allowed, found = bool(cfg.allow_leakage), []
    for weights in {cfg.backbone.get("weights"), cfg.method.get("prior")}:
        found += refuse_leaks(weights, stream.data.values(), allowed)
    if found:
        warnings.warn(
            f"the weights were pre-trained on {len(found)} test images of this stream", stacklevel=1
        )
