"""Batches with a memory, as the stream gives them."""

import torch

from iqa_lightning.methods.base import Batch, ContinualMethod
from tests.methods.steps import FINETUNE, at, build, images, learn, start


def memory_of(*tasks: int, count: int = 4) -> Batch:
    """Remembered images of tasks, `count` of each, paired within their task."""
    parts = [images(100 * t + 7, count) for t in tasks]
    pairs = [part["pairs"] + k * count for k, part in enumerate(parts)]
    joined = {key: torch.cat([part[key] for part in parts]) for key in ("image", "target", "index")}
    task = torch.tensor(tasks).repeat_interleave(count)
    return joined | {"pairs": torch.cat(pairs), "task": task}


def with_memory(seed: int, *tasks: int) -> Batch:
    """A batch of the current task with a memory of others."""
    return images(seed) | {"replay": memory_of(*tasks)}


def in_task(kind: type, t: int, **arguments: object) -> ContinualMethod:
    """A method in the fine-tuning of task t, which logs nowhere."""
    method = build(kind, bn_stats="frozen", **arguments)
    for k in range(1, t):
        learn(method, k)
    start(method, t)
    method.on_phase_start(at(FINETUNE, t))
    method.log = lambda *_, **__: None  # type: ignore[method-assign]
    return method


def step_on(method: ContinualMethod, batch: Batch) -> set[str]:
    """One step of the method's own loss; names of the parameters with a gradient that is not 0."""
    (optimizer,) = method.trainer.optimizers
    optimizer.zero_grad()
    method.training_step(batch, 0).backward()
    method.on_before_optimizer_step(optimizer)
    optimizer.step()
    return {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
