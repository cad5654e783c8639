"""Methods trained by hand: a few optimiser steps in each phase, without a walk."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.readouts import NOTHING, HeadScores
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.stream.schedule import Phase, Position, Task

WARMUP = Phase("warmup", 1, 8, trains="heads")
FINETUNE = Phase("finetune", 3, 8)
TASKS = ("a", "b", "c")
ADAM = partial(torch.optim.Adam, lr=0.01, weight_decay=5e-4)


def build(
    kind: Callable[..., ContinualMethod],
    backbone: str = "test_efficientnet",
    tasks: tuple[str, ...] = TASKS,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    **arguments: Any,
) -> ContinualMethod:
    """A method over a small random network, as it is before its first task."""
    torch.manual_seed(seed)
    network = Backbone(backbone, None, options=options)
    return kind(
        backbone=network, tasks=tasks, optimizer=arguments.pop("optimizer", ADAM), **arguments
    )


def images(seed: int, count: int = 8, side: int = 32) -> Batch:
    """A batch of noise around a colour that the seed chooses, its pairs and targets."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.randint(0, 200, (1, 3, 1, 1), generator=generator)
    noise = torch.randint(0, 56, (count, 3, side, side), generator=generator)
    pairs = torch.combinations(torch.arange(count), 2)
    target = torch.randint(0, 2, (len(pairs),), generator=generator).float()
    return {
        "image": (colour + noise).to(torch.uint8),
        "pairs": pairs,
        "target": target,
        "index": torch.arange(count),
    }


def at(phase: Phase, t: int = 1, epoch: int = 0) -> Position:
    """An epoch of a phase of task t."""
    return Position(
        Task(t, "x", ("x",)), phase, epoch, epoch if phase.trains == "all" else -1, False, False
    )


def start(method: ContinualMethod, t: int, seed: int | None = None) -> None:
    """Begin task t, whose images the seed chooses; its optimiser is the trainer's."""
    name = method.tasks[t - 1]
    with evaluation_mode(method):
        method.on_task_start(Task(t, name, (name,)), [images(t if seed is None else seed, 12)])
    method.trainer = SimpleNamespace(optimizers=[method.configure_optimizers()])  # type: ignore[assignment]


def step(method: ContinualMethod, batch: Batch) -> None:
    """One optimiser step on a batch."""
    (optimizer,) = method.trainer.optimizers
    optimizer.zero_grad()
    method.loss(batch).backward()
    optimizer.step()


def learn(method: ContinualMethod, t: int, seed: int | None = None) -> ContinualMethod:
    """All of task t: an epoch of warm-up, two of fine-tuning, two steps each."""
    seed = t if seed is None else seed
    start(method, t, seed)
    for position in (at(WARMUP, t), at(FINETUNE, t, 0), at(FINETUNE, t, 1)):
        method.on_phase_start(position)
        for k in range(2):
            step(method, images(100 * seed + k))
    return method


def snapshot(method: ContinualMethod) -> dict[str, torch.Tensor]:
    """A copy of the whole state."""
    return {key: tensor.clone() for key, tensor in method.state_dict().items()}


def changed(before: dict[str, torch.Tensor], method: ContinualMethod) -> set[str]:
    """Names of the tensors that are not what they were, bit for bit."""
    return {
        key for key, tensor in method.state_dict().items() if not torch.equal(tensor, before[key])
    }


def trained(method: ContinualMethod) -> set[str]:
    """Names of the parameters that one step on the current phase changes by a gradient."""
    method.zero_grad(set_to_none=True)
    batch = images(5)
    method.loss(batch).backward()
    return {name for name, parameter in method.named_parameters() if parameter.grad is not None}


def head_scores(method: ContinualMethod, batch: Batch) -> HeadScores:
    """Scores of all heads and weights of the gate, in evaluation mode."""
    with evaluation_mode(method), torch.no_grad():
        return method.head_scores(batch["image"], NOTHING)


def columns(method: ContinualMethod, batch: Batch, owner: int) -> dict[str, torch.Tensor]:
    """What would be recorded of a batch of a data set that task `owner` learns."""
    with evaluation_mode(method), torch.no_grad():
        given = batch | {"owner_task": torch.full_like(batch["index"], owner)}
        return method.predict_step(given).columns
