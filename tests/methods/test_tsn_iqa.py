"""TSN-IQA: a task adds its norms and head and touches nothing else."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.methods.readouts import NOTHING, Known
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.gating import KMeansGate
from iqa_lightning.models.normalization import TaskNorm
from tests.methods.steps import (
    FINETUNE,
    WARMUP,
    at,
    build,
    changed,
    columns,
    head_scores,
    images,
    learn,
    snapshot,
    start,
    trained,
)

NETWORKS = {
    "test_efficientnet": {},
    "test_resnet": {},
    "test_vit": {"dynamic_img_size": True},
    "test_convnext": {},
}
GATE = {"clusters": 6, "restarts": 1, "images_per_cluster": 2}
networks = pytest.mark.parametrize("network", NETWORKS)


def tsn(network: str = "test_efficientnet", **arguments: Any) -> TSNIQA:
    arguments["gate"] = partial(KMeansGate, **GATE | arguments.get("gate", {}))
    return build(TSNIQA, network, **{"options": NETWORKS[network]} | arguments)  # type: ignore[return-value, arg-type]


def of_task(name: str, t: int) -> bool:
    """Whether a tensor of the state belongs to task t."""
    return f".sets.{t}." in name or name == f"heads.weight.{t - 1}"


@pytest.mark.parametrize(
    ("network", "layers", "channels", "head", "trainable"),
    [
        ("resnet18", 20, 4_800, 512, 10_112),
        ("resnet34", 36, 8_512, 512, 17_536),
        ("resnet50", 53, 26_560, 2_048, 55_168),
    ],
)
def test_golden_parameters(
    network: str, layers: int, channels: int, head: int, trainable: int
) -> None:
    method = build(TSNIQA, network, tasks=("a",))
    assert method.added_parameters() == trainable
    assert len(method.sets.norms) == layers
    affine = sum(p.numel() for p in method.sets.parameters(1))
    buffers = sum(
        b.numel()
        for layer in method.sets.layers(1)
        for b in (layer.running_mean, layer.running_var)
    )
    assert (affine, affine + buffers) == (2 * channels, 4 * channels)
    assert method.heads.weight[0].numel() == head
    start(method, 1)
    method.on_phase_start(at(FINETUNE))
    groups = method.trainer.optimizers[0].param_groups
    assert sum(p.numel() for group in groups for p in group["params"]) == trainable


@networks
def test_a_task_leaves_all_others_bit_for_bit(network: str) -> None:
    method = tsn(network)
    for t in (1, 2, 3):
        before, centroids = snapshot(method), [level.clone() for level in method.gate.centroids]
        learn(method, t)
        touched = changed(before, method)
        gate = {key for key in touched if key.startswith("gate.")}
        assert {key for key in touched - gate if not of_task(key, t)} == {"task"}
        assert f"heads.weight.{t - 1}" in touched
        assert len([key for key in touched if f".sets.{t}." in key]) >= 2 * len(method.sets.norms)
        for level, old in zip(method.gate.centroids, centroids, strict=True):
            others = [k for k in range(3) if k != t - 1]
            assert torch.equal(level[others], old[others])
            assert not torch.equal(level[t - 1], old[t - 1])


@networks
def test_old_heads_score_as_they_did(network: str) -> None:
    method, batch = tsn(network), images(0)
    scores = []
    for t in (1, 2, 3):
        learn(method, t)
        with evaluation_mode(method), torch.no_grad():
            scores.append(
                torch.stack([method.score_of(batch["image"], k) for k in range(1, t + 1)], dim=1)
            )
        assert scores[-1].shape == (8, t)
        for k, old in enumerate(scores):
            assert torch.equal(scores[-1][:, : k + 1], old)
        torch.testing.assert_close(
            head_scores(method, batch).score, scores[-1], rtol=0, atol=1e-6
        )  # all at once
    assert torch.unique(scores[-1], dim=1).shape == (8, 3)


def test_tasks_are_learnt_independently() -> None:
    second = learn(learn(tsn(), 1, seed=8), 2, seed=9)
    alone = learn(tsn(tasks=("b",)), 1, seed=9)
    for mine, other in zip(second.sets.layers(2), alone.sets.layers(1), strict=True):
        assert all(
            torch.equal(mine.state_dict()[key], tensor)
            for key, tensor in other.state_dict().items()
        )
    assert torch.equal(second.heads.weight[1], alone.heads.weight[0])


def test_scores_survive_saving_and_loading() -> None:
    method = learn(learn(tsn(), 1), 2)
    other = tsn(seed=3)
    other.load_state_dict(method.state_dict())
    expected, found = head_scores(method, images(0)), head_scores(other, images(0))
    assert torch.equal(found.score, expected.score)
    assert torch.equal(found.gate, expected.gate)


@networks
def test_trained_in_each_phase(network: str) -> None:
    method = tsn(network)
    for t in (1, 2, 3):
        start(method, t)
        method.on_phase_start(at(WARMUP, t))
        assert trained(method) == {f"heads.weight.{t - 1}"}
        method.on_phase_start(at(FINETUNE, t))
        norms = {name for name, _ in method.named_parameters() if f".sets.{t}." in name}
        assert trained(method) == norms | {f"heads.weight.{t - 1}"}


@pytest.mark.parametrize("bn_stats", ["first_epoch", "always", "frozen"])
def test_only_the_current_norms_gather_statistics(bn_stats: str) -> None:
    live = {"first_epoch": [True, False, False], "always": [True] * 3, "frozen": [False] * 3}[
        bn_stats
    ]
    method = tsn(bn_stats=bn_stats)
    for t in (1, 2):
        start(method, t)
        positions = [at(WARMUP, t), *(at(FINETUNE, t, epoch) for epoch in range(3))]
        for position, expected in zip(positions, [False, *live], strict=True):
            method.on_phase_start(position)
            norms = [module for module in method.modules() if isinstance(module, TaskNorm)]
            assert {norm.sets[t].training for norm in norms} == {expected}
            assert not any(norm.sets[k].training for norm in norms for k in range(4) if k != t)
            assert method.heads.training
            assert all(
                module.training for module in method.modules() if isinstance(module, nn.Conv2d)
            )


def test_statistics_move_in_the_first_epoch_only() -> None:
    method = tsn()
    start(method, 1)
    moved = []
    for position in (at(WARMUP), at(FINETUNE, epoch=0), at(FINETUNE, epoch=1)):
        method.on_phase_start(position)
        before = snapshot(method)
        method.score(images(1)["image"])
        moved.append(any("running" in key for key in changed(before, method)))
    assert moved == [False, True, False]


def begins_like(method: TSNIQA, t: int, source: int) -> bool:
    """Whether the norms of task t are those of set `source`, and its head that of the task."""
    layers = zip(method.sets.layers(t), method.sets.layers(source), strict=True)
    norms = all(
        torch.equal(one.state_dict()[key], v)
        for one, two in layers
        for key, v in two.state_dict().items()
    )
    head = tsn().heads.weight[0] if source == 0 else method.heads.weight[source - 1]
    return norms and torch.equal(method.heads.weight[t - 1], head)


@pytest.mark.parametrize(
    ("init", "images_like", "source"),
    [("pretrained", 1, 0), ("previous", 1, 2), ("nearest", 1, 1), ("nearest", 2, 2)],
)
def test_a_task_starts_from(init: str, images_like: int, source: int) -> None:
    method = tsn(init=init)
    start(method, 1)
    assert begins_like(method, 1, 0)
    learn(method, 1)
    learn(method, 2)
    before = snapshot(method)
    start(method, 3, seed=images_like)
    assert [begins_like(method, 3, k) for k in range(3)] == [k == source for k in range(3)]
    assert not {key for key in changed(before, method) if of_task(key, 1) or of_task(key, 2)}


def test_an_unknown_start_is_refused() -> None:
    with pytest.raises(ValueError, match=r"init='imagenet'.*nearest"):
        tsn(init="imagenet")


@pytest.mark.parametrize("hard", [False, True])
def test_the_gate_shares_out_one(hard: bool) -> None:
    method = tsn(gate={"hard": hard})
    assert torch.equal(head_scores(method, images(0)).gate, torch.ones(8, 1))
    for t in (1, 2, 3):
        learn(method, t)
        weights = head_scores(method, images(0)).gate
        assert weights.shape == (8, t)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(8))
        assert t > 1 or torch.equal(weights, torch.ones(8, 1))
        assert not hard or set(weights.unique().tolist()) <= {0.0, 1.0}


def test_the_gate_reads_the_pretrained_network_whatever_was_learnt() -> None:
    method = tsn().eval()
    before = method.gate_stages(images(0)["image"])
    learn(learn(method, 1), 2).eval()
    for level, old in zip(method.gate_stages(images(0)["image"]), before, strict=True):
        assert torch.equal(level, old)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"clusters": 128, "images_per_cluster": 4}, 3),
        ({"clusters": 128, "images_per_cluster": 1}, 12),
        ({"clusters": 2}, 2),
    ],
)
def test_clusters_are_capped_by_the_images_of_the_task(options: dict, expected: int) -> None:
    method = tsn(gate=options)
    start(method, 1)  # 12 images
    assert method.gate.counts.tolist() == [expected, 0, 0]


def test_columns_of_the_records() -> None:
    method = tsn()
    batch = images(0)
    assert list(columns(method, batch, 1)) == ["latest", "oracle", "gated"]
    assert len(head_scores(method, batch).gate_features) == 2, "which the walk keeps to itself"
    assert columns(method, batch, 1)["oracle"].isnan().all()
    for t in (1, 2):
        learn(method, t)
    found = columns(method, batch, 1)
    heads = [
        f"{kind}/{task}" for kind in ("score", "gate", "nearness1", "nearness2") for task in "ab"
    ]
    assert list(found) == ["latest", "oracle", "gated", *heads]
    near = [
        torch.stack([found[f"nearness{level}/{task}"] for task in "ab"], dim=1) for level in (1, 2)
    ]
    shares = sum(level.exp() / level.exp().sum(dim=1, keepdim=True) for level in near) / 2
    torch.testing.assert_close(shares, torch.stack([found["gate/a"], found["gate/b"]], dim=1))
    assert torch.equal(found["latest"], found["score/b"])
    assert torch.equal(found["oracle"], found["score/a"])
    gated = found["gate/a"] * found["score/a"] + found["gate/b"] * found["score/b"]
    torch.testing.assert_close(found["gated"], gated, atol=1e-6, rtol=0)
    assert columns(method, batch, 3)["oracle"].isnan().all()
    assert all(
        values.abs().max() <= 1 + 1e-6
        for name, values in found.items()
        if not name.startswith("nearness")
    )


def test_recorded_gate_features_give_the_same_weights() -> None:
    method, batch = learn(learn(tsn(), 1), 2), images(0)
    with evaluation_mode(method), torch.no_grad():
        whole = method.head_scores(batch["image"], NOTHING)
        known = Known({"a": whole.score[:, 0]}, method.gate_stages(batch["image"]))
        before = method.backbone.images_forwarded
        again = method.head_scores(batch["image"], known)
    assert torch.equal(again.gate, whole.gate)
    assert torch.equal(again.score[:, 0], whole.score[:, 0])
    torch.testing.assert_close(again.score, whole.score, rtol=0, atol=1e-6)
    assert method.backbone.images_forwarded - before == len(batch["image"]), (
        "only the newest head is computed"
    )


def test_forward_passes_of_a_scoring() -> None:
    method = tsn()
    for t, passes in (
        (1, 1),
        (2, 3),
        (3, 4),
    ):  # a pass a head and, from two heads on, one for the gate
        learn(method, t)
        before = method.backbone.images_forwarded
        head_scores(method, images(0, 5))
        assert method.backbone.images_forwarded - before == 5 * passes


def test_training_goes_on_with_its_own_norms_after_a_scoring() -> None:
    method = learn(learn(tsn(), 1), 2)
    expected = method.score(images(0)["image"])
    head_scores(method, images(0))
    assert torch.equal(method.score(images(0)["image"]), expected)
