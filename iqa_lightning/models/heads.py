"""Quality heads: one linear map per task on an L2-normalised feature."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.models.ridge import fit_ridge, z_scored

STARTS = ("linear", "kaiming_normal", "ridge")


class CosineHeads(nn.Module):
    """Bias-free linear heads, one per task, all started from the same random vector.

    The norm of a head is free in training; at test time each head is L2-normalised, so that every
    score is a cosine in [-1, 1] and the heads share one scale (`normalize=False` keeps the free
    norm at test time as well).

    `start`: `linear` (PyTorch's own, uniform; norm about 0.58) as in TSN-IQA
    (https://arxiv.org/abs/2107.13429), or `kaiming_normal` (standard deviation sqrt(2 / width),
    norm about 1.41) as in LwF-KG (https://arxiv.org/abs/2102.09717); both from the official codes.
    `ridge` (ours): as `linear` until `start_by_ridge` is called for a head.

    Raises:
        ValueError: another `start`.
    """

    def __init__(
        self, width: int, num_heads: int, normalize: bool = True, start: str = "linear"
    ) -> None:
        super().__init__()
        if start not in STARTS:
            raise ValueError(f"method.head_init={start!r}: choose one of {STARTS}")
        vector = nn.Linear(width, 1, bias=False).weight.detach()
        start_vector = (nn.init.kaiming_normal_(vector) if start == "kaiming_normal" else vector)[0]
        self.weight = nn.ParameterList(nn.Parameter(start_vector.clone()) for _ in range(num_heads))
        self.normalize, self.start = normalize, start

    @torch.no_grad()
    def start_by_ridge(
        self, head: int, feature: Float[Tensor, "images width"], mos: Float[Tensor, " images"]
    ) -> None:
        """Start a head as the ridge regression of the MOS on unit-norm features, penalty by exact
        leave-one-out.

        The MOS have deviation 1 over the images: differences of scores are then of the size that
        the link turns into probabilities. Its constant is left out, since pairs do not see it.

        Raises:
            ValueError: MOS that do not differ, fewer than three images.
        """
        inputs = F.normalize(feature.float(), dim=1).cpu().double().numpy()
        fit = fit_ridge(inputs, z_scored(mos.cpu().double().numpy()))
        if not fit.weight.any():
            raise ValueError(
                "method.head_init=ridge: the MOS of the training images do not differ; "
                "method.head_init=linear starts at random"
            )
        self.weight[head].copy_(torch.from_numpy(fit.weight))

    def forward(self, feature: Float[Tensor, "batch width"], head: int) -> Float[Tensor, " batch"]:
        """Scores of one head (from 0), higher is better; in float32, where half precision would
        make ties.
        """
        weight = self.weight[head].float()
        if self.normalize and not self.training:
            weight = F.normalize(weight, dim=0)
        return cosine(feature, weight)

    def free(self, feature: Float[Tensor, "batch width"], head: int) -> Float[Tensor, " batch"]:
        """Scores of a head with its free norm, in any mode: what training sees."""
        return cosine(feature, self.weight[head].float())


class AuxiliaryHeads(nn.Module):
    """A head for each slot, linear in the feature or, with `hidden` > 0, in a hidden layer that all
    of them share.
    """

    def __init__(self, width: int, num_heads: int, hidden: int = 0) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(width, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.heads = CosineHeads(hidden or width, num_heads)
        self.shared = hidden > 0

    def forward(
        self, feature: Float[Tensor, "batch width"], heads: Sequence[int]
    ) -> Float[Tensor, "batch heads"]:
        """Scores of some heads, higher is better, of unit norm at test time."""
        inner = self.layer(feature)
        return torch.stack([self.heads(inner, k) for k in heads], dim=1)

    def free(
        self, feature: Float[Tensor, "batch width"], heads: Sequence[int]
    ) -> Float[Tensor, "batch heads"]:
        """Scores of some heads with their free norm, in any mode."""
        inner = self.layer(feature)
        return torch.stack([self.heads.free(inner, k) for k in heads], dim=1)

    def parameters_of(self, heads: Sequence[int]) -> list[nn.Parameter]:
        """What is trained of some heads: they and the shared layer."""
        return [*self.layer.parameters(), *(self.heads.weight[k] for k in heads)]


def cosine(
    feature: Float[Tensor, "batch width"], weight: Float[Tensor, " width"]
) -> Float[Tensor, " batch"]:
    """A linear map of unit-norm features, in float32."""
    with torch.autocast(feature.device.type, enabled=False):
        scores: Tensor = F.normalize(feature.float(), dim=1) @ weight
        return scores
