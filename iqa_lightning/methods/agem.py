"""A-GEM: no step may make the memory's loss worse.

Chaudhry et al., "Efficient lifelong learning with A-GEM", ICLR 2019,
https://arxiv.org/abs/1812.00420, on pairs of rated images; not part of an IQA paper.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.distributed import mean_over_ranks
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.replay import MultiHeadReplay


class AGEM(MultiHeadReplay):
    """The gradient of the current task loses what would raise the loss of the earlier heads on the
    memory.

    The memory's loss is that of MH-CL-Replay; its gradient is only a direction, so that its weight
    does not matter. Both gradients are over all that the step trains, the earlier heads included,
    and are averaged over the ranks before they are compared. The optimiser then makes its step of
    the projected gradient.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.reference: Tensor | None = None

    def trained(self) -> list[nn.Parameter]:
        """What the optimiser holds."""
        return [*self.body_parameters(), *self.head_parameters()]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of the current task alone; the memory's gradient is put aside."""
        self.reference = self.reference_gradient(batch["replay"]) if "replay" in batch else None
        return super().training_step(
            {key: batch[key] for key in batch if key != "replay"}, batch_idx
        )

    def reference_gradient(self, memory: Batch) -> Float[Tensor, " parameters"]:
        """Gradient of the memory's loss, over all ranks. Not by `backward`, which DDP would take
        for the step's own.
        """
        loss = self.replay_loss(self.backbone(memory["image"]), memory)
        gradients = torch.autograd.grad(loss, self.trained(), allow_unused=True)
        return mean_over_ranks(flat(self.trained(), gradients))

    def on_before_optimizer_step(
        self, optimizer: torch.optim.Optimizer
    ) -> None:  # Lightning's signature
        """Project the gradient, which is averaged over the ranks by now."""
        if self.reference is None:
            return
        gradient = flat(self.trained(), [parameter.grad for parameter in self.trained()])
        projected = project(gradient, self.reference)
        if projected is not gradient:
            pieces = torch.split(projected, [parameter.numel() for parameter in self.trained()])
            for parameter, piece in zip(self.trained(), pieces, strict=True):
                parameter.grad = piece.view_as(parameter).clone(memory_format=torch.preserve_format)


def flat(parameters: list[nn.Parameter], gradients: Any) -> Float[Tensor, " parameters"]:
    """Gradients as one vector; where there is none it is 0."""
    pairs = zip(parameters, gradients, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in pairs])


def project(gradient: Float[Tensor, " n"], reference: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The nearest vector to `gradient` that does not point against `reference`: itself where it
    does not.
    """
    dot = gradient @ reference
    return gradient if dot >= 0 else gradient - dot / (reference @ reference) * reference
