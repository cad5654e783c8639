"""LwF against a moving-average teacher."""

import pytest
import torch

from iqa_lightning.methods.lwf import EMATeacher
from tests.methods.steps import FINETUNE, WARMUP, at, build, images, learn, start, step


def in_task_two(momentum: float) -> EMATeacher:
    method = learn(build(EMATeacher, momentum=momentum), 1)
    start(method, 2)
    method.on_phase_start(at(FINETUNE, 2))
    return method  # type: ignore[return-value]


@pytest.mark.parametrize("momentum", [0.0, 0.75, 1.0])
def test_the_teacher_follows(momentum: float) -> None:
    method, key = in_task_two(momentum), "network.bn1.running_mean"
    old = {k: v.clone() for k, v in method.teacher.backbone.state_dict().items()}
    head = method.teacher.heads.weight[1].clone()
    step(method, images(1))
    method.on_train_batch_end(None, images(1), 0)
    new = method.backbone.state_dict()
    assert key in new
    for name, tensor in method.teacher.backbone.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(
                tensor, momentum * old[name] + (1 - momentum) * new[name], atol=1e-6, rtol=1e-5
            )
    expected = momentum * head + (1 - momentum) * method.heads.weight[1].detach()
    torch.testing.assert_close(method.teacher.heads.weight[1].detach(), expected)
    assert not torch.equal(new[key], old[key])


def test_it_stands_still_in_the_warmup_and_the_first_task() -> None:
    method = in_task_two(0.5)
    for t, phase in ((1, FINETUNE), (3, WARMUP)):
        start(method, t)
        method.on_phase_start(at(phase, t))
        step(method, images(1))
        before = method.teacher.heads.weight[t - 1].clone()
        method.on_train_batch_end(None, images(1), 0)
        assert torch.equal(method.teacher.heads.weight[t - 1], before)


def test_a_momentum_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"momentum=1\.5"):
        build(EMATeacher, momentum=1.5)
