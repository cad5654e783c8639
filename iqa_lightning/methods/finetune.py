"""Sequential fine-tuning: the lower bounds that every continual method is measured against."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.models.backbones import Images
from iqa_lightning.models.heads import CosineHeads


class SingleHead(ContinualMethod):
    """One network and one head go from task to task (SH-CL of https://arxiv.org/abs/2102.09717)."""

    readouts: ClassVar[tuple[str, ...]] = ("single",)

    def __init__(self, normalize_heads: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.heads = CosineHeads(self.backbone.width, self.num_heads(), normalize_heads)

    def num_heads(self) -> int:
        """Heads over the whole stream."""
        return 1

    def head(self) -> int:
        """Index of the head that the current task trains."""
        return 0

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score of the head in training."""
        return self.heads(self.backbone(image), self.head())  # type: ignore[no-any-return]  # modules are untyped

    def head_scores(
        self,
        image: Images,
        known: Mapping[str, Tensor],  # noqa: ARG002  # the backbone goes on changing
    ) -> dict[str, Float[Tensor, "batch heads"]]:
        """Scores of all heads so far, from one pass."""
        feature = self.backbone(image)
        return {"score": torch.stack([self.heads(feature, k) for k in range(self.head() + 1)], dim=1)}

    def body_parameters(self) -> list[nn.Parameter]:
        """The whole backbone."""
        return list(self.backbone.parameters())

    def head_parameters(self) -> list[nn.Parameter]:
        """The head in training."""
        return [self.heads.weight[self.head()]]

    def added_parameters(self) -> int:
        """A task adds nothing."""
        return 0


class MultiHead(SingleHead):
    """One network goes from task to task, each task with a head of its own (MH-CL of https://arxiv.org/abs/2102.09717)."""

    readouts = ("latest", "oracle")

    def num_heads(self) -> int:
        """One head a task."""
        return len(self.tasks)

    def head(self) -> int:
        """Index of the current task's head."""
        return self.seen - 1

    def added_parameters(self) -> int:
        """A task adds a head."""
        return self.backbone.width
