"""The fidelity loss between a predicted and a wanted preference.

Source: Tsai et al., "FRank: a ranking method with fidelity loss", SIGIR 2007; as used by TSN-IQA
(https://arxiv.org/abs/2107.13429) and LwF-KG (https://arxiv.org/abs/2102.09717).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

EPS = 1e-8


LINKS = {"phi": math.sqrt(2.0), "phi_unit": 2.0}


def preference(delta: Float[Tensor, " pairs"], link: str = "phi") -> Float[Tensor, " pairs"]:
    """Probability in [0, 1] that the first image of a pair is better, from the difference of the
    two scores.

    `phi` is Phi(delta): the *difference* has unit variance (the papers' choice). `phi_unit` is
    Phi(delta / sqrt 2): each *image* has unit variance (Thurstone's case V).

    Raises:
        ValueError: the link is not one of the two.
    """
    if link not in LINKS:
        raise ValueError(f"link={link!r} is not a preference link: choose one of {sorted(LINKS)}")
    return 0.5 * (1.0 + torch.erf(delta / LINKS[link]))


def fidelity(
    preference: Float[Tensor, " pairs"], target: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Fidelity loss of each pair: 1 where both contradict, 0 where they agree (-1e-4 at the least,
    by EPS).
    """
    p, g = preference, target
    return 1.0 - torch.sqrt(p * g + EPS) - torch.sqrt((1.0 - p) * (1.0 - g) + EPS)


def pair_loss(
    scores: Float[Tensor, " images"],
    pairs: Int[Tensor, "pairs 2"],
    target: Float[Tensor, " pairs"],
    link: str = "phi",
) -> Float[Tensor, ""]:
    """Mean fidelity loss over the pairs of a batch, 0 without pairs; in float32 whatever the
    network computes in.
    """
    scores = scores.float()
    delta = scores[pairs[:, 0]] - scores[pairs[:, 1]]
    return fidelity(preference(delta, link), target.float()).sum() / max(len(pairs), 1)
