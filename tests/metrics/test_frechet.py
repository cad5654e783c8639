"""The Frechet distance against its definition with a matrix root."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from iqa_lightning.metrics.frechet import frechet_distance, total_variance


@pytest.mark.parametrize(("n", "m", "width"), [(30, 40, 5), (50, 20, 1)])
def test_by_the_matrix_root(n: int, m: int, width: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (
        rng.normal(size=(n, width)) @ rng.normal(size=(width, width)),
        rng.normal(1, 2, (m, width)),
    )
    c1, c2 = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    root = np.trace(sqrtm(c1 @ c2)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert total_variance(a) == pytest.approx(np.trace(c1))


def test_of_one_dimension_by_hand() -> None:
    assert frechet_distance([[0.0], [2.0]], [[3.0], [7.0]]) == pytest.approx(
        (5 - 1) ** 2 + (8**0.5 - 2**0.5) ** 2
    )


def test_fewer_samples_than_features() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(6, 50))
    assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 1) == pytest.approx(50)
    mean = np.repeat(a.mean(axis=0, keepdims=True), 4, axis=0)
    assert frechet_distance(a, mean) == pytest.approx(total_variance(a))
