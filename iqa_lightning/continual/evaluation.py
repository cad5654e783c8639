"""Scoring images: every image once over all ranks, in float32, without a trace in the model."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iqa_lightning.distributed import from_all_ranks
from iqa_lightning.images.cache import ram_budget
from iqa_lightning.methods.base import FIXED, Batch, ContinualMethod
from iqa_lightning.models.backbones import Backbone

Columns = dict[str, NDArray[np.float32]]


FixedPart = Callable[[Batch], Tensor | None]


class FixedParts:
    """What no training changes of the passes over evaluation images, such as the S-CNN's maps:
    computed once a batch.

    Kept in memory, as long as all of it is below `budget` bytes (a quarter of what is free); what
    comes later is computed again each time. The batches of an evaluation are always the same, so
    their first image tells them apart.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = ram_budget() if budget is None else budget
        self.kept: dict[tuple[str, str, int], Tensor] = {}
        self.nbytes = 0

    def of(self, backbone: Backbone, name: str, part: str) -> FixedPart:
        """What looks up, or computes, that part of the pass for the batches of a part of data set
        `name`.
        """

        def find(batch: Batch) -> Tensor | None:
            key, image = (name, part, int(batch["index"][0])), batch["image"]
            if key in self.kept:
                return self.kept[key].to(image.device)
            found = backbone.frozen_output(image)
            if found is not None and self.nbytes + found.nbytes <= self.budget:
                self.kept[key] = found.cpu()
                self.nbytes += found.nbytes
            return found

        return find


@contextmanager
def evaluation_mode(method: ContinualMethod) -> Iterator[None]:
    """Evaluation mode; afterwards each submodule has the mode it had.

    `method.train(True)` afterwards would wake layers that a phase had put to sleep.
    """
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def on_device(method: ContinualMethod, loader: Iterable[Batch]) -> Iterator[Batch]:
    """Batches of a loader on the method's device."""
    for batch in loader:
        yield method.trainer.strategy.batch_to_device(batch)


def share_buffers(method: ContinualMethod) -> None:
    """Give every rank the buffers of the first, such as running statistics; DDP does so at the next
    training step.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for buffer in method.buffers():
            torch.distributed.broadcast(buffer, 0)


def predict(
    method: ContinualMethod,
    loader: Iterable[Batch],
    owner_task: int,
    step: Callable[[Batch], dict[str, Tensor]],
    known: Mapping[str, NDArray[np.float32]] | None = None,
    fixed: FixedPart | None = None,
) -> Columns:
    """What `step` says of every image of `loader`, rows in the order of the data set, the same on
    each rank.

    `owner_task` is the task that learns the data set: each batch carries it. Runs outside the
    training's mixed precision: 8 or 11 bits of mantissa make ties that blur a rank correlation.
    `known` are columns in the order of the data set that the step need not compute again; each
    batch carries its rows of them, and what `fixed` says of it.
    """
    rows: list[dict[str, Any]] = []
    with evaluation_mode(method), torch.no_grad():
        for batch in on_device(method, loader):
            batch["owner_task"] = torch.full_like(batch["index"], owner_task)
            rows_of_batch = batch["index"].cpu().numpy()
            batch["known"] = {
                name: torch.from_numpy(values[rows_of_batch]).to(method.device)
                for name, values in (known or {}).items()
            }
            part = fixed(batch) if fixed else None
            batch["known"] |= {} if part is None else {FIXED: part}
            columns = {"index": batch["index"]} | step(batch)
            rows.append({name: values.cpu().numpy() for name, values in columns.items()})
    rows = [row for rank in from_all_ranks(rows) for row in rank]
    table = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    order = np.argsort(table.pop("index"))
    return {name: values[order].astype(np.float32) for name, values in table.items()}
