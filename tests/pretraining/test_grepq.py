"""GRepQ's trainings: what is trained, at which rate, and that a resumed one ends with the same bytes."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from iqa_lightning.losses.scene_contrast import SceneContrast
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.clip_any_size import AnySizeCLIP
from iqa_lightning.models.quality_encoder import QualityEncoder
from iqa_lightning.pretrain import build_trainer, fit
from iqa_lightning.pretraining.grepq import GRepQHigh, GRepQLow
from tests.fidelity.test_grepq_golden import TINY
from tests.walks import ROOT, composed

CONTRAST = partial(SceneContrast, kinds=("gaussian_blur", "jpeg"), levels=(3,), grid=2, patch=16)


def low(**options: object) -> GRepQLow:
    torch.manual_seed(0)
    optimizer = partial(torch.optim.AdamW, lr=1e-2)
    return GRepQLow(QualityEncoder("test_resnet", width=16), optimizer, CONTRAST, **options)


def high(**options: object) -> GRepQHigh:
    torch.manual_seed(0)
    clip = AnySizeCLIP("RN50-quickgelu", options=TINY)
    return GRepQHigh(clip, partial(torch.optim.Adam, lr=1e-3), divisor=4, **options)


def photographs(count: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Images of two sizes and their numbers."""
    generator = torch.Generator().manual_seed(1)
    sizes = [(48 + 8 * (i % 2), 64) for i in range(count)]
    images = [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes
    ]
    return images, torch.arange(count)


def test_low_level_network_learns() -> None:
    method = low().train()
    optimizer = method.configure_optimizers()
    batch = photographs(2)
    losses = []
    for _ in range(15):
        loss = method.loss(*batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02
    assert set(method.contrast.similarities) == {0, 1}
    assert {"grepq_head.0.weight", "grepq_head.2.bias"} <= set(method.weights())


def rates(method: torch.nn.Module, epochs: int, batches: int) -> list[float]:
    """The learning rate of each step."""
    optimizer, found = method.configure_optimizers(), []
    trainer = SimpleNamespace(
        num_training_batches=batches, max_epochs=epochs, optimizers=[optimizer], current_epoch=0
    )
    method._trainer, method.log = trainer, lambda *a, **k: None
    method.loss = lambda *a: torch.zeros(())
    for epoch in range(epochs):
        trainer.current_epoch = epoch
        for k in range(batches):
            method.training_step({"image": [], "index": torch.arange(1)}, k)
            found.append(optimizer.param_groups[0]["lr"])
    return found


def test_rate_of_the_low_level_network_is_that_of_the_cosine_schedule() -> None:
    method = low(min_lr=1e-4)
    found = rates(method, 3, 5)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15, eta_min=1e-4)
    expected = []
    for _ in range(15):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert found == pytest.approx(expected, rel=1e-9)


def test_rate_of_the_image_tower_grows_from_zero() -> None:
    found = rates(high(), 4, 4)
    warmup = int(2.5 * 4)
    assert found == pytest.approx([1e-3 * min(1, k / warmup) for k in range(16)])
    assert found[0] == 0


def test_image_tower_learns_against_a_fixed_head_and_a_fixed_text_tower() -> None:
    method = high().train()
    optimizer = method.configure_optimizers()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in method.backbone.image_parameters()}
    before = {key: value.clone() for key, value in method.state_dict().items()}
    images, _ = photographs(16)
    losses = []
    for _ in range(6):
        loss = method.loss(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    moved = {
        key for key, value in method.state_dict().items() if not torch.equal(value, before[key])
    }
    assert moved
    assert all(key.startswith("backbone.network.visual.") for key in moved)
    assert any("running_mean" in key for key in moved), "batch statistics move too"
    assert all(p.requires_grad for p in high(train_head=True).head.parameters())


def test_what_a_small_photograph_lacks_is_the_mean_colour() -> None:
    method = high().eval()
    shown: list[torch.Tensor] = []
    method.backbone.pooled = lambda prepared, fixed: shown.append(prepared) or prepared[:, :, 0, 0]
    method.feature([torch.full((3, 32, 100), 255, dtype=torch.uint8)])
    assert shown[0].shape == (1, 3, 64, 64)
    assert (shown[0][:, :, :16] == 0).all()
    assert (shown[0][:, :, 16:48] > 1).all()


def test_any_backbone_learns_with_a_head_that_is_dropped() -> None:
    torch.manual_seed(0)
    method = GRepQLow(Backbone("test_resnet"), partial(torch.optim.AdamW, lr=1e-2), CONTRAST)
    method.loss(*photographs(1)).backward()
    assert all(p.grad is not None for p in method.encoder.parameters())
    assert set(method.weights()) == set(method.backbone.network.state_dict())


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="backbone=clip_rn50"):
        GRepQHigh(Backbone("test_resnet"), partial(torch.optim.Adam))


@pytest.mark.parametrize("name", ["grepq", "grepq_paper", "grepq_high"])
def test_every_recipe_builds(name: str) -> None:
    file = ROOT / "conf" / "pretraining" / f"{name}.yaml"
    assert f"pretraining={name}" in file.read_text().splitlines()[1]
    cfg = OmegaConf.merge({"seed": 3}, OmegaConf.load(file))
    if name == "grepq_high":
        backbone = AnySizeCLIP("RN50-quickgelu", options=TINY)
    else:
        backbone = QualityEncoder("test_resnet")
    method = instantiate(cfg.method, backbone=backbone, _convert_="all")
    assert method.configure_optimizers().param_groups[0]["initial_lr"] > 0
    assert instantiate(cfg.data, _partial_=True, _convert_="all")(data=[]).seed == 3


def small(folder: Path, epochs: int) -> None:
    """Three epochs of the low-level training on the embedded photographs; breaks off in epoch
    `epochs`.
    """
    cfg = composed("trainer=cpu", config="pretrain")
    OmegaConf.set_struct(cfg, False)
    recipe = OmegaConf.load(ROOT / "conf" / "pretraining" / "grepq.yaml")
    cfg.method, cfg.data, cfg.epochs = recipe.method, recipe.data, 3
    cfg.method.contrast.update({"kinds": ["jpeg"], "grid": 2, "patch": 16, "similarity_side": 32})
    cfg.data.update({"resize": 48, "batch_size": 6})
    torch.manual_seed(0)
    backbone = QualityEncoder("test_resnet", width=16)
    method = instantiate(cfg.method, backbone=backbone, _convert_="all")
    data = instantiate(cfg.data, _partial_=True, _convert_="all")(data=[])
    method.training_step = partial(stopping, method, epochs)
    try:
        fit(build_trainer(cfg, folder), method, data, folder)
    except Stopped:
        return
    weights = {key: value.contiguous() for key, value in method.weights().items()}
    save_file(weights, folder / "weights.safetensors")


class Stopped(Exception):  # noqa: N818
    """The training breaks off."""


def stopping(method: GRepQLow, epochs: int, batch: dict, batch_idx: int) -> torch.Tensor:
    if method.current_epoch == epochs and batch_idx == 1:
        raise Stopped
    return GRepQLow.training_step(method, batch, batch_idx)


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    small(tmp_path / "whole", 3)
    small(tmp_path / "broken", 1)
    assert not (tmp_path / "broken" / "weights.safetensors").is_file()
    small(tmp_path / "broken", 3)
    one, other = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "broken")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert any((one[key] != value).any() for key, value in low().weights().items())
