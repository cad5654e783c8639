"""Losses of GRMP-IQA on labels that are probabilities, and its rule for two gradients.

Li et al., "Few-shot image quality assessment via adaptation of vision-language models", ICCV 2025,
https://arxiv.org/abs/2409.05381; official code https://github.com/LXDxmu/GRMP-IQA.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

RULES = ("remove_agreeing", "remove_conflicting", "none")


def soft_label_loss(
    logits: Float[Tensor, "batch 2"], target: Float[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the first of two classes to its wanted probability, mean over the batch.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> round(soft_label_loss(logits, torch.tensor([0.8, 0.3])).item(), 6)
    0.570095
    """
    log_q = F.log_softmax(logits.float(), dim=1)
    return -(target * log_q[:, 0] + (1 - target) * log_q[:, 1]).mean()


def soft_class_loss(
    logits: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """Cross-entropy to a teacher's classes, both softened by the temperature, times its square;
    mean over the batch.
    """
    wanted = (teacher.detach().float() / temperature).softmax(dim=1)
    log_p = F.log_softmax(logits.float() / temperature, dim=1)
    return -(wanted * log_p).sum(dim=1).mean() * temperature**2


def adjust_gradient(
    gradient: Float[Tensor, "*shape"],
    other: Float[Tensor, "*shape"],
    strength: float,
    rule: str = "remove_agreeing",
) -> Float[Tensor, "*shape"]:
    """The gradient of one tensor less `strength` times its component along another gradient.

    `remove_agreeing` takes it away where both point the same way, which is GRMP-IQA: with strength
    1 what is left is orthogonal to `other`, with 5 the component is turned round to -4 times
    itself. `remove_conflicting` takes it away where they point against each other, as A-GEM and
    PCGrad do to protect what `other` stands for. `none` leaves it, and so does an `other` of zero.

    >>> import torch
    >>> adjust_gradient(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]), 5.0).tolist()
    [-4.0, 1.0]
    """
    along = F.normalize(other.flatten().float(), dim=0)  # zero stays zero
    component = gradient.flatten().float() @ along
    unwanted = {"remove_agreeing": component > 0, "remove_conflicting": component < 0}
    if rule == "none" or not unwanted[rule]:
        return gradient
    removed = (strength * component * along).view_as(gradient)
    return gradient - removed.to(gradient.dtype)
