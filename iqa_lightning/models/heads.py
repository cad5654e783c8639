"""Quality heads: one linear map per task on an L2-normalised feature."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class CosineHeads(nn.Module):
    """Bias-free linear heads, one per task, all started from the same random vector.

    The norm of a head is free in training; at test time each head is L2-normalised, so that every score is a cosine in
    [-1, 1] and the heads share one scale (`normalize=False` keeps the free norm at test time as well).

    Source: https://arxiv.org/abs/2107.13429 and its official code.
    """

    def __init__(self, width: int, num_heads: int, normalize: bool = True) -> None:
        super().__init__()
        start = nn.Linear(width, 1, bias=False).weight.detach()[0]
        self.weight = nn.ParameterList(nn.Parameter(start.clone()) for _ in range(num_heads))
        self.normalize = normalize

    def forward(self, feature: Float[Tensor, "batch width"], head: int) -> Float[Tensor, " batch"]:
        """Scores of one head (from 0), higher is better; in float32, where half precision would make ties."""
        with torch.autocast(feature.device.type, enabled=False):
            weight = self.weight[head].float()
            if self.normalize and not self.training:
                weight = F.normalize(weight, dim=0)
            scores: Tensor = F.normalize(feature.float(), dim=1) @ weight
            return scores
