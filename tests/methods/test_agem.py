"""A-GEM: the projection by hand, and steps that do not raise the memory's loss."""

import torch

from iqa_lightning.methods.agem import AGEM, project
from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.methods.replay import MultiHeadReplay
from tests.methods.memories import in_task, step_on, with_memory
from tests.methods.steps import changed, images, snapshot


def test_projection_by_hand() -> None:
    reference = torch.tensor([0.0, 2.0])
    assert project(torch.tensor([3.0, -4.0]), reference).tolist() == [3.0, 0.0]
    agrees = torch.tensor([3.0, 4.0])
    assert project(agrees, reference) is agrees
    assert project(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])).tolist() == [0.5, 0.5]
    assert project(agrees, torch.zeros(2)) is agrees


def ready(kind: type, t: int = 2) -> ContinualMethod:
    return in_task(kind, t, optimizer=lambda groups: torch.optim.SGD(groups, lr=1e-3))


def opposed() -> dict:
    """A batch whose memory shows its own images with turned targets, as if they were of task 1."""
    batch = images(1)
    memory = batch | {"target": 1 - batch["target"], "task": torch.ones(8, dtype=torch.long)}
    return batch | {"replay": memory}


def gradients(method: ContinualMethod) -> torch.Tensor:
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in method.trained()]
    )


def test_a_step_against_the_memory_is_projected() -> None:
    method = ready(AGEM)
    method.heads.weight[1].data.copy_(method.heads.weight[0].data)
    batch = opposed()
    method.training_step(batch, 0).backward()
    raw = gradients(method)
    assert raw @ method.reference < 0
    method.on_before_optimizer_step(method.trainer.optimizers[0])
    found, reference = gradients(method), method.reference
    assert abs(found @ reference) < 1e-4 * found.norm() * reference.norm()
    expected = raw - (raw @ reference) / reference.square().sum() * reference
    torch.testing.assert_close(found, expected)


def test_the_reference_is_the_gradient_of_the_remembered_pairs() -> None:
    method, other = ready(AGEM, 3), ready(MultiHeadReplay, 3)
    memory = with_memory(1, 1, 2)["replay"]
    method.zero_grad(), other.zero_grad()
    other.replay_loss(other.backbone(memory["image"]), memory).backward()
    own = [*other.body_parameters(), *other.head_parameters()]
    expected = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in own]
    )
    torch.testing.assert_close(method.reference_gradient(memory), expected)
    assert all(p.grad is None for p in method.parameters())


def test_without_a_conflict_a_step_is_plain_fine_tuning() -> None:
    method, plain = ready(AGEM), ready(MultiHeadReplay)
    batch = images(1)
    method.heads.weight[1].data.copy_(method.heads.weight[0].data)
    plain.heads.weight[1].data.copy_(plain.heads.weight[0].data)
    same = batch | {"replay": batch | {"task": torch.ones(8, dtype=torch.long)}}
    step_on(method, same)
    step_on(plain, batch)
    assert not changed(snapshot(plain), method)


def test_no_reference_is_left_over_for_a_batch_without_a_memory() -> None:
    method = ready(AGEM)
    step_on(method, opposed())
    assert method.reference is not None
    step_on(method, images(2))
    assert method.reference is None
