"""Joint learning, separate models, GDumb: what they learn from and what they start from."""

import pytest
import torch

from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.finetune import (
    Joint,
    JointHeads,
    JointSeen,
    SeparateModels,
    WeightAverage,
)
from iqa_lightning.methods.replay import GDumb
from iqa_lightning.stream.schedule import Task
from tests.methods.steps import build, changed, columns, images, learn, snapshot, start


def test_what_each_learns_from() -> None:
    assert list(build(Joint).training_images.learnt(1, 3)) == [1, 2, 3]
    assert list(build(JointSeen).training_images.learnt(2, 3)) == [1, 2]
    assert list(build(SeparateModels).training_images.learnt(2, 3)) == [2]
    method = build(GDumb, replay_memory={"capacity": 20, "seed": 4})
    assert method.training_images.images == "replay_memory"
    assert (
        method.training_images.replay_memory.capacity,
        method.training_images.replay_memory.seed,
    ) == (20, 4)


@pytest.mark.parametrize("kind", [SeparateModels, GDumb])
def test_every_task_starts_from_the_start(kind: type) -> None:
    method = build(kind)
    before = snapshot(method)
    learn(method, 1)
    assert {key.partition(".")[0] for key in changed(before, method)} == {
        "backbone",
        "heads",
        "task",
    }
    start(method, 2)
    assert changed(before, method) == {"task"}


def test_separate_models_learn_nothing_from_each_other() -> None:
    second = columns(learn(learn(build(SeparateModels), 1), 2), images(0), 1)["single"]
    alone = columns(learn(build(SeparateModels), 1, seed=2), images(0), 1)["single"]
    assert torch.equal(second, alone)


@pytest.mark.parametrize("kind", [Joint, JointSeen])
def test_joint_models_go_on_from_where_they_were(kind: type) -> None:
    method = learn(build(kind), 1)
    before = snapshot(method)
    start(method, 2)
    assert changed(before, method) == {"task"}


def test_parameters_added_by_a_task() -> None:
    method = build(SeparateModels)
    assert method.added_parameters() == sum(p.numel() for p in method.backbone.parameters()) + 256
    assert [build(kind).added_parameters() for kind in (Joint, JointSeen, GDumb)] == [0, 0, 0]


def test_joint_heads_rank_each_pair_by_the_head_of_its_task() -> None:
    """Against the sum over tasks, each by its own head alone."""
    method = build(JointHeads)
    method.task.fill_(2)
    image = images(0)["image"][:6]
    pairs = torch.tensor([[0, 1], [2, 1], [3, 4], [5, 3], [4, 5]])
    target = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0])
    task = torch.tensor([1, 1, 1, 2, 2, 2])
    found = method.loss({"image": image, "pairs": pairs, "target": target, "task": task})
    feature = method.backbone(image)
    own = [
        pair_loss(method.heads(feature, k), pairs[a:b], target[a:b], method.link)
        for k, a, b in ((0, 0, 2), (1, 2, 5))
    ]
    assert torch.allclose(found, (2 * own[0] + 3 * own[1]) / 5)


def test_weights_become_the_mean_of_the_ends_of_tasks() -> None:
    method, ends = build(WeightAverage), []
    for t in (1, 2, 3):
        learn(method, t)
        ends.append({key: value.clone() for key, value in method.backbone.state_dict().items()})
        method.on_task_end(Task(t, "x", ("x",)), [], [])
    for key, value in method.backbone.state_dict().items():
        if value.is_floating_point():
            mean = torch.stack([end[key] for end in ends]).double().mean(dim=0)
            assert torch.allclose(value.double(), mean, atol=1e-6), key
    assert len(ends) == 3
