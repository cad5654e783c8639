"""Contrastive losses against loops in NumPy that follow the formulas."""

import numpy as np
import pytest
import torch

from iqa_lightning.losses.contrastive import nt_xent, quality_contrast


def unit(generator: np.random.Generator, *shape: int) -> np.ndarray:
    values = generator.normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def reference(u, positive, same, queue, tau, negatives, usable=None) -> float:
    """-log of the spec's fraction, one query after another."""
    losses = []
    for i in range(len(u)):
        p = np.exp(u[i] @ positive[i] / tau)
        near = sum(np.exp(u[i] @ v / tau) for v in same[i])
        far = sum(
            np.exp(u[i] @ n / tau) for j, n in enumerate(queue) if usable is None or usable[i, j]
        )
        if negatives == "joint":
            losses.append(-np.log(p / (p + near + far)))
        else:
            losses.append(-np.log(p / (p + near)) - np.log(p / (p + far)))
    return float(np.mean(losses))


@pytest.mark.parametrize("negatives", ["joint", "summed"])
@pytest.mark.parametrize(("others", "keys"), [(1, 7), (3, 2), (0, 5), (2, 0)])
@pytest.mark.parametrize("masked", [False, True])
def test_both_groupings(negatives: str, others: int, keys: int, masked: bool) -> None:
    generator = np.random.default_rng(others + keys)
    u, positive = unit(generator, 4, 6), unit(generator, 4, 6)
    same, queue = unit(generator, 4, others, 6), unit(generator, keys, 6)
    usable = generator.random((4, keys)) < 0.5 if masked else None
    arrays = [torch.from_numpy(array) for array in (u, positive, same, queue)]
    mask = None if usable is None else torch.from_numpy(usable)
    loss = quality_contrast(*arrays, 0.2, negatives, mask)
    assert float(loss) == pytest.approx(
        reference(u, positive, same, queue, 0.2, negatives, usable), rel=1e-5
    )


def test_groupings_differ_and_gradients_are_finite() -> None:
    generator = np.random.default_rng(0)
    u = torch.from_numpy(unit(generator, 3, 5))
    rest = [torch.from_numpy(unit(generator, *shape)) for shape in ((3, 5), (3, 1, 5), (4, 5))]
    nothing = torch.zeros(3, 4, dtype=torch.bool)
    losses = [quality_contrast(u, *rest, 0.07, name, nothing) for name in ("joint", "summed")]
    assert float(losses[0]) == pytest.approx(float(losses[1])), (
        "without usable keys there is one group left"
    )
    losses = [quality_contrast(u, *rest, 0.07, name) for name in ("joint", "summed")]
    assert float(losses[0]) != pytest.approx(float(losses[1]))
    u.requires_grad_()
    quality_contrast(u, *rest, 0.07, "joint", nothing).backward()
    assert torch.isfinite(u.grad).all()


def test_unknown_grouping() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="negatives='both'"):
        quality_contrast(one, one, one[None], one, 0.1, "both")


def test_nt_xent_is_that_of_simclr() -> None:
    generator = np.random.default_rng(3)
    a, b = unit(generator, 5, 8), unit(generator, 5, 8)
    z, losses = np.concatenate([a, b]), []
    for i in range(10):
        j = (i + 5) % 10
        rest = sum(np.exp(z[i] @ z[k] / 0.1) for k in range(10) if k != i)
        losses.append(-np.log(np.exp(z[i] @ z[j] / 0.1) / rest))
    assert float(nt_xent(torch.from_numpy(a), torch.from_numpy(b), 0.1)) == pytest.approx(
        np.mean(losses), rel=1e-5
    )
