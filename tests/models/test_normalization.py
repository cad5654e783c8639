"""Norm sets: replaced everywhere, switched together, independent of each other."""

import pytest
import timm
import torch
from torch import nn

from iqa_lightning.models.normalization import NormSets, TaskNorm, batch_norms

NETWORKS = {"test_resnet": nn.BatchNorm2d, "test_efficientnet": nn.BatchNorm2d}
NETWORKS |= {"test_vit": nn.LayerNorm, "test_convnext": nn.LayerNorm}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), inner)


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def state(norms: NormSets, index: int) -> list[torch.Tensor]:
    return [tensor.clone() for layer in norms.layers(index) for tensor in layer.state_dict().values()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_norm_of_a_network_is_replaced_and_the_function_stays(name: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=0).eval()
    x = torch.randn(2, 3, *plain.pretrained_cfg["input_size"][1:])
    expected = plain(x)
    count = sum(isinstance(module, NETWORKS[name]) for module in plain.modules())
    norms = NormSets(plain, 3)
    assert len(norms.norms) == count > 0
    assert sum(isinstance(module, TaskNorm) for module in plain.modules()) == count
    for index in range(3):
        norms.use(index)
        torch.testing.assert_close(plain(x), expected, rtol=0, atol=0)


def test_a_network_without_norms_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no normalisation"):
        NormSets(nn.Linear(2, 2), 2)


def test_only_the_set_in_use_is_trained_and_gathers_statistics() -> None:
    net = network()
    norms = NormSets(net, 3)
    before = [state(norms, index) for index in range(3)]
    norms.use(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(3):
        optimizer.zero_grad()
        net(images(step)).square().mean().backward()
        optimizer.step()
    assert [equal(state(norms, index), before[index]) for index in range(3)] == [True, False, True]
    assert not torch.equal(norms.norms[0].sets[1].running_mean, before[1][2])


def test_a_set_normalises_as_a_layer_of_its_own() -> None:
    net = network()
    norms = NormSets(net, 2)
    with torch.no_grad():
        norms.parameters(1)[0].copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        norms.parameters(1)[1].fill_(0.5)
    x = torch.randn(3, 4, 5, 5)
    norms.use(1)
    mean, var = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    expected = (x - mean) / (var + 1e-5).sqrt() * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1) + 0.5
    torch.testing.assert_close(net[1](x), expected)


def test_copy_takes_affine_parameters_and_statistics() -> None:
    net = network()
    norms = NormSets(net, 4)
    norms.use(2)
    net(images()).sum()
    before = [state(norms, index) for index in range(4)]
    norms.copy(2, 3)
    assert equal(state(norms, 3), before[2])
    assert not equal(before[2], before[3])
    assert all(equal(state(norms, index), before[index]) for index in range(3))
    assert {p.data_ptr() for p in norms.parameters(2)}.isdisjoint(p.data_ptr() for p in norms.parameters(3))


def test_sets_are_part_of_the_state_dict() -> None:
    net, other = network(), network()
    norms, others = NormSets(net, 2), NormSets(other, 2)
    norms.use(1)
    net(images())
    other.load_state_dict(net.state_dict())
    assert equal(state(norms, 1), state(others, 1))


def test_layers_with_running_statistics() -> None:
    net = network()
    NormSets(net, 3)
    assert len(list(batch_norms(net))) == 3  # one layer, three sets; the group norm keeps none
