"""A ridge from sums whose strength needs no image either.

Hoerl and Kennard, Technometrics 12, 1970; the strength by generalised cross-validation: Golub,
Heath and Wahba, Technometrics 21, 1979.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from iqa_lightning.models.ridge import RidgeStatistics


@torch.no_grad()
def ridge_of_sums(
    sums: RidgeStatistics, alphas: Sequence[float], standardize: bool = True
) -> tuple[Float[Tensor, " width+1"], float]:
    """Weights of the features, then the intercept, which is not shrunk; and the strength, of
    `alphas` that of the least generalised cross-validation error.

    Minimises the sum of squared errors plus alpha times the squared norm of the weights.
    GCV = n RSS / (n - degrees of freedom)^2 needs the sums alone.

    Args:
        sums: of the images.
        alphas: strengths to choose from.
        standardize: shrink the weights of features of unit variance; false: as they are.

    Raises:
        ValueError: there are fewer than 2 images.
    """
    n = int(sums.n)
    if n < 2:
        raise ValueError(f"a ridge regression needs 2 images or more, there are {n}")
    mean_x, mean_y = sums.x / n, sums.y / n
    covariance = sums.xx - n * torch.outer(mean_x, mean_x)
    cross = sums.xy - n * mean_x * mean_y
    total = sums.yy - n * mean_y**2
    scale = torch.ones_like(mean_x)
    if standardize:
        variance = covariance.diagonal() / n
        # what differs by rounding alone is constant
        constant = variance <= 1e-12 * (1 + mean_x.square())
        scale = torch.where(constant, torch.inf, variance.clamp_min(0).sqrt())
    covariance, cross = covariance / scale / scale[:, None], cross / scale
    values, vectors = torch.linalg.eigh(covariance)
    values, projected = values.clamp_min(0), vectors.T @ cross
    best, chosen, alpha_chosen = torch.inf, torch.zeros_like(cross), float(alphas[0])
    for alpha in alphas:
        shrunk = projected / (values + alpha)
        residual = (total - 2 * shrunk @ projected + shrunk.square() @ values).clamp_min(0)
        freedom = 1 + (values / (values + alpha)).sum()
        error = float(n * residual / (n - freedom).clamp_min(1e-9) ** 2)
        if error < best:
            best, chosen, alpha_chosen = error, vectors @ shrunk, float(alpha)
    weights = chosen / scale
    return torch.cat([weights, (mean_y - weights @ mean_x)[None]]), alpha_chosen
