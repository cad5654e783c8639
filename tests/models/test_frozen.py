"""Frozen convolutions: the same gradients, bit for bit, and less kept for the way back."""

import copy

import pytest
import torch
from torch import nn

from iqa_lightning.methods.finetune import SingleHead
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.frozen import FrozenConv2d, freeze_convolutions
from iqa_lightning.models.normalization import batch_norms
from tests.methods.steps import FINETUNE, at, build, images, start


def kept(method: object) -> int:
    """Bytes of activations that a training step keeps for the way back, each storage once."""
    storages = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        method.loss(images(0, 4, 64))  # type: ignore[attr-defined]
    return sum(storage.nbytes() for storage in storages.values())


def test_a_block_keeps_what_its_norm_needs_and_no_input_of_a_convolution() -> None:
    """conv -> scale -> conv: by hand, the input of the second convolution is what only its weight
    would need.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3)).eval()
    frozen = copy.deepcopy(network)
    freeze_convolutions(frozen)
    assert [type(module) for module in frozen] == [FrozenConv2d, nn.BatchNorm2d, FrozenConv2d]
    x, shapes = torch.randn(2, 3, 10, 10), {}
    for name, net in (("plain", network), ("frozen", frozen)):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: (
                s.append(t.numel())
                if t.dim() == 4 and not isinstance(t, nn.Parameter)
                else None or t
            ),
            lambda t: t,
        ):
            net(x)
        shapes[name] = sorted(sizes)
    maps, first = 2 * 4 * 8 * 8, 2 * 3 * 10 * 10
    assert shapes["plain"] == sorted(
        [first, maps, maps]
    )  # inputs of both convolutions and of the norm
    assert shapes["frozen"] == [maps]  # of the norm, whose scale is trained


@pytest.mark.parametrize(("network", "share"), [("test_efficientnet", 0.8), ("resnet18", 0.96)])
def test_a_step_keeps_less_than_one_of_full_fine_tuning(network: str, share: float) -> None:
    sizes = []
    for kind in (TSNIQA, SingleHead):
        method = build(kind, network, bn_stats="frozen")
        start(method, 1)
        method.on_phase_start(at(FINETUNE))
        sizes.append(kept(method))
    assert sizes[0] < share * sizes[1]


@pytest.mark.parametrize("network", ["test_efficientnet", "test_resnet"])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_the_norms_are_the_same_bits(network: str, training: bool) -> None:
    torch.manual_seed(0)
    plain = Backbone(network).train(training)
    plain.requires_grad_(False)
    for layer in batch_norms(plain):
        layer.requires_grad_(True)
    frozen = copy.deepcopy(plain)
    freeze_convolutions(frozen.network)
    image = images(0)["image"]
    for net in (plain, frozen):
        net(image).square().sum().backward()
    pairs = zip(plain.named_parameters(), frozen.parameters(), strict=True)
    found = [(name, one.grad, two.grad) for (name, one), two in pairs if one.requires_grad]
    assert len(found) >= 10
    for name, expected, grad in found:
        assert grad is not None, name
        assert torch.equal(expected, grad), name
    assert all(p.grad is None for p in frozen.parameters() if p.dim() == 4)


def test_what_is_trained_after_all_gets_its_gradient() -> None:
    conv = nn.Sequential(nn.Conv2d(3, 4, 3))
    freeze_convolutions(conv)
    conv[0].weight.requires_grad_(True)
    conv(torch.randn(1, 3, 5, 5, requires_grad=True)).sum().backward()
    assert conv[0].weight.grad is not None


def test_mixed_precision_still_trains() -> None:
    method = build(TSNIQA)
    start(method, 1)
    method.on_phase_start(at(FINETUNE))
    with torch.autocast("cpu", torch.bfloat16):
        method.loss(images(0)).backward()
    assert all(parameter.grad is not None for parameter in method.sets.parameters(1))
