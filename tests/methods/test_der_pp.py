"""Dark experience replay: scores kept at the end of a task, compared with later ones of the same
images.
"""

import torch

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.der_pp import DERpp
from iqa_lightning.methods.replay import MultiHeadReplay
from iqa_lightning.stream.schedule import Task
from tests.methods.memories import in_task, memory_of, with_memory
from tests.methods.steps import images, snapshot


def finish(method: DERpp, t: int, count: int = 12) -> torch.Tensor:
    """End task t on `count` images; their scores on the scale of the training."""
    whole = images(50 + t, count)
    shares = [
        {"image": whole["image"][rows], "index": torch.tensor(rows)}
        for rows in ([5, 0, 7], [1, 2, 3, 4, 6])
    ]
    rest = list(range(8, count))
    shares.append({"image": whole["image"][rest], "index": torch.tensor(rest)})
    with evaluation_mode(method):
        method.on_task_end(Task(t, "x", ("x",)), shares, [])
    with evaluation_mode(method), torch.no_grad():
        feature = method.backbone(whole["image"])
        return torch.nn.functional.normalize(feature, dim=1) @ method.heads.weight[t - 1]


def test_kept_scores_are_those_of_the_remembered_images() -> None:
    method = in_task(DERpp, 1, replay_memory={"capacity": 6})
    expected = finish(method, 1)
    rows = method.training_images.replay_memory.rows({"x": 12})[0]
    assert method.rows[0].tolist() == rows.tolist()
    torch.testing.assert_close(method.scores[0], expected[rows])
    later = [int(rows[0]), int(rows[2])]
    memory = {"task": torch.tensor([1, 1]), "index": torch.tensor(later)}
    torch.testing.assert_close(method.kept_scores(memory), expected[later])


def test_a_small_task_leaves_places_empty() -> None:
    method = in_task(DERpp, 1, replay_memory={"capacity": 20})
    finish(method, 1)
    assert sorted(method.rows[0].tolist()) == [-1] * 8 + list(range(12))
    assert method.rows[1:].unique().tolist() == [-1]


def test_the_loss_by_its_parts() -> None:
    method = in_task(DERpp, 2, weight=0.25, score_weight=2.0)
    finish(method, 1)
    batch, memory = with_memory(1, 1), memory_of(1)
    scores = method.heads(method.backbone(memory["image"]), 0)
    kept = method.kept_scores(memory)
    assert kept.abs().min() > 0
    expected = pair_loss(method.score(batch["image"]), batch["pairs"], batch["target"])
    expected = expected + 0.25 * pair_loss(scores, memory["pairs"], memory["target"])
    expected = expected + 2.0 * sum((a - b) ** 2 for a, b in zip(scores, kept, strict=True)) / 4
    torch.testing.assert_close(method.training_step(batch, 0), expected)


def test_each_image_is_scored_by_the_head_of_its_task() -> None:
    method = in_task(DERpp, 3, weight=0.0, score_weight=1.0)
    memory = memory_of(1, 2)
    feature = method.backbone(memory["image"])
    expected = (
        torch.cat([method.heads(feature[:4], 0), method.heads(feature[4:], 1)]).square().mean()
    )
    torch.testing.assert_close(method.replay_loss(feature, memory), expected)  # nothing kept: zeros


def test_without_the_scores_it_is_replay() -> None:
    one, two = in_task(DERpp, 2, weight=1.0, score_weight=0.0), in_task(MultiHeadReplay, 2)
    assert torch.equal(
        one.training_step(with_memory(1, 1), 0), two.training_step(with_memory(1, 1), 0)
    )


def test_kept_scores_are_in_the_state_and_are_not_trained() -> None:
    method = in_task(DERpp, 1)
    assert {"rows", "scores"} <= snapshot(method).keys()
    assert not method.rows.requires_grad
    assert not method.scores.requires_grad
