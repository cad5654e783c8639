"""Bilinear backbones: shapes, the frozen branch, sharing it with a twin."""

import pytest
import torch

from iqa_lightning.models.bilinear import DBCNN, BilinearBackbone

pytestmark = pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
IMAGES = torch.randint(
    0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def test_golden_widths() -> None:
    assert DBCNN(None, name="resnet18").width == 65_536
    assert BilinearBackbone(name="resnet34").width == 262_144


def test_dbcnn_equals_its_formula() -> None:
    net = DBCNN(None, name="test_resnet").eval()
    own = net.network.forward_features(net.prepare(IMAGES))
    small = torch.nn.functional.interpolate(
        net.scnn(IMAGES), own.shape[2:], mode="bilinear", align_corners=True
    )
    expected = own.flatten(2) @ small.flatten(2).transpose(1, 2) / own[0, 0].numel()
    expected = expected.flatten(1) / expected.flatten(1).norm(dim=1, keepdim=True)
    torch.testing.assert_close(net(IMAGES), expected)
    assert net.width == expected.shape[1] == net.network.num_features * 128


def test_corners_stay_corners() -> None:
    from iqa_lightning.models.bilinear import resized

    x = torch.arange(24.0 * 24).view(1, 1, 24, 24)
    small = resized(x, torch.zeros(1, 1, 12, 12))[0, 0]
    assert [small[0, 0].item(), small[-1, -1].item(), small[0, -1].item()] == [0.0, 575.0, 23.0]


def test_unique_takes_the_signed_root_of_the_own_map() -> None:
    net = BilinearBackbone(name="test_resnet").eval()
    own = net.network.forward_features(net.prepare(IMAGES)).flatten(2)
    gram = own @ own.transpose(1, 2) / own.shape[2]
    root = (gram.sign() * (gram.abs() + 1e-8).sqrt()).flatten(1)
    torch.testing.assert_close(net(IMAGES), root / root.norm(dim=1, keepdim=True))


def test_a_twin_shares_the_scnn_only() -> None:
    net = DBCNN(None, name="test_resnet").eval()
    twin = net.twin()
    assert twin.scnn is net.scnn
    assert not {id(p) for p in twin.network.parameters()} & {
        id(p) for p in net.network.parameters()
    }
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert all(parameter.requires_grad for parameter in net.trainable())
    assert torch.equal(twin(IMAGES, net.frozen_output(IMAGES)), net(IMAGES))
    assert net.fixed_encoder() is net.scnn


def test_one_pass_is_counted_once() -> None:
    net = DBCNN(None, name="test_resnet")
    net(IMAGES)
    assert sum(module.images_forwarded for module in (net, net.scnn)) == 2
