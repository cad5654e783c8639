"""LwF: the loss by hand, who teaches, and what it is without its term."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.methods.finetune import MultiHead
from iqa_lightning.methods.lwf import LwF
from iqa_lightning.models.bilinear import DBCNN
from tests.methods.steps import (
    ADAM,
    FINETUNE,
    WARMUP,
    at,
    build,
    changed,
    images,
    learn,
    snapshot,
    start,
    step,
    trained,
)


def same(one: ContinualMethod, two: ContinualMethod) -> bool:
    """Whether backbone and heads of both are equal, bit for bit."""
    other = two.state_dict()
    mine = {k: v for k, v in one.state_dict().items() if k.startswith(("backbone.", "heads."))}
    return all(torch.equal(tensor, other[key]) for key, tensor in mine.items())


def test_without_its_term_it_is_multi_head_fine_tuning() -> None:
    lwf, plain = build(LwF, weight=0.0), build(MultiHead)
    for t in (1, 2, 3):
        assert same(learn(lwf, t), learn(plain, t))
    assert not same(learn(learn(build(LwF), 1), 2), learn(learn(build(MultiHead), 1), 2))


def test_the_first_task_has_no_teacher() -> None:
    assert same(learn(build(LwF, weight=10.0), 1), learn(build(MultiHead), 1))


def by_hand(method: LwF, batch: dict) -> float:
    """The loss of task 3 from features alone, in NumPy."""
    with torch.no_grad():
        new, old = (
            net(batch["image"]).double().numpy()
            for net in (method.backbone, method.teacher.backbone)
        )
    heads, teachers = (
        np.stack([w.detach().double().numpy() for w in h.weight])
        for h in (method.heads, method.teacher.heads)
    )
    q, q_old = (
        (f / np.linalg.norm(f, axis=1, keepdims=True)) @ w.T
        for f, w in ((new, heads), (old, teachers))
    )
    i, j = batch["pairs"].numpy().T
    p, p_old = norm.cdf(q[i] - q[j]), norm.cdf(q_old[i] - q_old[j])

    def fidelity(a: np.ndarray, b: np.ndarray) -> float:
        return (1 - np.sqrt(a * b + 1e-8) - np.sqrt((1 - a) * (1 - b) + 1e-8)).mean()

    kept = fidelity(p[:, 0], p_old[:, 0]) + fidelity(p[:, 1], p_old[:, 1])
    return float(fidelity(p[:, 2], batch["target"].numpy()) + 10 * kept)


def test_the_loss_by_hand() -> None:
    method = learn(learn(build(LwF, bn_stats="frozen"), 1), 2)
    start(method, 3)
    method.on_phase_start(at(FINETUNE, 3))
    for seed in (1, 2):
        step(method, images(seed))
    batch = images(4)
    assert method.loss(batch).item() == pytest.approx(by_hand(method, batch), rel=1e-4)
    plain = MultiHead.loss(method, batch).item()
    assert abs(method.loss(batch).item() - plain) > 1e-4


def test_the_teacher_is_the_model_when_fine_tuning_begins() -> None:
    method = learn(build(LwF), 1)
    start(method, 2)
    method.on_phase_start(at(WARMUP, 2))
    assert trained(method) == {"heads.weight.1"}
    step(method, images(1))
    method.on_phase_start(at(FINETUNE, 2))
    expected = {key: v.clone() for key, v in method.backbone.state_dict().items()}
    head = method.heads.weight[1].detach().clone()
    assert trained(method) == {
        f"backbone.{key}" for key, _ in method.backbone.named_parameters()
    } | {
        "heads.weight.0",
        "heads.weight.1",
    }
    for epoch in (0, 1):
        if epoch:
            method.on_phase_start(at(FINETUNE, 2, epoch))
        step(method, images(epoch))
    assert not any(module.training for module in method.teacher.modules())
    assert all(
        torch.equal(v, expected[key]) for key, v in method.teacher.backbone.state_dict().items()
    )
    assert torch.equal(method.teacher.heads.weight[1], head)
    assert not torch.equal(method.heads.weight[1], head)


def test_a_multi_head_without_it_gives_old_heads_no_gradient() -> None:
    for kind, expected in ((MultiHead, False), (LwF, True)):
        method = learn(build(kind), 1)
        start(method, 2)
        method.on_phase_start(at(FINETUNE, 2))
        step(method, images(3))
        assert ("heads.weight.0" in trained(method)) is expected
        assert (method.heads.weight[0].grad is not None) is expected


def test_heads_of_tasks_to_come_stay() -> None:
    method = learn(build(LwF), 1)
    before = snapshot(method)
    learn(method, 2)
    assert {key for key in changed(before, method) if key.startswith("heads.")} == {
        "heads.weight.0",
        "heads.weight.1",
    }


@pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
def test_student_and_teacher_share_one_pass_of_the_scnn() -> None:
    torch.manual_seed(0)
    network = DBCNN(None, name="test_resnet")
    method = LwF(backbone=network, tasks=("a", "b"), optimizer=ADAM)
    learn(method, 1)
    start(method, 2)
    method.on_phase_start(at(FINETUNE, 2))
    seen: list[int] = []
    first = network.scnn.features[0].register_forward_hook(lambda _, x, y: seen.append(len(y)))
    own: list[int] = []
    stems = [
        next(m for m in net.network.modules() if isinstance(m, torch.nn.Conv2d))
        for net in (network, method.teacher.backbone)
    ]
    hooks = [stem.register_forward_hook(lambda _, x, y: own.append(len(y))) for stem in stems]
    step(method, images(0, 8))
    assert seen == [8], "one pass of the S-CNN a batch"
    assert own == [8, 8], "one of the student's network and one of the teacher's"
    for hook in (first, *hooks):
        hook.remove()
