"""GRepQ in a stream: the ridge over all tasks is that of all images at once, and encoders that learn."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.losses.scene_contrast import SceneContrast
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.grepq import GRepQ, GRepQZeroShot, pristine_images
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.gating import MeanFeatureGate
from iqa_lightning.stream.schedule import Task
from tests.methods.steps import (
    FINETUNE,
    WARMUP,
    at,
    build,
    changed,
    columns,
    images,
    snapshot,
    step,
)

SMALL = partial(SceneContrast, kinds=("gaussian_blur",), levels=(3,), grid=2, patch=16)


def rated(seed: int, count: int = 24) -> Batch:
    """Images of a task and their ratings, on a scale of the task's own."""
    batch = images(seed, count)
    generator = torch.Generator().manual_seed(seed)
    mos = 10 * seed + 5 * seed * torch.rand(count, generator=generator)
    return batch | {"mos": mos}


def learn_task(method: ContinualMethod, t: int) -> None:
    name = method.tasks[t - 1]
    task = Task(t, name, (name,))
    with evaluation_mode(method):
        method.on_task_start(task, iter([rated(t)]))
        method.on_task_end(task, iter([rated(t)]), iter([]))


def by_normal_equations(x: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    """Scores of the images themselves by the ridge on standardised features, solved directly."""
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    weights = np.linalg.solve(z.T @ z + alpha * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    return z @ weights + y.mean()


def test_sums_over_tasks_give_the_ridge_of_all_images_at_once() -> None:
    method = build(GRepQ, alphas=[3.0])
    learn_task(method, 1)
    learn_task(method, 2)
    features, targets = [], []
    for t in (1, 2):
        batch = rated(t)
        with torch.no_grad():
            features.append(method.backbone(batch["image"]).double().numpy())
        mos = batch["mos"].double().numpy()
        targets.append((mos - mos.min()) / (mos.max() - mos.min()))
    x, y = np.concatenate(features), np.concatenate(targets)
    expected = by_normal_equations(x, y, 3.0)
    found = torch.cat([columns(method, rated(t), owner=t)["single"] for t in (1, 2)])
    assert np.allclose(found.numpy(), expected, atol=1e-5)
    own = by_normal_equations(features[0], targets[0], 3.0)
    oracle = columns(method, rated(1), owner=1)["oracle"]
    assert np.allclose(oracle.numpy(), own, atol=1e-5), "a ridge of its own, which stays"


def test_columns() -> None:
    method = build(GRepQ, gate=MeanFeatureGate)
    before = columns(method, images(1), owner=1)
    assert list(before) == ["single", "oracle", "gated"]
    assert before["oracle"].isnan().all()
    learn_task(method, 1)
    learn_task(method, 2)
    after = columns(method, images(1), owner=2)
    assert list(after) == [
        *("single", "oracle", "gated", "score/a", "score/b", "gate/a", "gate/b"),
    ]
    mixed = sum(after[f"score/{k}"] * after[f"gate/{k}"] for k in "ab")
    assert torch.allclose(after["gated"], mixed, atol=1e-6)
    assert torch.equal(after["oracle"], after["score/b"])


def test_two_encoders_stand_side_by_side_the_high_one_first() -> None:
    torch.manual_seed(1)
    high = Backbone("test_resnet")
    method = build(GRepQ, high=high)
    batch = images(1)
    with torch.no_grad():
        feature = method.backbone(batch["image"])
        expected = [high.eval()(batch["image"]), method.low(batch["image"])]
    assert torch.equal(feature, torch.cat(expected, dim=1))
    assert method.backbone.width == high.width + method.low.width


def test_frozen_encoders_do_not_move_and_cost_nothing() -> None:
    method = build(GRepQ, optimizer=partial(torch.optim.SGD, lr=0.0))
    method.trainer = type("T", (), {"optimizers": [method.configure_optimizers()]})()
    for phase in (WARMUP, FINETUNE):
        method.on_phase_start(at(phase))
        before = snapshot(method)
        step(method, images(1))
        assert changed(before, method) == set()
    assert method.backbone.images_forwarded == 0
    assert all(encoder.images_forwarded == 0 for encoder in method.backbone.encoders)


def test_encoders_that_learn_lower_their_loss_without_scores() -> None:
    method = build(GRepQ, adapts=True, weight=0.1, contrast=SMALL, bn_stats="always", scenes=4)
    assert not method.selects_best
    with evaluation_mode(method):
        method.on_task_start(Task(1, "a", ("a",)), iter([]))
    method.trainer = type("T", (), {"optimizers": [method.configure_optimizers()]})()
    method.on_phase_start(at(WARMUP))
    assert float(method.loss(images(1)).detach()) == 0
    method.on_phase_start(at(FINETUNE))
    batch = images(1)
    losses = []
    for _ in range(12):
        losses.append(float(method.loss(batch).detach()))
        step(method, batch)
    assert losses[-1] < losses[0] - 0.01
    assert all(p.grad is None for p in method.previous.parameters())


def test_zero_shot_is_the_same_at_each_step(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(4):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    assert [tuple(image.shape) for image in pristine_images(str(tmp_path))] == [(3, 40, 48)] * 4
    method = build(GRepQZeroShot, pristine=str(tmp_path), patch=16, stride=8)
    scores = columns(method, images(1), owner=1)["single"]
    assert ((scores > 0) & (scores <= 0.5)).all()
    with evaluation_mode(method):
        method.on_task_start(Task(1, "a", ("a",)), iter([]))
        method.on_task_end(Task(1, "a", ("a",)), iter([]), iter([]))
    assert torch.equal(columns(method, images(1), owner=1)["single"], scores)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"method\.gate reads features"):
        build(GRepQ, gate=MeanFeatureGate, adapts=True)
    with pytest.raises(ValueError, match="cannot pool the scales of a, b"):
        build(GRepQ).on_task_start(Task(1, "a+b", ("a", "b")), iter([]))
    with pytest.raises(ValueError, match="holds no image file"):
        build(GRepQZeroShot, pristine=str(tmp_path))
    with pytest.raises(ValueError, match=r"method\.high has no text encoder"):
        build(GRepQZeroShot, high=Backbone("test_resnet"))
