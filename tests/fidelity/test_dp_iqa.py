"""DP-IQA: golden values and counts of its specification; networks of full size without memory, on
the meta device.
"""

from typing import Any

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import nn

from iqa_lightning.losses.margin_ranking import margin_ranking_loss
from iqa_lightning.methods.dp_iqa import DISTORTIONS, bank_sentences
from iqa_lightning.models.dp_iqa import Decoder, DiffusionTeacher, StudentHead
from iqa_lightning.stream.schedule import Phase
from tests.walks import ROOT

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra dp_iqa)")

SIZES: dict[str, Any] = {  # of Stable Diffusion 1.5
    "vae": {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
    },
    "unet": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
}
TINY = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "backbone" / "diffusion_tiny.yaml"))


def count(module: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


@pytest.fixture(scope="module")
def full() -> DiffusionTeacher:
    from iqa_lightning.models.diffusion import Diffusion

    with torch.device("meta"):
        return DiffusionTeacher(Diffusion(sizes=SIZES, bank=1485))


def test_counts_at_full_size(full: DiffusionTeacher) -> None:
    network = full.network
    assert count(network.vae) == 34_163_664, "the encoder alone"
    with torch.device("meta"):
        assert count(diffusers.AutoencoderKL(**SIZES["vae"])) == 83_653_863
    assert count(network.network) == 859_520_964
    assert count(network.image_adapter) == 77_369_280
    assert count(network.text_adapter, trained=True) == 1_181_952
    assert count(network.text_adapter.layers) == 1_181_184
    assert tuple(network.text_adapter.bank.shape) == (1485, 768)
    assert count(full.decoder) == 42_934_697
    last = count(network.network.conv_out) + count(network.network.conv_norm_out)
    expected = 859_520_964 - last + 77_369_280 + 1_181_952 + 42_934_697
    assert count(full, trained=True) == sum(p.numel() for p in full.trainable()) == expected
    assert expected == pytest.approx(0.98e9, rel=2e-3)


def test_shapes_at_full_size(full: DiffusionTeacher) -> None:
    """Of 512 pixels: latents 4@64, maps 1280@16, 1280@32, 640@64, 320@64, a map 8@64."""
    image = torch.empty(2, 3, 512, 512, device="meta")
    network = full.network
    latent = network.vae.encode(image).latent_dist.mode()
    assert tuple(latent.shape) == (2, 4, 64, 64)
    adapted = network.image_adapter(image)
    assert [tuple(x.shape[1:3]) for x in adapted] == [(320, 64), (640, 32), (1280, 16), (1280, 8)]
    maps = network.up_maps(image, latent)
    assert [tuple(x.shape[1:3]) for x in maps] == [(1280, 16), (1280, 32), (640, 64), (320, 64)]
    assert network.map_channels == [1280, 1280, 640, 320]
    with torch.device("meta"):
        like = [torch.empty(2, channels, 64, 64) for channels in network.map_channels]
    score, narrow = full.decoder(like)
    assert (tuple(score.shape), tuple(narrow.shape)) == ((2,), (2, 8, 64, 64))
    assert full.decoder.head[1].in_features == 32_768


def test_order_of_the_maps_in_the_decoder() -> None:
    """320, 640, 1280, 1280: the finest first."""
    with torch.device("meta"):
        decoder = Decoder([1280, 1280, 640, 320], 64)
    assert [layer[0].in_channels for layer in decoder.each] == [320, 640, 1280, 1280]
    assert decoder.joined[0].in_channels == 2048
    narrow = [m.out_channels for m in decoder.narrow if isinstance(m, nn.Conv2d)]
    assert narrow == [128, 32, 8]
    assert [type(m) for m in decoder.narrow[1::2]] == [nn.ReLU] * 3
    gate = decoder.joined[1].layers
    assert (gate[0].out_features, gate[0].bias, gate[2].bias) == (32, None, None)


def test_student() -> None:
    with torch.device("meta"):
        head, trunk = StudentHead(2560, 64), timm.create_model("tf_efficientnet_b7", num_classes=0)
        last = torch.empty(2, 2560, 16, 16)
        assert tuple(head.enlarge(last).shape) == (2, 8, 32, 32)
        score, narrow = head(last)
    assert (tuple(score.shape), tuple(narrow.shape)) == ((2,), (2, 8, 64, 64))
    parts = [count(head.enlarge), *(count(m) for m in head.head if isinstance(m, nn.Linear))]
    assert parts == [184_328, 16_777_728, 262_656, 513]
    assert count(head) == 17_225_225
    assert trunk.num_features == 2560
    assert count(trunk) == pytest.approx(63.8e6, rel=1e-3)
    assert count(trunk) + count(head) == pytest.approx(81e6, rel=1e-3)


def test_small_pipeline() -> None:
    from iqa_lightning.models.diffusion import Diffusion

    sizes = TINY["sizes"]
    assert count(diffusers.AutoencoderKL(**sizes["vae"])) == 21_363
    network = Diffusion(sizes=sizes, bank=TINY["bank"], side=64, adapter_blocks=1).eval()
    assert count(network.network) == 142_116
    assert count(network.image_adapter) == 22_408
    image = torch.randint(0, 256, (2, 3, 64, 64)).to(torch.uint8)
    latent = network.frozen_output(image)
    assert tuple(latent.shape) == (2, 4, 8, 8)
    adapted = network.image_adapter(network.prepare(image))
    assert [tuple(x.shape[1:3]) for x in adapted] == [(8, 8), (16, 4), (16, 2), (16, 1)]
    maps = network.maps_of(image, latent)
    assert [tuple(x.shape[1:3]) for x in maps] == [(16, 2), (16, 4), (16, 8), (8, 8)]
    sum(x.square().sum() for x in maps).backward()  # type: ignore[union-attr]
    without = {n for n, p in network.network.named_parameters() if p.grad is None}
    assert {name.split(".")[0] for name in without} == {"conv_norm_out", "conv_out"}
    assert tuple(network.text_adapter().shape) == (30, 24)


def test_bank_of_sentences() -> None:
    sentences = bank_sentences()
    assert (len(sentences), len(set(sentences)), len(DISTORTIONS)) == (1485, 1485, 33)
    first = "a photo of a animal with jpeg2000 compression artifacts, which is of bad quality"
    assert sentences[0] == first
    assert sentences[1] == first.replace("jpeg2000 compression", "jpeg compression")
    assert sentences[33] == first.replace("animal", "cityscape")
    assert sentences[297] == first.replace("bad", "poor")
    last = "a photo of a others with other realistic artifacts, which is of perfect quality"
    assert sentences[-1] == last
    assert pytest.approx(4.6e6, rel=0.01) == 1485 * 768 * 4


def test_ranking_loss() -> None:
    p, y = [0.2, 0.6, 0.4], [0.1, 0.5, 0.9]
    found = float(margin_ranking_loss(torch.tensor(p), torch.tensor(y)))
    assert found == pytest.approx(0.1, abs=1e-6)
    margin = 0.25 * 0.4  # the deviation of 0.1, 0.5, 0.9
    pairs = [(0, 1), (0, 2), (1, 2)]
    hand = [max(0, -(1 if y[i] > y[j] else -1) * (p[i] - p[j]) + margin) for i, j in pairs]
    assert found == pytest.approx(sum(hand) / 3, abs=1e-6)


def test_configured_values() -> None:
    def load(*names: str) -> Any:
        return OmegaConf.load(ROOT.joinpath("conf", *names))

    teacher, student = load("method", "dp_iqa_teacher.yaml"), load("method", "dp_iqa.yaml")
    assert (teacher.optimizer._target_, teacher.optimizer.lr) == ("torch.optim.Adam", 1e-5)
    assert (student.optimizer._target_, student.optimizer.lr) == ("torch.optim.Adam", 1e-4)
    assert student.optimizer.lr * student.teacher_lr_factor == pytest.approx(teacher.optimizer.lr)
    assert (student.map_weight, student.rank_weight, teacher.rank_weight) == (1.0, 0.0, 0.0)
    backbone = load("backbone", "stable_diffusion.yaml")
    assert (backbone.side, backbone.timestep, backbone.trains) == (512, 1, "full")
    for name, size in (("dp_iqa_teacher", 16), ("dp_iqa_student", 24)):
        phases = [Phase(k, **p) for k, p in load("schedule", f"{name}.yaml").items() if p.epochs]
        rates = [phase.lr_at(epoch) for phase in phases for epoch in range(phase.epochs)]
        assert rates == pytest.approx([0.2 ** (epoch >= 5) for epoch in range(30)])
        assert {phase.batch_size for phase in phases} == {size}
