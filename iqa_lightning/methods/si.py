"""SI: parameters whose changes lowered the loss of earlier tasks are held back. https://arxiv.org/abs/1703.04200."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from iqa_lightning.data.stream import Task
from iqa_lightning.losses.importance import si_importance
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.regularized import Regularized


class SI(Regularized):
    """Importance: sum over the steps of -gradient * change, divided by squared change over the task plus `damping`.

    The gradient is the optimiser's own, of loss and penalty, before any clipping. The backbone moves in fine-tuning
    only. The best weights of a task come back with the sum as it was then, so that both belong to one path.
    """

    def __init__(self, damping: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.damping = damping
        self.path, self.start = self.like_backbone(), self.like_backbone()
        self.before: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """A new path from here."""
        super().on_task_start(task, images)
        with torch.no_grad():
            for path, start, parameter in zip(self.path, self.start, self.backbone.trainable(), strict=True):
                path.zero_()
                start.copy_(parameter)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:  # noqa: ARG002  # Lightning's signature
        """Remember where the step begins, and which way is down."""
        self.before = [
            (path, parameter, parameter.detach().clone(), parameter.grad.clone())
            for path, parameter in zip(self.path, self.backbone.trainable(), strict=True)
            if parameter.grad is not None
        ]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002  # Lightning's
        """Add the step to the path."""
        with torch.no_grad():
            for path, parameter, old, gradient in self.before:
                path.sub_(gradient * (parameter - old))
        self.before = []

    def new_importance(self) -> Sequence[Tensor]:
        """From start to best weights."""
        changes = (now.detach() - start for now, start in zip(self.backbone.trainable(), self.start, strict=True))
        return [si_importance(path, change, self.damping) for path, change in zip(self.path, changes, strict=True)]
