"""Scoring images: every image once over all ranks, in float32, without a trace in the model, and
nothing twice that no training changes.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iqa_lightning.distributed import from_all_ranks, in_group, rank
from iqa_lightning.images.cache import ram_budget
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.readouts import HasFinalHeads, HasGate, Known
from iqa_lightning.records import RunFolder

Column = TypeVar("Column", bound=Hashable)

Values = NDArray[np.float32]

Part = tuple[str, str]
"""A data set and one of its parts."""


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
    if in_group():
        for buffer in method.buffers():
            torch.distributed.broadcast(buffer, 0)


def predict(
    method: ContinualMethod,
    loader: Iterable[Batch],
    step: Callable[[Batch], Mapping[Column, Tensor]],
) -> dict[Column, Values]:
    """What `step` says of every image of `loader`, rows in the order of the data set, the same on
    each rank.

    Runs outside the training's mixed precision: 8 or 11 bits of mantissa make ties that blur a rank
    correlation.

    Args:
        method: put into evaluation mode, and back.
        loader: this rank's share of the images.
        step: columns of a batch, without the index of its images.
    """
    found: list[tuple[NDArray[np.int64], dict[Column, NDArray[np.generic]]]] = []
    with evaluation_mode(method), torch.no_grad():
        for batch in on_device(method, loader):
            columns = {name: values.cpu().numpy() for name, values in step(batch).items()}
            found.append((batch["index"].cpu().numpy(), columns))
    rows = [row for share in from_all_ranks(found) for row in share]
    order = np.argsort(np.concatenate([index for index, _ in rows]))
    return {
        name: np.concatenate([columns[name] for _, columns in rows])[order].astype(np.float32)
        for name in rows[0][1]
    }


class EvaluationCache:
    """Scores images, and keeps what no training changes of that from one evaluation to the next.

    `final_scores`: scores of heads that cannot change, by part and task, as the records hold them.
    `gate_features`: what a gate reads of each part, a stage each; most often it has come out of the
    evaluation before the first task, else (after a resume) of a pass of its own. `frozen_outputs`:
    the backbone's frozen part of the pass, such as the S-CNN's maps, by part and first image of the
    batch, as the batches of an evaluation are always the same.

    Args:
        budget: bytes that `frozen_outputs` may take, by default a quarter of the memory that is
            free; what comes later is computed again each time.

    `wrap` goes around what is done with each batch: the walk's leaves where it was told to end.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = ram_budget() if budget is None else budget
        self.final_scores: dict[Part, dict[str, Values]] = {}
        self.gate_features: dict[Part, list[Values]] = {}
        self.frozen_outputs: dict[tuple[Part, int], Tensor] = {}
        self.nbytes = 0
        self.wrap: Callable[[Any], Any] = lambda step: step

    def validate(self, method: ContinualMethod, loader: Iterable[Batch], part: Part) -> Values:
        """The score that validation selects by, of each image of a part."""

        def step(batch: Batch) -> dict[str, Tensor]:
            known = Known(frozen_output=self.frozen_output(method, part, batch))
            return {"score": method.selection_score(batch["image"], known)}

        return predict(method, loader, self.wrap(step))["score"]

    def evaluate(
        self, method: ContinualMethod, loader: Iterable[Batch], part: Part, owner_task: int
    ) -> dict[str, Values]:
        """Columns of the records of each image of a part.

        Args:
            method: what scores.
            loader: this rank's share of the part.
            part: whose images they are.
            owner_task: the task that learns the data set.
        """
        if isinstance(method, HasGate) and method.uses_gate and part not in self.gate_features:
            gate: HasGate = method
            found = predict(
                method, loader, lambda batch: dict(enumerate(gate.gate_stages(batch["image"])))
            )
            self.gate_features[part] = list(found.values())

        def step(batch: Batch) -> dict[str | int, Tensor]:
            batch["owner_task"] = torch.full_like(batch["index"], owner_task)
            batch["known"] = self.known(method, part, batch)
            prediction = method.predict_step(batch)
            stages = dict(enumerate(prediction.gate_features or []))
            return {**prediction.columns, **stages}  # type: ignore[dict-item]  # keys of two types

        columns = predict(method, loader, self.wrap(step))
        if stages := [values for name, values in columns.items() if isinstance(name, int)]:
            self.gate_features[part] = stages
        return {name: values for name, values in columns.items() if isinstance(name, str)}

    def read_final_scores(self, method: ContinualMethod, records: RunFolder) -> None:
        """Take from the records what they hold of heads that cannot change."""
        self.final_scores = {}
        tasks = method.final_heads() if isinstance(method, HasFinalHeads) else []
        if not tasks:
            return
        frame = from_all_ranks(records.predictions()[tasks[-1]] if rank() == 0 else None)[0]
        assert frame is not None
        for (name, part), rows in frame.groupby(["dataset", "split"], sort=False):
            scores = {task: rows[f"score/{task}"].to_numpy() for task in tasks}
            self.final_scores[str(name), str(part)] = scores

    def known(self, method: ContinualMethod, part: Part, batch: Batch) -> Known:
        """What is kept of the images of a batch."""
        rows = batch["index"].cpu().numpy()

        def pick(values: Values) -> Tensor:
            return torch.from_numpy(values[rows]).to(method.device)

        final, stages = self.final_scores.get(part, {}), self.gate_features.get(part)
        return Known(
            {task: pick(scores) for task, scores in final.items()},
            None if stages is None else [pick(stage) for stage in stages],
            self.frozen_output(method, part, batch),
        )

    def frozen_output(self, method: ContinualMethod, part: Part, batch: Batch) -> Tensor | None:
        """The backbone's frozen part of the pass, looked up or computed."""
        key, image = (part, int(batch["index"][0])), batch["image"]
        if key in self.frozen_outputs:
            return self.frozen_outputs[key].to(image.device)
        found = method.backbone.frozen_output(image)
        if found is not None and self.nbytes + found.nbytes <= self.budget:
            self.frozen_outputs[key] = found.cpu()
            self.nbytes += found.nbytes
        return found
