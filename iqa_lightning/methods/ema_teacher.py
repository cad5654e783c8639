"""LwF against a teacher that follows the student slowly.

Not in the paper; the teacher is that of https://arxiv.org/abs/1703.01780 (mean teacher).
"""

from typing import Any

import torch

from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.lwf import LwF


class EMATeacher(LwF):
    """LwF whose teacher, taken when fine-tuning begins, then is a moving average of the student.

    `momentum` is the share that the teacher keeps of itself in a step: 1 is LwF, 0 makes the teacher the student.

    Raises:
        ValueError: a momentum outside of [0, 1].
    """

    def __init__(self, momentum: float = 0.999, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= momentum <= 1:
            raise ValueError(f"method.momentum={momentum}: expected a number from 0 to 1")
        self.momentum = momentum

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002  # Lightning's
        """Move the teacher."""
        if self.distils:
            self.follow()

    @torch.no_grad()
    def follow(self) -> None:
        """One step of the average over weights and running statistics; counters are copied."""
        for teacher, student in ((self.teacher, self.backbone), (self.teacher_heads, self.heads)):
            for mine, other in zip(teacher.state_dict().values(), student.state_dict().values(), strict=True):
                if mine.is_floating_point():
                    mine.lerp_(other, 1 - self.momentum)
                else:
                    mine.copy_(other)
