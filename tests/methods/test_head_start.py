"""`head_init: ridge`: which heads start from the images of their task, and which stay."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.methods.finetune import MultiHead, SeparateModels, SingleHead
from iqa_lightning.methods.lwf import LwF
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.gating import UniformGate
from iqa_lightning.stream.schedule import Task
from tests.methods.steps import build, images, snapshot

MANY = [
    partial(TSNIQA, gate=UniformGate),
    MultiHead,
    partial(LwF, weight=1.0),
]


def begin(method: Any, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Start a task; unit-norm features of its images and their MOS."""
    batch = images(t, 12)
    batch["mos"] = batch["image"].float().mean(dim=(1, 2, 3)) * 3 + torch.arange(12.0)
    name = method.tasks[t - 1]
    with evaluation_mode(method), torch.no_grad():
        method.on_task_start(Task(t, name, (name,)), [batch])
        return F.normalize(method.feature(batch["image"]), dim=1), batch["mos"]


def of_head(method: Any, head: int) -> torch.Tensor:
    """A head as it stands."""
    return method.heads.weight[head].detach().clone()  # type: ignore[no-any-return]


def follows(head: torch.Tensor, feature: torch.Tensor, mos: torch.Tensor) -> bool:
    """Whether a head scores the images of its task as people did, nearly in a straight line."""
    return bool(torch.corrcoef(torch.stack([feature @ head, mos]))[0, 1] > 0.8)


@pytest.mark.parametrize("kind", MANY)
def test_every_new_head_starts_from_its_images(kind: Callable[..., Any]) -> None:
    method = build(kind, head_init="ridge")
    for t in (1, 2):
        before = snapshot(method)
        feature, mos = begin(method, t)
        assert follows(of_head(method, t - 1), feature, mos)
        for other in {0, 1, 2} - {t - 1}:
            assert torch.equal(of_head(method, other), before[f"heads.weight.{other}"])
    assert not torch.allclose(of_head(method, 0), of_head(method, 1))


def test_the_only_head_starts_once() -> None:
    method = build(SingleHead, head_init="ridge")
    feature, mos = begin(method, 1)
    first = of_head(method, 0)
    assert follows(first, feature, mos)
    begin(method, 2)
    assert torch.equal(of_head(method, 0), first)


def test_each_separate_model_starts_anew() -> None:
    method = build(SeparateModels, head_init="ridge")
    for t in (1, 2):
        feature, mos = begin(method, t)
        assert follows(of_head(method, 0), feature, mos)


def test_without_it_a_head_knows_nothing_of_the_images() -> None:
    method = build(MultiHead)
    first = of_head(method, 0)
    begin(method, 1)
    assert torch.equal(of_head(method, 0), first)


def test_sets_of_a_joint_task_have_scales_of_their_own() -> None:
    method = build(SingleHead, head_init="ridge")
    with (
        evaluation_mode(method),
        pytest.raises(ValueError, match=r"cannot pool the scales of a, b"),
    ):
        method.on_task_start(Task(1, "a+b", ("a", "b")), [images(1)])
