"""Norm sets: replaced everywhere, switched together, independent of each other."""

import pytest
import timm
import torch
from torch import nn

from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.normalization import NormSets, TaskNorm, batch_norms, chunks

NETWORKS = {"test_resnet": nn.BatchNorm2d, "test_efficientnet": nn.BatchNorm2d}
NETWORKS |= {"test_vit": nn.LayerNorm, "test_convnext": nn.LayerNorm}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), inner)


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def state(norms: NormSets, index: int) -> list[torch.Tensor]:
    return [
        tensor.clone() for layer in norms.layers(index) for tensor in layer.state_dict().values()
    ]


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
    mean, var = (
        x.mean(dim=(0, 2, 3), keepdim=True),
        x.var(dim=(0, 2, 3), keepdim=True, unbiased=False),
    )
    expected = (x - mean) / (var + 1e-5).sqrt() * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(
        1, 4, 1, 1
    ) + 0.5
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
    assert {p.data_ptr() for p in norms.parameters(2)}.isdisjoint(
        p.data_ptr() for p in norms.parameters(3)
    )


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


def different(name: str, count: int) -> tuple[Backbone, NormSets]:
    """A network whose norm sets all say something else."""
    torch.manual_seed(0)
    backbone = Backbone(name).eval()
    norms = NormSets(backbone.network, count)
    with torch.no_grad():
        for index in range(count):
            for layer in norms.layers(index):
                for tensor in layer.state_dict().values():
                    if tensor.is_floating_point():
                        tensor.mul_(1 + 0.3 * torch.rand_like(tensor)).add_(
                            0.1 * torch.rand_like(tensor)
                        )
    return backbone, norms


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "resnet18", "tf_efficientnet_lite0"]
)
def test_several_sets_in_one_pass_equal_a_pass_each(name: str) -> None:
    backbone, norms = different(name, 4)
    image = torch.randint(0, 256, (3, 3, 48, 64), dtype=torch.uint8)
    order = [2, 0, 3]
    with torch.no_grad():
        apart = []
        for index in order:
            norms.use(index)
            apart.append(backbone(image))
    with norms.branches(order):
        together = backbone(image).chunk(3)
    for one, other in zip(apart, together, strict=True):
        assert (one - other).abs().max() < 1e-5 * one.abs().max()
        assert (one - apart[0]).abs().max() == 0 or (one - apart[0]).abs().max() > 1e-2
    norms.use(2)
    assert torch.equal(backbone(image), apart[0]), "afterwards the set in use counts again"


def test_what_lies_before_the_first_norm_runs_once() -> None:
    backbone, norms = different("resnet18", 3)
    seen: dict[str, int] = {}
    for name, module in backbone.network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, x, y, name=name: seen.update({name: len(y)}))
    with norms.branches([0, 1, 2]):
        backbone(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert seen.pop("conv1") == 2
    assert len(seen) == 19
    assert set(seen.values()) == {6}


def test_networks_that_cannot_run_sets_at_once_say_so() -> None:
    for name in ("test_vit", "test_convnext"):
        assert not different(name, 2)[1].can_branch
    shortcut = (
        nn.Sequential()
    )  # a norm within a block: what goes round it would miss the other branches
    shortcut.add_module("block", timm.create_model("test_resnet").layer1[0])
    assert not NormSets(shortcut, 2).can_branch
    with (
        pytest.raises(ValueError, match="begin with a batch normalisation"),
        different("test_vit", 2)[1].branches([0]),
    ):
        pass


def test_chunks_by_the_budget_of_pixels() -> None:
    small, large = (
        torch.zeros(1, 3, 128, 128),
        torch.zeros(16, 3, 384, 384),
    )  # 2^18 pixels are 16 of the small
    sets = list(range(20))
    assert [len(part) for part in chunks(sets, small, True)] == [16, 4]
    assert [len(part) for part in chunks(sets[:2], small, True)] == [2]
    assert [len(part) for part in chunks(sets, large, True)] == [1] * 20
    assert [len(part) for part in chunks(sets, small, False)] == [1] * 20
    assert chunks([], small, True) == []
