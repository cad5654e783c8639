"""Preferences with a learnt uncertainty: each image has a mean and a standard deviation of its
quality.

Source: UNIQUE (Zhang et al., IEEE TIP 30, 2021), https://arxiv.org/abs/2005.13983, and its official
code.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

EPS = 1e-8


def thurstone(
    mean: Float[Tensor, " images"], sigma: Float[Tensor, " images"], pairs: Int[Tensor, "pairs 2"]
) -> Float[Tensor, " pairs"]:
    """Probability in [0, 1] that the first image is better: Phi((m1 - m2) / sqrt(s1^2 + s2^2 +
    1e-8)).

    No gradient goes through the deviations: else a pair could be made to fit by declaring it
    uncertain.
    """
    first, second = pairs[:, 0], pairs[:, 1]
    variance = sigma.float().detach().square()
    z = (mean[first].float() - mean[second].float()) / (
        variance[first] + variance[second] + EPS
    ).sqrt()
    preference: Tensor = torch.special.ndtr(z)
    return preference


def deviation_hinge(
    sigma: Float[Tensor, " images"],
    mos_std: Float[Tensor, " images"],
    pairs: Int[Tensor, "pairs 2"],
    margin: float = 0.025,
) -> Float[Tensor, " pairs"]:
    """0 where the deviations stand in the order of the human ones, `margin` apart; 0 where those
    are not known.

    max(0, margin - sign(s1 - s2) * (sigma1 - sigma2)); of equal deviations nothing is learnt
    (constant margin).
    """
    human = mos_std[pairs[:, 0]] - mos_std[pairs[:, 1]]
    gap = sigma[pairs[:, 0]].float() - sigma[pairs[:, 1]].float()
    hinge = (margin - human.nan_to_num(0.0).sign() * gap).clamp_min(0.0)
    return torch.where(human.isnan(), torch.zeros_like(hinge), hinge)
