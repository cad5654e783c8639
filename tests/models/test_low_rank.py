"""Low-rank updates: what they compute, what they leave alone."""

import numpy as np
import pytest
import torch
from torch import nn

from iqa_lightning.models.low_rank import LowRankSets, updatable


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.Conv2d(5, 6, 1, stride=2, bias=False),
        nn.Conv2d(6, 6, 1, groups=2),
        nn.Flatten(),
        nn.Linear(6 * 4, 2),
    )


def test_a_new_task_starts_as_the_network_and_set_0_stays() -> None:
    image, net = torch.rand(2, 3, 4, 4), network()
    before = net(image)
    sets = LowRankSets(net, 3, rank=2, alpha=3.0)
    assert len(sets.updates) == 2, "the 1x1 convolution without groups and the linear layer"
    for index in range(3):
        sets.use(index)
        assert torch.equal(net(image), before)
    with torch.no_grad():
        sets.parameters(1)[1].fill_(0.3)
    sets.use(1)
    assert not torch.equal(net(image), before)
    for index in (0, 2):
        sets.use(index)
        assert torch.equal(net(image), before)


def test_the_update_is_what_numpy_adds() -> None:
    layer = nn.Sequential(nn.Linear(4, 3))
    sets = LowRankSets(layer, 2, rank=2, alpha=6.0)
    down, up = sets.parameters(1)
    nn.init.normal_(up)
    sets.use(1)
    x = torch.rand(5, 4)
    linear = sets.updates[0].layer
    weight = linear.weight.detach().numpy() + 3.0 * up.detach().numpy() @ down.detach().numpy()
    np.testing.assert_allclose(
        layer(x).detach().numpy(), x.numpy() @ weight.T + linear.bias.detach().numpy(), rtol=1e-5
    )
    pixel = nn.Sequential(nn.Conv2d(4, 3, 1, bias=False))
    sets = LowRankSets(pixel, 2, rank=1, alpha=1.0)
    down, up = sets.parameters(1)
    nn.init.normal_(up)
    sets.use(1)
    image = torch.rand(2, 4, 3, 5)
    weight = sets.updates[0].layer.weight.detach().numpy()[:, :, 0, 0]
    weight = weight + up.detach().numpy() @ down.detach().numpy()
    wanted = np.einsum("oc,bchw->bohw", weight, image.numpy())
    np.testing.assert_allclose(pixel(image).detach().numpy(), wanted, rtol=1e-4, atol=1e-6)


def test_copies() -> None:
    net = network()
    sets = LowRankSets(net, 3)
    for factor in sets.parameters(1):
        nn.init.normal_(factor)
    sets.copy(1, 2)
    for mine, other in zip(sets.parameters(2), sets.parameters(1), strict=True):
        assert torch.equal(mine, other)
    sets.copy(0, 2)
    assert all(torch.equal(up, torch.zeros_like(up)) for up in sets.parameters(2)[1::2])


def test_what_cannot_be_updated() -> None:
    attention = nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 4))
    assert list(updatable(attention)) == ["1"]
    with pytest.raises(ValueError, match="no linear layer"):
        LowRankSets(nn.Sequential(nn.Conv2d(3, 3, 3)), 2)
    with pytest.raises(ValueError, match=r"method\.rank=0"):
        LowRankSets(network(), 2, rank=0)
