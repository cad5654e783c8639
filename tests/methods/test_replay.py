"""Experience replay: which head learns what from the memory."""

import pytest
import torch

from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.finetune import MultiHead, SingleHead
from iqa_lightning.methods.replay import MultiHeadReplay, SingleHeadReplay, by_task, joined
from tests.methods.memories import in_task, memory_of, step_on, with_memory
from tests.methods.steps import WARMUP, at, changed, images, snapshot


def test_pairs_by_task() -> None:
    memory = {
        "task": torch.tensor([1, 1, 3, 3, 3]),
        "pairs": torch.tensor([[2, 3], [0, 1], [4, 2]]),
    }
    assert [(t, mine.tolist()) for t, mine in by_task(memory)] == [(1, [1]), (3, [0, 2])]


def test_a_batch_and_its_memory_as_one() -> None:
    batch = with_memory(1, 1)
    both = joined(batch)
    assert len(both["image"]) == 8 + 4
    assert len(both["pairs"]) == 28 + 6
    assert both["pairs"][28:].tolist() == (memory_of(1)["pairs"] + 8).tolist()
    assert both["target"].tolist() == [*batch["target"].tolist(), *memory_of(1)["target"].tolist()]


def test_a_single_head_takes_the_mean_over_all_pairs() -> None:
    method = in_task(SingleHeadReplay, 2)
    batch = with_memory(1, 1)
    own = pair_loss(method.score(batch["image"]), batch["pairs"], batch["target"])
    memory = batch["replay"]
    old = pair_loss(method.score(memory["image"]), memory["pairs"], memory["target"])
    torch.testing.assert_close(method.training_step(batch, 0), (28 * own + 6 * old) / 34)


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_each_head_learns_from_its_own_task(weight: float) -> None:
    method = in_task(MultiHeadReplay, 3, weight=weight)
    batch = with_memory(1, 1, 2)
    expected = pair_loss(method.score(batch["image"]), batch["pairs"], batch["target"])
    for t in (1, 2):
        alone = memory_of(t)
        scores = method.heads(method.backbone(alone["image"]), t - 1)
        expected = expected + weight * pair_loss(scores, alone["pairs"], alone["target"])
    torch.testing.assert_close(method.training_step(batch, 0), expected)


def test_what_a_step_trains() -> None:
    method = in_task(MultiHeadReplay, 3)
    heads = {name for name in step_on(method, with_memory(1, 1, 2)) if name.startswith("heads.")}
    assert heads == {"heads.weight.0", "heads.weight.1", "heads.weight.2"}
    before = snapshot(method)
    step_on(method, with_memory(1, 2))
    assert {key for key in changed(before, method) if key.startswith("heads.")} == {
        "heads.weight.1",
        "heads.weight.2",
    }


def test_the_warmup_trains_the_new_head_alone() -> None:
    method = in_task(MultiHeadReplay, 2)
    method.on_phase_start(at(WARMUP, 2))
    before = snapshot(method)
    step_on(method, images(3))
    assert changed(before, method) == {"heads.weight.1"}


@pytest.mark.parametrize(
    ("replay", "plain"), [(SingleHeadReplay, SingleHead), (MultiHeadReplay, MultiHead)]
)
def test_without_a_memory_a_task_is_plain_fine_tuning(replay: type, plain: type) -> None:
    one, two = in_task(replay, 1), in_task(plain, 1)
    for seed in range(3):
        step_on(one, images(seed))
        step_on(two, images(seed))
    assert not changed(snapshot(two), one)
    assert one.training_images.replay_memory.capacity == 1000


def test_the_capacity_comes_from_the_config() -> None:
    method = in_task(MultiHeadReplay, 1, replay_memory={"capacity": 20, "seed": 3})
    assert (
        method.training_images.replay_memory.capacity,
        method.training_images.replay_memory.seed,
    ) == (20, 3)
    assert list(method.training_images.replayed(2)) == [1]
