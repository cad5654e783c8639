"""Methods whose heads a gate weighs at test time."""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.methods.readouts import HeadScores, Known
from iqa_lightning.models.backbones import Images, Stages
from iqa_lightning.models.gating import Gate


class GatedHeads(ContinualMethod):
    """Several heads, and a gate that says how much each counts for an image; null for none.

    The constructor of a method sets `gate`, its `on_task_start` fits it.

    Args:
        options: see `ContinualMethod`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate: Gate | None = None

    @property
    def uses_gate(self) -> bool:
        """Whether there are heads to choose from (from task 2 on), and a gate that does."""
        return self.gate is not None and self.seen > 1

    @abstractmethod
    def gate_stages(self, image: Images) -> Stages:
        """What the gate reads of an image: features of a network that no training changes, one or
        more stages.
        """

    def watched_features(self, image: Images) -> Float[Tensor, "batch width"]:
        """What the gate reads, where there is one."""
        if self.gate is None:
            return super().watched_features(image)
        return torch.cat(self.gate_stages(image), dim=1).float()

    def weigh_heads(
        self,
        score: Float[Tensor, "batch heads"],
        image: Images,
        known: Known,
        gate_features: Stages | None = None,
    ) -> HeadScores:
        """Scores and their weights, which sum to 1; one head needs no gate.

        Args:
            score: of the heads so far.
            image: the images, for what the gate reads of them.
            known: what need not be computed again.
            gate_features: what the gate reads, where it came out with the scores.
        """
        if self.gate is None:
            return HeadScores(score)
        if not self.uses_gate:
            ones = torch.ones(len(image), self.seen, device=self.device)
            return HeadScores(score, ones, gate_features=gate_features)
        stages = self.gate_stages(image) if known.gate_features is None else known.gate_features
        nearness = self.gate.nearness(stages, self.seen)
        kept = tuple(nearness) if self.independent_tasks and self.gate.independent else ()
        return HeadScores(score, self.gate.weigh(nearness), kept)
