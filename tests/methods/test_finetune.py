"""Sequential fine-tuning: what is trained, what is forgotten, what is recorded."""

import pytest
import torch
from torch import nn

from iqa_lightning.methods.finetune import MultiHead, SingleHead
from iqa_lightning.methods.readouts import NOTHING, Known
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.gating import KMeansGate
from iqa_lightning.models.heads import CosineHeads
from iqa_lightning.models.normalization import batch_norms
from tests.methods.steps import (
    FINETUNE,
    WARMUP,
    at,
    build,
    changed,
    columns,
    images,
    learn,
    snapshot,
    start,
    trained,
)


@pytest.mark.parametrize("kind", [SingleHead, MultiHead])
def test_the_warmup_trains_the_head_and_the_rest_trains_all(kind: type) -> None:
    method = build(kind)
    backbone = {name for name, _ in method.named_parameters() if name.startswith("backbone.")}
    for t in (1, 2, 3):
        start(method, t)
        head = {f"heads.weight.{t - 1 if kind is MultiHead else 0}"}
        method.on_phase_start(at(WARMUP, t))
        assert trained(method) == head
        method.on_phase_start(at(FINETUNE, t))
        assert trained(method) == head | backbone


@pytest.mark.parametrize("bn_stats", ["first_epoch", "always", "frozen"])
@pytest.mark.parametrize("kind", [SingleHead, MultiHead])
def test_batch_norms_gather_statistics_when_told(kind: type, bn_stats: str) -> None:
    method = build(kind, bn_stats=bn_stats)
    start(method, 1)
    found = []
    for position in (
        at(WARMUP),
        at(FINETUNE, epoch=0),
        at(FINETUNE, epoch=1),
        at(FINETUNE, epoch=2),
    ):
        method.on_phase_start(position)
        modes = {layer.training for layer in batch_norms(method)}
        assert len(modes) == 1
        found += modes
    live = {"first_epoch": [True, False, False], "always": [True] * 3, "frozen": [False] * 3}
    assert found == [False, *live[bn_stats]]
    assert all(
        module.training
        for module in method.modules()
        if isinstance(module, nn.Conv2d | CosineHeads)
    )


def test_frozen_statistics_stay() -> None:
    method = build(SingleHead, bn_stats="frozen")
    before = snapshot(method)
    learn(method, 1)
    assert not any("running" in key for key in changed(before, method))


def test_a_single_head_is_read_out_alone() -> None:
    method = build(SingleHead)
    assert list(columns(method, images(0), 1)) == ["single"]
    learn(method, 1)
    learn(method, 2)
    found = columns(method, images(0), 1)
    assert list(found) == ["single"]
    torch.testing.assert_close(found["single"], method.eval().score(images(0)["image"]))
    assert len(method.heads.weight) == 1


def test_heads_of_other_tasks_stay() -> None:
    method = learn(build(MultiHead), 1)
    before = snapshot(method)
    learn(method, 2)
    heads = {key for key in changed(before, method) if key.startswith("heads.")}
    assert heads == {"heads.weight.1"}


def test_multi_head_columns() -> None:
    method = build(MultiHead)
    assert list(columns(method, images(0), 1)) == ["latest", "oracle"]
    for t in (1, 2):
        learn(method, t)
    found = columns(method, images(0), 1)
    assert list(found) == ["latest", "oracle", "score/a", "score/b"]
    assert torch.equal(found["latest"], found["score/b"])
    assert torch.equal(found["oracle"], found["score/a"])
    assert not torch.equal(found["latest"], found["oracle"])
    assert torch.equal(columns(method, images(0), 2)["oracle"], found["score/b"])
    assert columns(method, images(0), 3)["oracle"].isnan().all()


@pytest.mark.parametrize("kind", [SingleHead, MultiHead])
def test_all_heads_take_one_pass(kind: type) -> None:
    method = learn(learn(build(kind), 1), 2)
    before = method.backbone.images_forwarded
    columns(method, images(0, 5), 1)
    assert method.backbone.images_forwarded - before == 5


def test_a_shared_network_forgets() -> None:
    method = learn(build(MultiHead), 1)
    before = columns(method, images(0), 1)["oracle"]
    learn(method, 2)
    assert not torch.allclose(columns(method, images(0), 1)["oracle"], before, atol=1e-3)


def test_parameters_added_by_a_task() -> None:
    assert build(SingleHead).added_parameters() == 0
    assert build(MultiHead).added_parameters() == 256


def gated() -> MultiHead:
    """A multi-head method with a gate, after two tasks."""
    method = build(
        MultiHead, gate=lambda widths, tasks: KMeansGate(widths, tasks, clusters=3, restarts=1)
    )
    return learn(learn(method, 1), 2)  # type: ignore[return-value]


def test_a_gate_weighs_the_heads_of_any_multi_head_method() -> None:
    found = columns(gated(), images(0), 1)
    assert list(found) == ["latest", "oracle", "gated", "score/a", "score/b", "gate/a", "gate/b"]
    expected = found["gate/a"] * found["score/a"] + found["gate/b"] * found["score/b"]
    torch.testing.assert_close(found["gated"], expected)
    torch.testing.assert_close(found["gate/a"] + found["gate/b"], torch.ones(8))


def test_the_gate_reads_the_backbone_as_it_started() -> None:
    method, fresh = gated(), build(MultiHead)
    assert all(
        torch.equal(v, method.gate_encoder.state_dict()[k])
        for k, v in fresh.backbone.state_dict().items()
    )
    assert not any(parameter.requires_grad for parameter in method.gate_encoder.parameters())
    method.on_phase_start(at(FINETUNE))
    assert not any(layer.training for layer in batch_norms(method.gate_encoder))


def test_gate_features_are_read_once_and_heads_share_a_pass() -> None:
    method, batch = gated().eval(), images(0, 5)
    with torch.no_grad():
        known = Known(gate_features=method.gate_stages(batch["image"]))
        before = method.images_forwarded
        found = method.head_scores(batch["image"], known)
        assert method.images_forwarded - before == 5
        again = method.head_scores(batch["image"], NOTHING)
    assert (
        method.images_forwarded - before == 15
    )  # the backbone once more, and the gate's own network
    assert torch.equal(found.gate, again.gate)


def test_the_gate_may_read_any_network() -> None:
    encoder = Backbone("test_resnet")
    gate = lambda widths, tasks: KMeansGate(widths, tasks, clusters=3, restarts=1)  # noqa: E731
    method = learn(build(MultiHead, gate=gate, gate_encoder=encoder), 1)
    assert [level.shape[2] for level in method.gate.centroids] == encoder.stage_widths
    assert method.gate_encoder is encoder
