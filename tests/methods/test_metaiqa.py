"""MetaIQA's fine-tuning: its network, its loss, its prior."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from iqa_lightning.methods.metaiqa import MetaIQA
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.regression import HEAD, RegressionHead, RegressionNet
from tests.methods.steps import FINETUNE, WARMUP, at, build, images, trained


def test_head_has_the_golden_number_of_parameters() -> None:
    head = RegressionHead()
    assert sum(parameter.numel() for parameter in head.parameters()) == 1_553_411
    by_hand = 1000 * 1024 + 1024 + 2 * 1024 + 1 + 1024 * 512 + 512 + 2 * 512 + 1 + 512 + 1
    assert by_hand == 1_553_411
    scores = head.eval()(torch.randn(5, 1000))
    assert scores.shape == (5, 1)
    assert ((scores > 0) & (scores < 1)).all()


def batch(seed: int, low: float, high: float) -> dict:
    made = images(seed)
    return made | {"mos": torch.linspace(low, high, len(made["image"]))}


def test_loss_is_the_squared_error_of_scores_in_the_range_of_the_task() -> None:
    method = build(MetaIQA, dropout=0.0)
    method.on_task_start(type("T", (), {"t": 1})(), [batch(1, 20, 60), batch(2, 10, 50)])
    method.eval()
    given = batch(3, 10, 60)
    with torch.no_grad():
        loss, score = method.loss(given), method.score(given["image"])
    expected = ((score - (given["mos"] - 10) / 50) ** 2).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_warm_up_trains_the_head_and_fine_tuning_all() -> None:
    method = build(MetaIQA)
    original = method.loss
    method.loss = lambda b: original(b | {"mos": torch.linspace(0, 1, len(b["image"]))})  # type: ignore[method-assign]
    method.on_task_start(type("T", (), {"t": 1})(), [batch(1, 0, 1)])
    method.trainer = type("R", (), {"optimizers": [method.configure_optimizers()]})()
    method.on_phase_start(at(WARMUP))
    assert all(name.startswith("rest.") for name in trained(method))
    method.on_phase_start(at(FINETUNE))
    assert any(name.startswith("backbone.") for name in trained(method))


def test_prior_brings_its_head(tmp_path: Path) -> None:
    torch.manual_seed(5)
    prior = RegressionNet(Backbone("test_efficientnet"))
    tensors = {f"{HEAD}{key}": value for key, value in prior.rest.state_dict().items()}
    body = {key: value.contiguous() for key, value in prior.backbone.network.state_dict().items()}
    save_file(tensors | body, tmp_path / "weights.safetensors")
    method = build(MetaIQA, prior=str(tmp_path / "weights.safetensors"))
    assert all(
        torch.equal(method.rest.state_dict()[key], value)
        for key, value in prior.rest.state_dict().items()
    )
    save_file(body, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no head of MetaIQA"):
        build(MetaIQA, prior=str(tmp_path / "other.safetensors"))
