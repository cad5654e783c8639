"""How far two clouds of features are apart, and how wide each is."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def frechet_distance(first: ArrayLike, second: ArrayLike) -> float:
    """Frechet distance between the Gaussians through two samples, (n, width) and (m, width), from
    0; lower is nearer.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), unbiased covariances (Dowson and Landau, Journal of
    Multivariate Analysis 12, 1982, https://doi.org/10.1016/0047-259X(82)90077-X). With C1 = A'A and
    C2 = B'B the trace of the root is the sum of the singular values of A B', which is small where
    there are fewer samples than features.
    """
    (m1, a), (m2, b) = (_mean_and_root(values) for values in (first, second))
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(((m1 - m2) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * shared)


def total_variance(features: ArrayLike) -> float:
    """Trace of the covariance: the Frechet distance to a sample that repeats the mean feature."""
    return float((_mean_and_root(features)[1] ** 2).sum())


def _mean_and_root(features: ArrayLike) -> tuple[Array, Array]:
    values = np.asarray(features, np.float64)
    mean = values.mean(axis=0)
    return mean, (values - mean) / np.sqrt(max(len(values) - 1, 1))
