"""Sources of features: two moons learnt by the generator, Gaussians by the covariance of
scikit-learn.
"""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.datasets import make_moons

from iqa_lightning.methods.feature_generators import GANFeatureGenerator, GaussianFeatureGenerator
from iqa_lightning.metrics.frechet import frechet_distance


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slots(slot: int, count: int = 400) -> torch.Tensor:
    return torch.full((count,), slot)


def backward(loss: torch.Tensor) -> None:
    loss.backward()


def moons(count: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(make_moons(count, noise=0.05, random_state=seed)[0]).float()


def distance_to_the_arcs(points: torch.Tensor) -> np.ndarray:
    """Distance of each point to either half circle, (points, 2)."""
    arcs, label = make_moons(400, noise=0.0)
    return np.stack(
        [np.linalg.norm(points.numpy()[:, None] - arcs[label == k], axis=2).min(1) for k in (0, 1)],
        1,
    )


def test_the_generator_learns_two_moons() -> None:
    torch.manual_seed(0)
    replay = GANFeatureGenerator(
        2, 2, noise=2, hidden=64, lr=2e-3, steps=300, penalty=0.1, batch_size=256
    )
    replay.step(moons(600, 0), 1, [], replay.optimizers(), backward, noise())
    found = replay.sample(slots(1), noise(1))
    near = distance_to_the_arcs(found)
    gaussian = GaussianFeatureGenerator(2, 2)
    gaussian.fit(moons(600, 0), 1)
    coarse = distance_to_the_arcs(gaussian.sample(slots(1), noise(1)))
    assert near.min(axis=1).mean() < 0.8 * coarse.min(axis=1).mean(), (
        "nearer to the arcs than a Gaussian"
    )
    share = (near[:, 0] < near[:, 1]).mean()
    assert 0.25 < share < 0.75, "both arcs"
    assert frechet_distance(moons(600, 1), found) < 0.1


def learnt(replay: GANFeatureGenerator, centre: float, slot: int, others: list[int]) -> None:
    real = torch.randn(200, 2, generator=noise(5)) * 0.3 + centre
    replay.begin()
    replay.step(real, slot, others, replay.optimizers(), backward, noise())


@pytest.mark.parametrize(("keep", "moves"), [(1.0, False), (0.0, True)])
def test_the_generator_keeps_other_slots_by_its_own_distillation(keep: float, moves: bool) -> None:
    torch.manual_seed(0)
    replay = GANFeatureGenerator(
        2, 2, noise=8, hidden=32, lr=2e-3, steps=80, keep_weight=keep, batch_size=64
    )
    learnt(replay, 0.0, 0, [])
    before = replay.sample(slots(0), noise(1))
    learnt(replay, 2.0, 1, [0])
    change = (replay.sample(slots(0), noise(1)) - before).norm(dim=1).mean().item()
    assert (change > 0.3) is moves
    assert replay.sample(slots(1), noise(1)).mean() > 1


def test_the_generators_loss_by_hand() -> None:
    torch.manual_seed(0)
    replay = GANFeatureGenerator(3, 3, noise=4, hidden=5, keep_weight=0.5, batch_size=6)
    for parameter in replay.generator.parameters():
        torch.nn.init.normal_(parameter)
    draws = noise(3)
    z, again = torch.randn(6, 4, generator=draws), torch.randn(6, 4, generator=draws)
    condition = torch.tensor([0, 2])[torch.randint(2, (6,), generator=draws)]
    with torch.no_grad():
        own = replay.critic(replay.generator(z, slots(1, 6)), slots(1, 6))
        change = replay.generator(again, condition) - replay.teacher(again, condition)
    expected = -own.mean() + 0.5 * 2 * change.square().sum() / 6
    assert replay.generator_loss(1, [0, 2], noise(3)).item() == pytest.approx(
        expected.item(), rel=1e-5
    )
    assert replay.generator_loss(1, [], noise(3)).item() == pytest.approx(
        -own.mean().item(), rel=1e-5
    )


def test_steps_of_critic_and_generator() -> None:
    class Counted:
        def __init__(self) -> None:
            self.steps = 0

        def zero_grad(self) -> None: ...

        def step(self) -> None:
            self.steps += 1

    replay = GANFeatureGenerator(3, 1, hidden=4, steps=4)
    both = Counted(), Counted()
    replay.step(torch.randn(10, 3), 0, [], both, backward, noise())
    assert [one.steps for one in both] == [4, 20]


@pytest.mark.parametrize("count", [40, 12])
def test_a_gaussian_has_the_shrunk_covariance(count: int) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, 30)) @ rng.normal(size=(30, 30)) + 3
    replay = GaussianFeatureGenerator(30, 2, rank=29)
    replay.fit(torch.from_numpy(features).float(), 1)
    factor, rest = replay.factor[1].double().numpy(), float(replay.rest[1])
    expected = LedoitWolf().fit(features)
    np.testing.assert_allclose(
        factor.T @ factor + rest * np.eye(30), expected.covariance_, atol=1e-4 * features.var()
    )
    np.testing.assert_allclose(replay.mean[1], features.mean(axis=0), atol=1e-5)
    assert not replay.mean[0].any()


def test_a_lower_rank_keeps_the_variance() -> None:
    features = np.random.default_rng(0).normal(size=(60, 20)) * np.arange(1, 21)
    replay = GaussianFeatureGenerator(20, 1, rank=3)
    replay.fit(torch.from_numpy(features).float(), 0)
    total = float(replay.factor[0].square().sum() + 20 * replay.rest[0])
    assert total == pytest.approx(np.trace(LedoitWolf().fit(features).covariance_), rel=1e-4)


def test_samples_have_the_mean_and_covariance_of_their_slot() -> None:
    features = torch.randn(50, 6, generator=noise(2)) * torch.arange(1.0, 7.0) + 10
    replay = GaussianFeatureGenerator(6, 3, rank=4)
    replay.fit(features, 2)
    found = replay.sample(torch.tensor([0, 2]).repeat(4000), noise())
    assert not found[::2].any()
    own = found[1::2].double().numpy()
    np.testing.assert_allclose(own.mean(axis=0), features.mean(dim=0), atol=0.3)
    factor = replay.factor[2].double().numpy()
    expected = factor.T @ factor + float(replay.rest[2]) * np.eye(6)
    np.testing.assert_allclose(np.cov(own, rowvar=False), expected, atol=0.05 * expected.max())


@pytest.mark.parametrize("kind", [GaussianFeatureGenerator, GANFeatureGenerator])
def test_memory_grows_by_what_is_said(kind: type) -> None:
    sizes = [sum(tensor.numel() for tensor in kind(16, n).state_dict().values()) for n in (3, 4, 5)]
    copies = (
        kind(16, 3).generator.row() if kind is GANFeatureGenerator else 0
    )  # of the generator's row, its teacher's
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] == kind(16, 3).added_parameters() + copies
