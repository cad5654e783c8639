"""Distillation of a teacher's preferences: how an earlier model's order of images is kept.

Source: LwF-KG (https://arxiv.org/abs/2102.09717).
"""

from jaxtyping import Float, Int
from torch import Tensor

from iqa_lightning.losses.fidelity import fidelity, preference


def distillation_loss(
    scores: Float[Tensor, " images *heads"],
    teacher: Float[Tensor, " images *heads"],
    pairs: Int[Tensor, "pairs 2"],
    link: str = "phi",
) -> Float[Tensor, ""]:
    """Fidelity loss to the teacher's preferences, in [0, 1] a head: mean over the pairs, summed
    over the heads.

    Least where both prefer alike, 0 without pairs. The teacher's scores get no gradient.
    """
    student, wanted = (
        values.float()[pairs[:, 0]] - values.float()[pairs[:, 1]] for values in (scores, teacher)
    )
    losses = fidelity(preference(student, link), preference(wanted, link).detach())
    return losses.sum() / max(len(pairs), 1)
