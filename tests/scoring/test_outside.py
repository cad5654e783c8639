"""How far a picture lies from what was learnt: by hand, and by simulation."""

import numpy as np
import torch

from iqa_lightning.models.outside import OUTSIDE, Outside, outside_of, reference_tensors


def sets(seed: int, count: int = 100, width: int = 6) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width))
    draw = {
        name: rng.normal(size=(count, width)) @ mixing + shift
        for name, shift in (("a", 0), ("b", 5))
    }
    return {name: torch.from_numpy(part).float() for name, part in draw.items()}


def test_the_distance_by_hand() -> None:
    features = sets(0)
    found = Outside.fit(features)
    a, b = (part.double().numpy() for part in features.values())
    both = np.concatenate([a, b])
    deviation = both.std(axis=0)
    within = np.concatenate([a - a.mean(0), b - b.mean(0)]) / deviation
    covariance = within.T @ within / len(both)
    shrunk = 0.1 * covariance + 0.9 * np.trace(covariance) / len(covariance) * np.eye(6)
    new = np.random.default_rng(1).normal(size=(5, 6))
    difference = (new[:, None] - np.stack([a.mean(0), b.mean(0)])) / deviation
    expected = np.sqrt(np.einsum("nki,ij,nkj->nk", difference, np.linalg.inv(shrunk), difference))
    np.testing.assert_allclose(found.distance(torch.from_numpy(new)), expected, rtol=1e-5)


def test_percentiles_are_those_of_new_pictures() -> None:
    means = []
    for seed in range(20):
        features = sets(seed, 130)
        known = {name: part[:100] for name, part in features.items()}
        new = torch.cat([part[100:] for part in features.values()])
        means.append(Outside.fit(known)(new).mean().item())
    assert 44 < np.mean(means) < 56  # uniform from 0 to 100


def test_far_is_outside_and_the_ends_are_0_and_100() -> None:
    features = sets(0)
    found = Outside.fit(features)
    far = found(torch.full((1, 6), 1000.0))
    assert far.item() == 100 > OUTSIDE
    assert found(features["a"].mean(dim=0, keepdim=True)).item() == 0
    known = found.distances.double()
    inner = torch.linspace(float(known[0]), float(known[-1]), 50)
    expected = np.interp(inner.numpy(), known.numpy(), np.linspace(0, 100, len(known)))
    gaps = known.diff().clamp_min(1e-12)
    ramps = 100 * ((inner[:, None] - known[:-1]) / gaps).clamp(0, 1).mean(dim=1)
    np.testing.assert_allclose(ramps, expected, atol=1e-6)


def test_kept_and_read_again() -> None:
    features = sets(0, 400)
    tensors = reference_tensors(features)
    assert tensors["features/a"].shape == (256, 6)
    again = outside_of(tensors)
    assert again is not None
    kept = {
        name[9:]: torch.from_numpy(part) for name, part in tensors.items() if "features" in name
    }
    assert torch.equal(again(features["a"]), Outside.fit(kept)(features["a"]))
    assert outside_of({}) is None


def test_two_pictures_are_enough() -> None:
    few = Outside.fit({"a": torch.zeros(1, 3), "b": torch.ones(1, 3)})
    assert torch.isfinite(few(torch.rand(4, 3))).all()
