"""Distillation of preferences: a student ranks pairs as its teacher does.

Source: the LwF term of LwF-KG, https://arxiv.org/abs/2102.09717.
"""

from jaxtyping import Float, Int
from torch import Tensor

from iqa_lightning.losses.fidelity import fidelity, preference


def kept_preferences(
    scores: Float[Tensor, "images heads"],
    wanted: Float[Tensor, "images heads"],
    pairs: Int[Tensor, "pairs 2"],
    link: str = "phi",
) -> Float[Tensor, ""]:
    """Fidelity loss to the teacher's preferences: mean over the pairs, *summed* over the heads; 0 without pairs."""
    student, teacher = (scores_[pairs[:, 0]] - scores_[pairs[:, 1]] for scores_ in (scores.float(), wanted.float()))
    losses = fidelity(preference(student, link), preference(teacher, link).detach())
    return losses.sum() / max(len(pairs), 1)
