"""Distillation of a teacher's preferences: how an earlier model's order of images is kept.

Source: LwF-KG (https://arxiv.org/abs/2102.09717).
"""

from jaxtyping import Float, Int
from torch import Tensor

from iqa_lightning.losses.fidelity import pair_loss, preference


def distillation_loss(
    scores: Float[Tensor, " images"],
    teacher: Float[Tensor, " images"],
    pairs: Int[Tensor, "pairs 2"],
    link: str = "phi",
) -> Float[Tensor, ""]:
    """Mean fidelity loss over the pairs with the teacher's preference, in [0, 1], as target; 0 without pairs.

    Least where both prefer alike. The teacher's scores get no gradient.
    """
    reference = teacher.detach().float()
    return pair_loss(scores, pairs, preference(reference[pairs[:, 0]] - reference[pairs[:, 1]], link), link)
