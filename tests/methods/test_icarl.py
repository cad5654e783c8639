"""iCaRL: distillation from the model at the beginning of the task; the mixture of v2."""

from dataclasses import replace

import pytest
import torch

from iqa_lightning.losses.distillation import distillation_loss
from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.icarl import ICaRL, ICaRLv2
from iqa_lightning.methods.readouts import HeadScores
from iqa_lightning.models.normalization import batch_norms
from tests.methods.memories import in_task, memory_of, step_on, with_memory
from tests.methods.steps import changed, columns, images, snapshot

KINDS = pytest.mark.parametrize("kind", [ICaRL, ICaRLv2])


@KINDS
def test_the_teacher_is_the_model_at_the_beginning_of_the_task(kind: type) -> None:
    method = in_task(kind, 3)
    pairs = ((method.teacher.backbone, method.backbone), (method.teacher.heads, method.heads))
    for teacher, module in pairs:
        for key, value in module.state_dict().items():
            assert torch.equal(teacher.state_dict()[key], value)
    before = snapshot(method)
    step_on(method, with_memory(1, 1, 2))
    touched = changed(before, method)
    assert not {key for key in touched if key.startswith("teacher.")}
    assert {"heads.weight.0", "heads.weight.2"} <= touched


@pytest.mark.parametrize("bn_stats", ["always", "frozen"])
def test_the_teacher_keeps_its_statistics(bn_stats: str) -> None:
    method = in_task(ICaRL, 2)
    method.bn_stats = bn_stats
    step_on(method, with_memory(1, 1))
    assert not any(layer.training for layer in batch_norms(method.teacher))
    before = snapshot(method)
    method.training_step(with_memory(1, 1), 0)
    assert not {key for key in changed(before, method) if key.startswith("teacher.")}


def test_an_unchanged_model_has_no_distillation_loss() -> None:
    method = in_task(ICaRL, 3)
    memory = memory_of(1, 2)
    loss = method.replay_loss(method.backbone(memory["image"]), memory)
    assert abs(loss.item()) < 1e-5


def test_the_loss_of_v1_and_v2_by_its_parts() -> None:
    for kind in (ICaRL, ICaRLv2):
        method, batch = in_task(kind, 3, weight=10.0), with_memory(1, 1, 2)
        for head in method.teacher.heads.weight:
            head.data.mul_(-50)  # a teacher that disagrees
        memory = batch["replay"]
        new, old = method.score(batch["image"]), method.score(memory["image"])
        if kind is ICaRL:
            expected = pair_loss(new, batch["pairs"], batch["target"])
        else:
            terms = [
                pair_loss(s, b["pairs"], b["target"]) for s, b in ((new, batch), (old, memory))
            ]
            expected = (28 * terms[0] + 12 * terms[1]) / 40
        for t in (1, 2):
            alone = memory_of(t)
            scores = method.heads(method.backbone(alone["image"]), t - 1)
            teacher = method.teacher.heads.free(method.teacher(alone["image"]), t - 1)
            term = distillation_loss(scores, teacher, alone["pairs"])
            assert term > 1e-6
            expected = expected + 10 * term
        torch.testing.assert_close(method.training_step(batch, 0), expected)


def test_v1_does_not_look_at_the_remembered_ratings() -> None:
    method, batch = in_task(ICaRL, 2), with_memory(1, 1)
    turned = batch | {"replay": batch["replay"] | {"target": 1 - batch["replay"]["target"]}}
    assert torch.equal(method.training_step(batch, 0), method.training_step(turned, 0))
    method = in_task(ICaRLv2, 2)
    assert not torch.equal(method.training_step(batch, 0), method.training_step(turned, 0))


def test_the_mixture_of_v2() -> None:
    class Gated(ICaRLv2):
        readouts = ("latest", "oracle", "gated")

        def head_scores(self, image: object, known: object) -> HeadScores:
            gate = torch.tensor([[0.25, 0.75]]).expand(len(image), 2)
            return replace(super().head_scores(image, known), gate=gate)

    found = columns(in_task(Gated, 2), images(0), 1)
    one, two = found["score/a"], found["score/b"]
    torch.testing.assert_close(found["gated"], 0.5 * two + 0.5 * (0.25 * one + 0.75 * two))
    assert torch.equal(found["latest"], two)
