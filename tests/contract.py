"""What every method must keep, as checks that raise: it learns, it can be broken off anywhere, its
state is all there is of it.

`test_contract.py` puts every method of `conf/method` through them, and two that must fail.
"""

import copy
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.utils.data import DataLoader

from iqa_lightning.continual.callback import ContinualLearning
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.finetune import SingleHead
from iqa_lightning.runs.building import build_method, build_stream
from iqa_lightning.stream.schedule import Position
from iqa_lightning.stream.stream import TaskStream
from tests.walks import TINY, composed, results, walk

State = dict[str, Tensor]

UNSTABLE = "cells.csv"
"""Its PLCC follows a fitted curve, whose last digits depend on where in memory a table lies."""


class ContractError(AssertionError):
    """A method does not keep the contract."""


def build(words: Sequence[str]) -> tuple[Any, TaskStream, ContinualMethod]:
    """Config, stream and method as a run starts with them."""
    cfg = composed(*TINY, *words)
    pl.seed_everything(cfg.seed, verbose=False)
    stream = build_stream(cfg)
    method = build_method(cfg, stream)
    stream.serve(method.training_images, method.phases)
    return cfg, stream, method


# --- what is seen of a walk


@dataclass
class Step:
    """A training step: where in the walk, what it saw, and the whole state before and after it."""

    position: Position
    batch: Batch
    random: Tensor
    optimizers: list[dict[str, Any]]
    before: State
    after: State


class Watch:
    """Watches a walk: what its folder holds in the middle of each phase of task `t`, as a kill
    would leave it, and the first step of that task's last epoch that trains the network.
    """

    def __init__(self, t: int, snapshots: Path) -> None:
        self.t, self.snapshots = t, snapshots
        self.phases: list[str] = []
        self.step: Step | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Of the walk within."""
        hook, original = self.look, ContinualLearning.on_train_batch_start

        def on_train_batch_start(
            self: ContinualLearning, trainer: Any, method: Any, batch: Any, batch_idx: int
        ) -> None:
            original(self, trainer, method, batch, batch_idx)
            hook(trainer, method, self.records.path, batch, batch_idx)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ContinualLearning, "on_train_batch_start", on_train_batch_start)
            yield

    def look(
        self, trainer: pl.Trainer, method: ContinualMethod, folder: Path, batch: Batch, k: int
    ) -> None:
        """Before batch `k` of an epoch."""
        stream = trainer.datamodule
        position = stream.position
        if position.task.t != self.t:
            return
        phase, last = position.phase, position.epoch == position.phase.epochs - 1
        if last and k == min(1, trainer.num_training_batches - 1):
            self.phases.append(phase.name)
            shutil.copytree(folder, self.snapshots / phase.name)
        full = [p for p in stream.phases_of(position.task) if p.trains == "all"]
        if not last or not full or phase != full[-1]:
            return
        if k == 0:
            self.step = Step(
                position,
                copy.deepcopy(batch),
                torch.get_rng_state(),
                [copy.deepcopy(optimizer.state_dict()) for optimizer in trainer.optimizers],
                copy.deepcopy(method.state_dict()),
                {},
            )
        elif k == 1:
            assert self.step is not None
            self.step.after = copy.deepcopy(method.state_dict())


class Again(pl.Callback):
    """Puts a rebuilt method where a step of a walk was taken, and lets it take that step alone."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer, state in zip(trainer.optimizers, self.step.optimizers, strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))
        pl_module.on_phase_start(self.step.position)

    def on_train_batch_start(self, *_: Any) -> None:
        torch.set_rng_state(self.step.random)


# --- the checks


def check_learns(words: Sequence[str], folder: Path) -> None:
    """Training moves the weights: of the heads, where there are such, and of the network.

    Args:
        words: overrides of the walk, which must be without weight decay and without choosing the
            best epoch: decay moves weights by itself.
        folder: of the finished walk.
    """
    _, stream, method = build(words)
    task = stream.tasks[0]
    method.task.fill_(task.t)
    names = {id(parameter): name for name, parameter in method.named_parameters()}
    start = {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}
    end = torch.load(folder / "tasks" / f"{task.t}_{task.name}.ckpt", weights_only=True)
    for part, parameters in (
        ("head", method.head_parameters()),
        ("body", method.body_parameters()),
    ):
        own = [names[id(parameter)] for parameter in parameters]
        if own and all(torch.equal(start[name], end[name]) for name in own):
            raise ContractError(f"no weight of its {part} has moved in task 1: it learns nothing")


def check_resumes(words: Sequence[str], folder: Path, watch: Watch) -> Path:
    """A walk broken off in each phase of a task goes on to the same bytes.

    Args:
        words: overrides of the walk.
        folder: an empty one for the walks.
        watch: what is to note the phases and the step of the whole walk.

    Returns:
        The folder of the whole walk.
    """
    output, snapshots = folder / "run", watch.snapshots
    with watch.watching():
        run = walk(output, *words)
    whole = Path(shutil.copytree(run, folder / "whole"))
    expected = stable(whole)
    _, stream, _ = build(words)
    if watch.phases != [phase.name for phase in stream.phases_of(stream.tasks[watch.t - 1])]:
        raise ContractError(f"task {watch.t} went through the phases {watch.phases} only")
    for phase in watch.phases:
        shutil.rmtree(run)
        shutil.move(snapshots / phase, run)
        found = stable(walk(output, *words))
        if differing := sorted(
            key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
        ):
            raise ContractError(
                f"broken off in {phase} of task {watch.t} and resumed, other bytes: {differing[:4]}"
            )
    return whole


def stable(folder: Path) -> dict[str, bytes]:
    """The bytes of records and weights."""
    return {name: content for name, content in results(folder).items() if name != UNSTABLE}


def check_state(words: Sequence[str], step: Step) -> None:
    """A method saved before a step, rebuilt and loaded takes the step of the one that went on, bit
    for bit.

    Args:
        words: overrides of the walk.
        step: what the walk did.
    """
    cfg, _, method = build(words)
    method.load_state_dict(step.before)
    trainer = instantiate(
        cfg.trainer,
        callbacks=[Again(step)],
        logger=False,
        enable_checkpointing=False,
        max_epochs=1,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer.fit(method, DataLoader([step.batch], batch_size=None))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    found = method.state_dict()
    if differing := [
        name for name, tensor in step.after.items() if not torch.equal(tensor, found[name])
    ]:
        raise ContractError(
            f"saved, rebuilt and loaded, its next step differs, first in {differing[0]}: it keeps "
            "state outside of its state_dict"
        )


def check_count(words: Sequence[str]) -> None:
    """Parameters that the second task trains and the first does not are counted as added."""
    _, _, method = build(words)
    trained: list[dict[int, int]] = []
    for t in (1, 2):
        method.task.fill_(t)
        own = [*method.body_parameters(), *method.head_parameters()]
        trained.append({id(parameter): parameter.numel() for parameter in own})
    new = sum(size for key, size in trained[1].items() if key not in trained[0])
    if method.added_parameters() < new:
        raise ContractError(
            f"task 2 trains {new} parameters of its own, added_parameters() says "
            f"{method.added_parameters()}"
        )


# --- two methods that must fail it


class LearnsNothing(SingleHead):
    """Its loss is multiplied by zero."""

    def loss(self, batch: Batch) -> torch.Tensor:
        return 0.0 * super().loss(batch)


class KeepsItsCount(SingleHead):
    """Its loss depends on a number of steps that no checkpoint holds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.steps = 0

    def loss(self, batch: Batch) -> torch.Tensor:
        self.steps += 1
        return super().loss(batch) / self.steps + 0.01 * self.steps * sum(
            parameter.square().sum() for parameter in self.head_parameters()
        )
