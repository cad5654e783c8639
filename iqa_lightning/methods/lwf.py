"""LwF with a K-means gate (LwF-KG): what the old heads say of new images must not change.

Zhang et al., "Continual learning for blind image quality assessment",
https://arxiv.org/abs/2102.09717; official code https://github.com/zwx8981/BIQA_CL. Learning without
forgetting: Li and Hoiem, https://arxiv.org/abs/1606.09282.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.losses.distillation import distillation_loss
from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.finetune import MultiHead
from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.stream.schedule import Position


class LwF(MultiHead):
    """Fidelity loss on the new task plus `weight` times that of each old head to a frozen teacher's
    preference, summed.

    The teacher is the whole model as it stands when fine-tuning begins: the best weights of the
    task before and the new head after its warm-up. It runs in evaluation mode, its heads with the
    free norm that they are trained with. The warm-up has no such term, since the backbone stands
    still. Old heads go on learning from the teacher.

    Args:
        weight: of the distillation, per old head; with 0 this is MH-CL.
        options: see `MultiHead`.
    """

    def __init__(self, weight: float = 10.0, **options: Any) -> None:
        super().__init__(**options)
        self.weight = weight
        self.teacher = Teacher(self.backbone, self.heads)
        self.distils = False

    def head_parameters(self) -> list[nn.Parameter]:
        """The head in training and the old ones; who gets no gradient is left alone by the
        optimiser.
        """
        return list(self.heads.weight)[: self.seen]

    def on_phase_start(self, position: Position) -> None:
        """Take the teacher when fine-tuning begins."""
        super().on_phase_start(position)
        self.distils = position.phase.trains == "all" and self.seen > 1 and self.weight != 0
        if position.full_epoch == 0:
            self.teacher.take(self.backbone, self.heads)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Fidelity of the new head to the ratings, and of the old heads to the teacher."""
        if not self.distils:
            return super().loss(batch)
        image, pairs, old = batch["image"], batch["pairs"], range(self.head())
        fixed = self.backbone.frozen_output(image)
        feature = self.backbone(image, fixed)
        before = self.teacher(image, fixed)
        wanted = torch.stack([self.teacher.heads.free(before, k) for k in old], dim=1)
        scores = torch.stack([self.heads(feature, k) for k in old], dim=1)
        new = pair_loss(self.heads(feature, self.head()), pairs, batch["target"], self.link)
        return new + self.weight * distillation_loss(scores, wanted, pairs, self.link)


class EMATeacher(LwF):
    """LwF whose teacher, taken when fine-tuning begins, then is a moving average of the student.

    Args:
        momentum: the share that the teacher keeps of itself in a step: 1 is LwF, 0 makes the
            teacher the student.
        options: see `LwF`.

    Raises:
        ValueError: a momentum outside of [0, 1].
    """

    def __init__(self, momentum: float = 0.999, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= momentum <= 1:
            raise ValueError(f"method.momentum={momentum}: expected a number from 0 to 1")
        self.momentum = momentum

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # Lightning's
        """Move the teacher."""
        if self.distils:
            self.teacher.follow(self.backbone, self.heads, self.momentum)
