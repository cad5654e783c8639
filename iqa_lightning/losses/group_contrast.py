"""Contrast between the images of a batch that look best and those that look worst.

The high-level loss of GRepQ (https://arxiv.org/abs/2312.04838), facts from its code
(https://github.com/suhas-srinath/GRepQ, MIT); TTA-IQA (ICCV 2023) has the like.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def extreme_groups(
    quality: Float[Tensor, " batch"], divisor: int = 32
) -> tuple[Int[Tensor, " group"], Int[Tensor, " group"]]:
    """Positions of the lowest and of the highest batch // `divisor` qualities.

    The official configuration calls the divisor `tau`, of which the temperature is independent.

    Raises:
        ValueError: the groups would have fewer than two members, which have nobody to be alike to.
    """
    size = len(quality) // divisor
    if size < 2:
        raise ValueError(
            f"a batch of {len(quality)} images makes groups of {size} (batch // {divisor}), and a "
            f"group needs 2: raise data.batch_size to {2 * divisor} or lower method.divisor"
        )
    order = quality.argsort(stable=True)
    return order[:size], order[-size:]


def group_contrast(
    first: Float[Tensor, "group width"],
    second: Float[Tensor, "group width"],
    temperature: float = 0.5,
) -> Float[Tensor, ""]:
    """Mean over the members of both groups of -log(e^s / (e^s + sum over the other group)), above
    0, lower is better; the same with the groups exchanged.

    s is the mean cosine to the other members of one's own group, all divided by `temperature`. The
    features are of any norm.
    """
    wide = torch.promote_types(first.dtype, torch.float32)
    a, b = (F.normalize(group.to(wide), dim=1) for group in (first, second))
    losses = []
    for own, other in ((a, b), (b, a)):
        likeness = own @ own.T / temperature
        within = (likeness.sum(dim=1) - likeness.diagonal()) / (len(own) - 1)
        against = own @ other.T / temperature
        losses.append(torch.cat([within[:, None], against], dim=1).logsumexp(dim=1) - within)
    return torch.cat(losses).mean()
