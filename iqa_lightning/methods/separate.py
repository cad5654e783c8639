"""Separate models: no task learns from another."""

import copy
from collections.abc import Iterable
from typing import Any

from torch import nn

from iqa_lightning.data.stream import Task
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.finetune import SingleHead


class SeparateModels(SingleHead):
    """Each task is learnt from the start weights anew (SL of https://arxiv.org/abs/2102.09717).

    After task t the model of task t rates all data sets. The start weights are kept beside the model, as parameters
    that nothing trains.
    """

    independent_tasks = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.start = nn.ModuleList([copy.deepcopy(self.backbone), copy.deepcopy(self.heads)]).requires_grad_(False)

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Forget everything."""
        super().on_task_start(task, images)
        for module, start in zip((self.backbone, self.heads), self.start, strict=True):
            module.load_state_dict(start.state_dict())

    def added_parameters(self) -> int:
        """A task adds a whole model."""
        return sum(p.numel() for p in [*self.body_parameters(), *self.head_parameters()])
