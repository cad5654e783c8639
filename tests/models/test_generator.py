"""Generator and critic: layers by hand, what one more slot takes."""

import numpy as np
import pytest
import torch
from torch import nn

from iqa_lightning.models.generator import Critic, Generator


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def weights(module: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    return module.weight.detach().double().numpy(), module.bias.detach().double().numpy()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_the_generator_by_hand() -> None:
    generator = Generator(4, 3, noise=2, hidden=5)
    z, slot = torch.randn(6, 2), torch.tensor([0, 1, 2, 2, 1, 0])
    x = np.concatenate([z.numpy(), np.eye(3)[slot]], axis=1)
    rows = generator.condition.weight.detach().double().numpy()
    for k in (0, 2, 4):
        w, b = weights(generator.layers[k])
        w = np.concatenate([w, rows.T], axis=1) if k == 0 else w
        x = x @ w.T + b if k == 4 else leaky(x @ w.T + b)
    np.testing.assert_allclose(generator(z, slot).detach(), x, atol=1e-6)


def test_the_critic_by_hand() -> None:
    critic = Critic(4, 3, hidden=5)
    feature, slot = torch.randn(6, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    h = feature.double().numpy()
    for k in (0, 2):
        w, b = weights(critic.layers[k])
        h = leaky(h @ w.T + b)
    w, b = weights(critic.score)
    rows = critic.projection.weight.detach().double().numpy()[slot]
    np.testing.assert_allclose(
        critic(feature, slot).detach(), h @ w[0] + b[0] + (h * rows).sum(axis=1), atol=1e-6
    )


def test_sizes_follow_the_feature() -> None:
    assert [layer.out_features for layer in Generator(48, 3).layers[::2]] == [48, 48, 48]
    assert Generator(48, 3).layers[0].in_features == 200
    assert Generator(48, 3).condition.weight.shape == (3, 48)
    assert Critic(48, 3).score.in_features == 48


@pytest.mark.parametrize("kind", [Generator, Critic])
def test_one_more_slot_is_one_row(kind: type) -> None:
    sizes = [sum(p.numel() for p in kind(16, slots).parameters()) for slots in (3, 4, 5)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] == kind(16, 3).row()


@pytest.mark.parametrize("kind", [Generator, Critic])
def test_more_slots_start_as_fewer_do(kind: type) -> None:
    """To the bit, what is drawn after them too."""
    states = []
    for slots in (2, 5):
        torch.manual_seed(3)
        states.append({**kind(7, slots).state_dict(), "after": torch.rand(())})
    for name, few in states[0].items():
        many = states[1][name]
        assert torch.equal(few, many[: len(few)] if few.ndim else many), name
    rows = states[1]["condition.weight" if kind is Generator else "projection.weight"]
    assert len(rows.unique(dim=0)) == 5


def test_weights_start_small() -> None:
    w, b = weights(Generator(256, 3).layers[2])
    assert w.std() == pytest.approx(0.02, rel=0.05)
    assert not b.any()
