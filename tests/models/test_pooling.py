"""Bilinear pooling against NumPy and by hand."""

import numpy as np
import torch

from iqa_lightning.models.bilinear import bilinear, signed_sqrt


def test_by_hand() -> None:
    one = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # two channels at two positions
    two = torch.tensor([[[[4.0, 6.0]]]])
    assert bilinear(one, two).tolist() == [[[8.0], [6.0]]]  # (1*4 + 2*6) / 2 and 3*4 / 2


def test_equals_outer_products_of_positions() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 5, 3, 4)), rng.normal(size=(2, 7, 3, 4))
    expected = np.zeros((2, 5, 7))
    for b in range(2):
        for h in range(3):
            for w in range(4):
                expected[b] += np.outer(one[b, :, h, w], two[b, :, h, w]) / 12
    np.testing.assert_allclose(bilinear(torch.tensor(one), torch.tensor(two)), expected, rtol=1e-12)


def test_signed_root() -> None:
    found = signed_sqrt(torch.tensor([4.0, -9.0, 0.0], dtype=torch.float64))
    np.testing.assert_allclose(found, [2.0000000025, -3.0000000016666667, 0.0], rtol=1e-12)
