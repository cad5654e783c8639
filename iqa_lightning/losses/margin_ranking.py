"""A ranking loss with a margin that follows the spread of the ratings.

From DP-IQA (https://arxiv.org/abs/2405.19996), whose official code computes it and does not add it.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def margin_ranking_loss(
    scores: Float[Tensor, " images"], target: Float[Tensor, " images"], share: float = 0.25
) -> Float[Tensor, ""]:
    """Mean over all pairs of what a pair lacks to be apart by the margin in the right order; 0
    below two images.

    The margin is `share` times the standard deviation of the targets.

    >>> import torch
    >>> loss = margin_ranking_loss(torch.tensor([0.2, 0.6, 0.4]), torch.tensor([0.1, 0.5, 0.9]))
    >>> round(loss.item(), 6)
    0.1
    """
    if len(scores) < 2:
        return scores.sum() * 0.0
    first, second = torch.triu_indices(len(scores), len(scores), 1, device=scores.device)
    scores, target = scores.float(), target.float()
    order = (target[first] - target[second]).sign()
    lacking = share * target.std() - order * (scores[first] - scores[second])
    return lacking.clamp_min(0).mean()
