"""iCaRL for quality: earlier heads keep a teacher's preferences on remembered pairs.

The two variants that the official code of LwF-KG (https://github.com/zwx8981/BIQA_CL) makes of
iCaRL.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from iqa_lightning.losses.distillation import distillation_loss
from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.readouts import Prediction
from iqa_lightning.methods.replay import MultiHeadReplay, by_task, joined
from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.stream.schedule import Task


class ICaRL(MultiHeadReplay):
    """iCaRL-v1: the head of each earlier task is distilled on remembered pairs of its task; no
    ratings are replayed.

    The teacher is the model as it was when the task began, with fixed statistics; the warm-up
    changes nothing that its heads read. Its scores are on the scale of the training (heads of free
    norm), so that a model that has not changed has no loss to come down from.

    Args:
        weight: of the distillation, for each earlier task.
        options: see `MultiHeadReplay`.
    """

    def __init__(self, weight: float = 10.0, **options: Any) -> None:
        super().__init__(weight=weight, **options)
        self.teacher = Teacher(self.backbone, self.heads)

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Take the teacher."""
        super().on_task_start(task, images)
        self.teacher.take(self.backbone, self.heads)

    def replay_loss(
        self, feature: Float[Tensor, "images width"], memory: Batch
    ) -> Float[Tensor, ""]:
        """Distillation of each earlier head on the memory of its task."""
        before, wanted = self.teacher(memory["image"]), self.teacher.heads.free
        terms = [
            distillation_loss(
                self.heads(feature, t - 1), wanted(before, t - 1), memory["pairs"][mine], self.link
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

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Prediction:
        """Columns of the records, `gated` being the mixture."""
        prediction = super().predict_step(batch, batch_idx)
        columns = prediction.columns
        if "gated" in columns:
            columns["gated"] = 0.5 * columns["latest"] + 0.5 * columns["gated"]
        return prediction
