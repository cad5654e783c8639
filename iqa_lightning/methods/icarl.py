"""iCaRL for quality: earlier heads keep a teacher's preferences on remembered pairs.

The two variants that the official code of LwF-KG (https://github.com/zwx8981/BIQA_CL) makes of
iCaRL.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.losses.distillation import distillation_loss
from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.replay import MultiHeadReplay, by_task, joined
from iqa_lightning.stream.schedule import Position, Task


class ICaRL(MultiHeadReplay):
    """iCaRL-v1: the head of each earlier task is distilled on remembered pairs of its task; no
    ratings are replayed.

    The teacher is the model as it was when the task began, with fixed statistics; the warm-up
    changes nothing that its heads read. Its scores are on the scale of the training (heads of free
    norm), so that a model that has not changed has no loss to come down from.
    """

    def __init__(self, weight: float = 10.0, **options: Any) -> None:
        super().__init__(weight=weight, **options)
        self.teacher = nn.ModuleList(
            [copy.deepcopy(self.backbone), copy.deepcopy(self.heads)]
        ).requires_grad_(False)

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Take the teacher."""
        super().on_task_start(task, images)
        for teacher, module in zip(self.teacher, (self.backbone, self.heads), strict=True):
            teacher.load_state_dict(module.state_dict())

    def on_phase_start(self, position: Position) -> None:
        """The teacher's backbone stays in evaluation mode."""
        super().on_phase_start(position)
        self.teacher[0].eval()

    def replay_loss(
        self, feature: Float[Tensor, "images width"], memory: Batch
    ) -> Float[Tensor, ""]:
        """Distillation of each earlier head on the memory of its task."""
        backbone, heads = self.teacher
        with torch.no_grad():
            before = backbone(memory["image"])
        terms = [
            distillation_loss(
                self.heads(feature, t - 1), heads(before, t - 1), memory["pairs"][mine], self.link
            )
            for t, mine in by_task(memory)
        ]
        return self.weight * torch.stack(terms).sum()


class ICaRLv2(ICaRL):
    """iCaRL-v2: as v1, and remembered pairs of all tasks, with their ratings, join the batch of the
    latest head.

    Where there is a gate, `gated` is the mean of the latest head's score and the gated one.
    """

    def task_loss(self, feature: Float[Tensor, "images width"], batch: Batch) -> Float[Tensor, ""]:
        """Loss of the current head on the pairs of the batch and of its memory."""
        both = joined(batch)
        return pair_loss(self.heads(feature, self.head()), both["pairs"], both["target"], self.link)

    def mixed(
        self, latest: Float[Tensor, " batch"], gated: Float[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """The score that stands for all heads."""
        return 0.5 * latest + 0.5 * gated

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Float[Tensor, " batch"]]:
        """Columns of the records, `gated` being the mixture."""
        columns = super().predict_step(batch, batch_idx)
        if "gated" in columns:
            columns["gated"] = self.mixed(columns["latest"], columns["gated"])
        return columns
