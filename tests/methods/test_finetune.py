"""Sequential fine-tuning: what is trained, what is forgotten, what is recorded."""

import pytest
import torch
from torch import nn

from iqa_lightning.methods.finetune import MultiHead, SingleHead
from iqa_lightning.models.heads import CosineHeads
from iqa_lightning.models.normalization import batch_norms
from tests.methods.steps import FINETUNE, WARMUP, at, build, changed, columns, images, learn, snapshot, start, trained


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
    for position in (at(WARMUP), at(FINETUNE, epoch=0), at(FINETUNE, epoch=1), at(FINETUNE, epoch=2)):
        method.on_phase_start(position)
        modes = {layer.training for layer in batch_norms(method)}
        assert len(modes) == 1
        found += modes
    live = {"first_epoch": [True, False, False], "always": [True] * 3, "frozen": [False] * 3}
    assert found == [False, *live[bn_stats]]
    assert all(module.training for module in method.modules() if isinstance(module, nn.Conv2d | CosineHeads))


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
