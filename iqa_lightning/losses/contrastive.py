"""Contrastive losses: which pairs of patches attract, and what repels them.

InfoNCE with a queue as in MoCo (https://arxiv.org/abs/1911.05722), NT-Xent as in SimCLR
(https://arxiv.org/abs/2002.05709). All embeddings are expected with unit norm.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

NEGATIVES = ("joint", "summed")


def quality_contrast(
    query: Float[Tensor, "n width"],
    positive: Float[Tensor, "n width"],
    same: Float[Tensor, "n others width"],
    queue: Float[Tensor, "keys width"],
    temperature: float,
    negatives: str = "joint",
    usable: Bool[Tensor, "n keys"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over the queries of -log(attraction of the positive against all negatives), at least 0,
    lower is better.

    `same` are keys of the same image under other degradations, `queue` those of other images;
    `usable` rules out keys of the queue. `joint` puts both groups into one denominator, `summed`
    adds a term for each. An empty group adds nothing, and no negative at all gives 0.

    Raises:
        ValueError: `negatives` is neither.
    """
    if negatives not in NEGATIVES:
        raise ValueError(f"negatives={negatives!r}: choose one of {NEGATIVES}")
    query, positive = query.float(), positive.float()
    attraction = (query * positive).sum(dim=1, keepdim=True) / temperature
    near = torch.einsum("nw,nsw->ns", query, same.float()) / temperature
    far = query @ queue.float().T / temperature
    if usable is not None:
        far = far.masked_fill(~usable, -torch.inf)
    groups = [torch.cat([near, far], dim=1)] if negatives == "joint" else [near, far]
    terms = [
        torch.cat([attraction, group], dim=1).logsumexp(dim=1) - attraction[:, 0]
        for group in groups
    ]
    return torch.stack(terms).sum(dim=0).mean()


def nt_xent(
    first: Float[Tensor, "n width"], second: Float[Tensor, "n width"], temperature: float
) -> Float[Tensor, ""]:
    """Each embedding against its partner and all the others, mean over all 2n; at least 0, lower is
    better.
    """
    both = torch.cat([first, second]).float()
    count = len(both)
    likeness = (both @ both.T / temperature).masked_fill(
        torch.eye(count, dtype=torch.bool, device=both.device), -torch.inf
    )
    partner = torch.arange(count, device=both.device).roll(count // 2)
    return F.cross_entropy(likeness, partner)
