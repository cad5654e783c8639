"""Ridge regression in closed form: the penalty by exact leave-one-out, and statistics that add up.

Everything is float64 on the processor, whatever device the features come from. Sources: Hoerl and
Kennard, Technometrics 12, 1970; leave-one-out of a linear smoother (PRESS): Allen, Technometrics
16, 1974. Random projection: RanPAC, McDonnell et al., NeurIPS 2023,
https://arxiv.org/abs/2307.02251.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float64]


ALPHAS = np.logspace(-2, 6, 33)
"""Penalties that are tried, for features of unit variance."""


RANK = 1e-10
"""Directions whose singular value is below this share of the largest count as none."""


class RidgeFit(NamedTuple):
    """A linear map: score = features @ `weight` + `bias`.

    `alpha`: its penalty, on standardised features; `error`: mean squared leave-one-out error.
    """

    weight: Float[np.ndarray, " width"]
    bias: float
    alpha: float
    error: float


def z_scored(values: Float[np.ndarray, " images"]) -> Float[np.ndarray, " images"]:
    """Values with mean 0 and (population) deviation 1; all 0 where they do not differ."""
    deviation = values.std()
    centred: Array = values - values.mean()
    return centred / deviation if deviation > 0 else centred


def unit_deviation(deviation: Array) -> Array:
    """The deviations, 1 where there is none."""
    return np.where(deviation > 0, deviation, 1.0)


def decompose(x: Float[np.ndarray, "images width"]) -> tuple[Array, Array, Array]:
    """Thin SVD u, s, v' of centred features, from the eigen-decomposition of the smaller side.

    Directions without variance are left out.
    """
    images, width = x.shape
    values, vectors = np.linalg.eigh(x @ x.T if images <= width else x.T @ x)
    s = np.sqrt(np.maximum(values[::-1], 0.0))
    kept = s > np.sqrt(RANK) * max(float(s[0]), 1e-300)
    s, vectors = s[kept], vectors[:, ::-1][:, kept]
    if images <= width:
        return vectors, s, (vectors.T @ x) / s[:, None]
    return (x @ vectors) / s, s, vectors.T


def fit_ridge(
    x: Float[np.ndarray, "images width"],
    y: Float[np.ndarray, " images"],
    alphas: Sequence[float] | Array = ALPHAS,
) -> RidgeFit:
    """Ridge regression on features standardised by their own mean and deviation.

    The penalty has the least mean squared leave-one-out error, which the eigen-decomposition gives
    exactly for each: the residual of image i divided by 1 - h_i, h_i its leverage.

    Args:
        x: features, any scale.
        y: targets.
        alphas: the penalties to try; the smallest of equals is taken.

    Raises:
        ValueError: fewer than three images, or values that are not finite.
    """
    if len(x) < 3 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(
            f"ridge regression needs three images or more with finite features and targets, got "
            f"{len(x)}"
        )
    mean, deviation = x.mean(axis=0), unit_deviation(x.std(axis=0))
    u, s, vt = decompose((x - mean) / deviation)
    centred = y - y.mean()
    seen = u.T @ centred
    errors = []
    for alpha in alphas:
        shrunk = s**2 / (s**2 + alpha)
        leverage = 1 / len(y) + u**2 @ shrunk  # 1 / n is that of the intercept
        errors.append(np.mean(((centred - u @ (shrunk * seen)) / (1 - leverage)) ** 2))
    best = int(np.argmin(errors))
    weight = vt.T @ (s / (s**2 + alphas[best]) * seen) / deviation
    return RidgeFit(
        weight, float(y.mean() - mean @ weight), float(alphas[best]), float(errors[best])
    )


def ridge_scores(
    x: Array, y: Array, new: Array, alphas: Array = ALPHAS
) -> Float[np.ndarray, "alphas images"]:
    """Predictions of ridge regression on standardised features, of all strengths from one
    decomposition.
    """
    mean, deviation = x.mean(axis=0), unit_deviation(x.std(axis=0))
    u, s, vt = np.linalg.svd((x - mean) / deviation, full_matrices=False)
    projected, seen = (u.T @ (y - y.mean())), (new - mean) / deviation @ vt.T
    shrunk = s * projected / (s**2 + alphas[:, None])
    scores: Array = y.mean() + shrunk @ seen.T
    return scores


class RidgeStatistics(nn.Module):
    """Sums over all images so far from which the ridge regression of all of them follows; no image
    is kept.

    n, sum x, sum y, X'X, X'y, sum y^2, in float64, saved and never trained.
    """

    def __init__(self, width: int) -> None:
        super().__init__()

        def zeros(*shape: int) -> nn.Parameter:
            """No buffer, which DDP would broadcast at each step."""
            return nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=False)

        self.n, self.y, self.yy = zeros(), zeros(), zeros()
        self.x, self.xy, self.xx = zeros(width), zeros(width), zeros(width, width)

    @torch.no_grad()
    def add(self, x: Float[np.ndarray, "images width"], y: Float[np.ndarray, " images"]) -> None:
        """Take in the images of a task."""
        new = {"n": len(y), "y": y.sum(), "yy": y @ y, "x": x.sum(axis=0), "xy": x.T @ y}
        for name, value in (new | {"xx": x.T @ x}).items():
            total = getattr(self, name)
            total.add_(torch.as_tensor(value, dtype=torch.float64).to(total.device))

    def solve(self, alpha: float) -> RidgeFit:
        """The ridge regression of all images, standardised by their mean and deviation."""
        n, total, yy = (float(value) for value in (self.n, self.y, self.yy))
        x, xy, xx = (value.detach().cpu().numpy() for value in (self.x, self.xy, self.xx))
        mean = x / n
        covariance = xx / n - np.outer(mean, mean)
        # what is left of a constant feature is rounding
        spread = np.diag(covariance) > RANK * (np.diag(xx) / n)
        deviation = np.where(spread, np.sqrt(np.where(spread, np.diag(covariance), 1.0)), 1.0)
        gram = n * covariance / np.outer(deviation, deviation)
        wanted = (xy - mean * total) / deviation
        standard = np.linalg.solve(gram + alpha * np.eye(len(x)), wanted)
        residual = yy - total**2 / n - 2 * standard @ wanted + standard @ gram @ standard
        weight = standard / deviation
        return RidgeFit(weight, float(total / n - mean @ weight), alpha, float(residual / n))


class RandomProjection(nn.Module):
    """max(0, x W) with a fixed Gaussian W; x is standardised by the images of the first task.

    W follows from the seed and is not saved. What is standardised otherwise would not add up over
    tasks, so which task is first makes a small difference.

    Args:
        width: of the features.
        count: of the projections; 0 leaves the features as they are.
        seed: of W.
    """

    def __init__(self, width: int, count: int, seed: int = 0) -> None:
        super().__init__()
        self.count, self.width = count, count or width
        drawn = np.random.default_rng(seed).standard_normal((width, count)) / np.sqrt(width)
        self.matrix: Tensor
        self.register_buffer("matrix", torch.from_numpy(drawn), persistent=False)
        self.mean, self.deviation = (
            nn.Parameter(start.double(), requires_grad=False)
            for start in (torch.zeros(width), torch.ones(width))
        )

    @torch.no_grad()
    def fit(self, x: Float[Tensor, "images width"]) -> None:
        """Take mean and deviation of the first task's images."""
        deviation = x.double().std(dim=0, correction=0)
        self.mean.copy_(x.double().mean(dim=0))
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    def forward(self, x: Float[Tensor, "images width"]) -> Float[Tensor, "images count"]:
        """The projected features, in float64."""
        if self.count == 0:
            return x.double()
        return torch.relu((x.double() - self.mean) / self.deviation @ self.matrix)
