"""GDumb: learn from a memory only, each time from scratch.

Prabhu et al., "GDumb: a simple approach that questions our progress in continual learning", ECCV 2020,
https://www.robots.ox.ac.uk/~tvg/publications/2020/gdumb.pdf; as a baseline of https://arxiv.org/abs/2102.09717.
"""

from collections.abc import Mapping
from typing import Any

from iqa_lightning.data.material import Material
from iqa_lightning.data.memory import ReplayMemory
from iqa_lightning.methods.separate import SeparateModels


class GDumb(SeparateModels):
    """At each task the start weights are trained on what the memory holds once that task is part of it.

    The best epoch is chosen on the current task's validation part, since the memory holds no validation images.
    `memory` holds keywords of `ReplayMemory`, of which `shares` has no meaning here.
    """

    def __init__(self, memory: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.material = Material("memory", ReplayMemory(**(memory or {})))

    def added_parameters(self) -> int:
        """A task adds nothing: the model is replaced."""
        return 0
