"""A teacher: the model as it was at some moment, which a student is compared with."""

import copy
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.models.backbones import Backbone, Images

Network = TypeVar("Network", bound=Backbone)
Heads = TypeVar("Heads", bound=nn.Module)


class Teacher(nn.Module, Generic[Network, Heads]):
    """A frozen twin of a backbone and of its heads.

    Training finds it in evaluation mode (`ContinualMethod.on_phase_start` sees to it), so heads
    that differ by mode are asked for their free norm. It is there from the start, since DDP wraps
    the model once, and holds parameters that nothing trains: DDP would send buffers around at each
    step. What training does not change of the backbone is shared with the student, so that
    `Backbone.frozen_output` serves both.

    Args:
        backbone: the student's.
        heads: the student's, or null where the features alone are compared.
    """

    heads: Heads

    def __init__(self, backbone: Network, heads: Heads | None = None) -> None:
        super().__init__()
        self.backbone: Network = backbone.twin()  # type: ignore[assignment]  # of the same class
        if heads is not None:
            self.heads = copy.deepcopy(heads).requires_grad_(False)

    def take(self, backbone: Backbone, heads: nn.Module | None = None) -> None:
        """Become what the student is now."""
        self.backbone.load_state_dict(backbone.state_dict())
        if heads is not None:
            self.heads.load_state_dict(heads.state_dict())

    @torch.no_grad()
    def follow(self, backbone: Backbone, heads: nn.Module, momentum: float) -> None:
        """Move towards the student: one step of a moving average of weights and running statistics;
        counters are copied.

        Args:
            backbone: the student's.
            heads: the student's.
            momentum: the share that the teacher keeps of itself, in [0, 1].
        """
        for teacher, student in ((self.backbone, backbone), (self.heads, heads)):
            pairs = zip(teacher.state_dict().values(), student.state_dict().values(), strict=True)
            for mine, other in pairs:
                if mine.is_floating_point():
                    mine.lerp_(other, 1 - momentum)
                else:
                    mine.copy_(other)

    @torch.no_grad()
    def forward(
        self, image: Images, frozen_output: Tensor | None = None
    ) -> Float[Tensor, "batch width"]:
        """Features of images; `frozen_output` is what the student's backbone gave for them."""
        feature: Tensor = self.backbone(image, frozen_output)
        return feature
