"""UNIQUE: two outputs, the loss by hand, what is trained when, and its teacher."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.stats import norm

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.methods.unique import UNIQUE
from iqa_lightning.models.normalization import batch_norms
from iqa_lightning.stream.schedule import Phase
from tests.methods.steps import FINETUNE, WARMUP, at, build, start, step, trained
from tests.methods.test_regularized import rated
from tests.walks import ROOT, composed


def learn(method: UNIQUE, t: int) -> UNIQUE:
    start(method, t)
    for position in (at(WARMUP, t), at(FINETUNE, t)):
        method.on_phase_start(position)
        step(method, rated(t))
    return method


def outputs(
    net: torch.nn.Module, head: torch.nn.Linear, batch: dict
) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations in NumPy."""
    with torch.no_grad():
        feature = net(batch["image"]).double().numpy()
    unit = feature / np.linalg.norm(feature, axis=1, keepdims=True)
    f, t = (unit @ head.weight.detach().double().numpy().T + head.bias.detach().double().numpy()).T
    return f, np.log1p(np.exp(t))


def prefer(f: np.ndarray, s: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    return norm.cdf((f[i] - f[j]) / np.sqrt(s[i] ** 2 + s[j] ** 2 + 1e-8))


def fidelity(p: np.ndarray, g: np.ndarray) -> float:
    return float((1 - np.sqrt(p * g + 1e-8) - np.sqrt((1 - p) * (1 - g) + 1e-8)).mean())


def test_the_loss_by_hand() -> None:
    method = learn(build(UNIQUE, bn_stats="frozen", weight=10.0), 1)  # type: ignore[arg-type]
    start(method, 2)
    method.on_phase_start(at(FINETUNE, 2))
    step(method, rated(5))
    batch = rated(6)
    i, j = batch["pairs"].numpy().T
    mos, std = batch["mos"].double().numpy(), batch["mos_std"].double().numpy()
    f, s = outputs(method.backbone, method.head, batch)
    p, g = prefer(f, s, i, j), norm.cdf((mos[i] - mos[j]) / np.sqrt(std[i] ** 2 + std[j] ** 2))
    hinge = np.maximum(0, 0.025 - np.sign(std[i] - std[j]) * (s[i] - s[j])).mean()
    old_f, old_s = outputs(method.teacher.backbone, method.teacher.heads, batch)
    kept = fidelity(p, prefer(old_f, old_s, i, j)) + ((s - old_s) ** 2).mean()
    assert method.loss(batch).item() == pytest.approx(fidelity(p, g) + hinge + 10 * kept, rel=1e-3)
    method.weight = 0.0
    assert method.loss(batch).item() == pytest.approx(fidelity(p, g) + hinge, rel=1e-3)


def test_phases_and_statistics() -> None:
    method = build(UNIQUE, bn_stats="always", weight=10.0)
    start(method, 1)
    method.on_phase_start(at(WARMUP))
    assert {layer.training for layer in batch_norms(method.backbone)} == {True}
    assert not any(module.training for module in method.teacher.modules())
    method.loss(rated(1)).backward()
    assert {n for n, p in method.named_parameters() if p.grad is not None} == {
        "head.weight",
        "head.bias",
    }
    with pytest.raises(KeyError):
        trained(method)  # its targets are soft: a batch without ratings will not do


def test_the_teacher_is_the_model_before_the_task() -> None:
    method = learn(build(UNIQUE, weight=10.0), 1)  # type: ignore[arg-type]
    before = method.head.weight.detach().clone()
    learn(method, 2)
    assert torch.equal(method.teacher.heads.weight, before)
    assert not torch.equal(method.head.weight, before)
    assert build(UNIQUE).teacher is None


@pytest.mark.parametrize(
    ("schedule", "method", "golden"),
    [
        ("unique_paper", "unique", [1e-4] * 3 + [1e-5] * 3 + [1e-6] * 3 + [1e-7] * 3),
        ("lwf_paper", "lwf", [2e-4] * 3 + [2e-5] * 3 + [2e-6] * 3),
    ],
)
def test_golden_learning_rates(schedule: str, method: str, golden: list[float]) -> None:
    lr = composed(f"method={method}").method.optimizer.lr
    phases = [
        Phase(name, **p)
        for name, p in OmegaConf.load(ROOT / "conf" / "schedule" / f"{schedule}.yaml").items()
    ]
    assert [lr * p.lr_at(e) for p in phases for e in range(p.epochs)] == pytest.approx(golden)
    assert [p.batch_size for p in phases] == [256] + [64] * (
        len(phases) - 1
    )  # images: 128 and 32 pairs


def test_start_and_columns() -> None:
    method = build(UNIQUE, "resnet18")
    assert method.head.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.1)
    assert method.head.bias.tolist() == [0.0, 0.0]
    batch = rated(1)
    with evaluation_mode(method), torch.no_grad():
        found = method.predict_step(batch).columns
        assert torch.equal(found["single"], method.score(batch["image"]))
    assert list(found) == ["single", "sigma", "mos_std"]
    assert found["sigma"].min() > 0
    assert torch.equal(found["mos_std"], batch["mos_std"])
    assert method.added_parameters() == 0
