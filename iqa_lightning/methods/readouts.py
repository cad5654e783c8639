"""What an evaluation hands to a method and what it gets back: scores of heads, readouts, columns of
the records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from iqa_lightning.models.backbones import Images, Stages

Columns = dict[str, Float[Tensor, " batch"]]


@dataclass(frozen=True)
class Known:
    """What an evaluation has of the images of a batch, which the method need not compute again.

    Args:
        final_scores: (batch,) scores of heads that cannot change, by task; see `HasFinalHeads`.
        gate_features: what the gate reads of the images, a stage each; see `HasGate`.
        frozen_output: what the backbone's `frozen_output` gives for the images.
    """

    final_scores: Mapping[str, Float[Tensor, " batch"]] = field(default_factory=dict)
    gate_features: Stages | None = None
    frozen_output: Tensor | None = None


NOTHING = Known()


@dataclass(frozen=True)
class HeadScores:
    """Scores of the heads that a method has learnt so far, higher is better.

    Args:
        score: of each head, in the order of the tasks.
        gate: weight of each head, where there is a gate; they sum to 1 for each image.
        nearness: of each stage that the gate reads, how near the image lies to each task; where
            tasks are independent, weights among any of them follow from these.
        gate_features: what the gate reads, where it came out on the way.
    """

    score: Float[Tensor, "batch heads"]
    gate: Float[Tensor, "batch heads"] | None = None
    nearness: Sequence[Float[Tensor, "batch heads"]] = ()
    gate_features: Stages | None = None

    def columns(self, tasks: Sequence[str]) -> Columns:
        """Columns of the records, `<kind>/<task>`, of these tasks."""
        kinds = {"score": self.score} | ({} if self.gate is None else {"gate": self.gate})
        kinds |= {f"nearness{i}": stage for i, stage in enumerate(self.nearness, 1)}
        return {
            f"{kind}/{task}": values[:, k]
            for kind, values in kinds.items()
            for k, task in enumerate(tasks)
        }


@dataclass(frozen=True)
class Prediction:
    """What a method says of a batch.

    Args:
        columns: what is recorded of each image, by the name of the column.
        gate_features: what the gate reads of the images, where it came out on the way; not
            recorded.
    """

    columns: Columns
    gate_features: Stages | None = None


@runtime_checkable
class HasFinalHeads(Protocol):
    """A method some of whose heads give the same scores for ever: the records have them."""

    def final_heads(self) -> list[str]:
        """Earlier tasks whose heads, and all that these read, are never changed again."""
        ...


@runtime_checkable
class HasGate(Protocol):
    """A method with a gate, whose features are computed once an image: no training changes them."""

    @property
    def uses_gate(self) -> bool:
        """Whether there are heads to choose from by now, and a gate that does."""
        ...

    def gate_stages(self, image: Images) -> Stages:
        """What the gate reads of an image."""
        ...


@runtime_checkable
class HeadsReadFeatures(Protocol):
    """A method whose heads need nothing of an image but its feature: a warm-up on fixed crops
    computes each feature once.
    """

    @property
    def heads_read_features(self) -> bool:
        """Whether training heads alone needs no more than features."""
        ...

    def feature(self, image: Images) -> Float[Tensor, "batch width"]:
        """What the head in training reads of an image."""
        ...

    def score_feature(self, feature: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """`score` of images with these features."""
        ...


def read_out(heads: HeadScores, owner_task: Int[Tensor, " batch"], task: int) -> Columns:
    """One score an image, by each readout.

    `single` and `latest`: the newest head. `oracle`: the head of the task that learns the image's
    data set, NaN where there is none yet. `gated`: all heads, weighted by the gate, if there is
    one.

    Args:
        heads: of the tasks so far.
        owner_task: the task that learns the data set of each image, from 1.
        task: the current task, 0 before the first.
    """
    scores = heads.score
    latest = scores[:, -1]
    own = scores.gather(1, (owner_task - 1).clamp(0, scores.shape[1] - 1)[:, None])[:, 0]
    columns = {
        "single": latest,
        "latest": latest,
        "oracle": own.masked_fill(owner_task > task, torch.nan),
    }
    if heads.gate is not None:
        columns["gated"] = (heads.gate * scores).sum(dim=1)
    return columns
