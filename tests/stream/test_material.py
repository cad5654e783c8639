"""What the batches of a task are made of, in streams of real folders."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from iqa_lightning.images.transforms import View
from iqa_lightning.stream.pairs import InBatchPairs, SampledPairs, draw_pairs
from iqa_lightning.stream.schedule import Phase
from iqa_lightning.stream.stream import TaskStream, folder_stream
from iqa_lightning.stream.training_images import ReplayMemory, TrainingImages, cycled
from tests.walks import write_folder

PHASES = [Phase("warmup", 1, 8, trains="heads"), Phase("finetune", 2, 8)]
TRAIN = 28  # of 40 images
PROTOCOLS = [InBatchPairs(), SampledPairs(16)]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("three")
    return [str(write_folder(root / name, seed)) for seed, name in enumerate("abc")]


def stream_at(
    folders: list[str],
    training_images: TrainingImages,
    epoch: int,
    rank: int = 0,
    ranks: int = 1,
    **options: object,
) -> TaskStream:
    stream = folder_stream(folders, phases=PHASES, view=View(0, 32), **options)
    stream.setup()
    stream.serve(training_images)
    stream.trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=ranks)
    return stream


def batches(
    folders: list[str], training_images: TrainingImages, epoch: int, **options: object
) -> list[dict]:
    return list(stream_at(folders, training_images, epoch, **options).train_dataloader())


def replaying(capacity: int = 1000, seed: int = 0) -> TrainingImages:
    return TrainingImages("task", ReplayMemory(capacity, seed))


def test_tasks_by_hand() -> None:
    expected = {"task": [2], "seen": [1, 2], "all": [1, 2, 3]}
    for images, tasks in expected.items():
        training_images = TrainingImages(images)
        assert list(training_images.learnt(2, 3)) == list(training_images.validated(2, 3)) == tasks
        assert list(training_images.replayed(2)) == []
    memory = TrainingImages("replay_memory", ReplayMemory())
    assert list(memory.learnt(2, 3)) == [1, 2]
    assert list(memory.validated(2, 3)) == [2]
    assert list(replaying().learnt(3, 3)) == [3]
    assert list(replaying().replayed(3)) == [1, 2]
    assert list(replaying().replayed(1)) == []


@pytest.mark.parametrize("pairs", PROTOCOLS)
@pytest.mark.parametrize(("images", "names"), [("task", "b"), ("seen", "ab"), ("all", "abc")])
def test_batches_hold_the_images_of_the_tasks(
    three: list[str], pairs: object, images: str, names: str
) -> None:
    epoch = 1 if images == "all" else 4
    stream = stream_at(three, TrainingImages(images), epoch, pairs=pairs)
    train = {t: stream.data[name].part("train").mos for t, name in enumerate("abc", start=1)}
    seen = Counter()
    for batch in stream.train_dataloader():
        assert "replay" not in batch
        for t, index, mos in zip(
            batch["task"].tolist(), batch["index"].tolist(), batch["mos"], strict=True
        ):
            assert train[t][index] == mos
            seen[t] += 1
        owner = batch["task"][batch["pairs"]]
        assert (owner[:, 0] == owner[:, 1]).all()
    each = TRAIN if isinstance(pairs, InBatchPairs) else 2 * 16
    assert seen == {"abc".index(name) + 1: each for name in names}


def test_after_a_joint_first_task_the_others_pass_by(three: list[str]) -> None:
    stream = stream_at(three, TrainingImages("all"), 3)
    assert stream.num_epochs == 3 + 1 + 1
    positions = [stream.at(epoch) for epoch in range(5)]
    assert [(p.task.t, p.phase.name, p.starts_task, p.ends_task) for p in positions[2:]] == [
        (1, "finetune", False, True),
        (2, "keep", True, True),
        (3, "keep", True, True),
    ]
    assert positions[3].phase.lr_at(0) == 0.0
    assert positions[3].full_epoch == -1
    assert len(list(stream.train_dataloader())) == 1
    assert stream.validation_sets(stream.tasks[1]) == ["a", "b", "c"]


@pytest.mark.parametrize("pairs", PROTOCOLS)
@pytest.mark.parametrize(("capacity", "held"), [(1000, 28), (18, 6)])
def test_learning_from_the_memory_alone(
    three: list[str], pairs: object, capacity: int, held: int
) -> None:
    training_images = TrainingImages("replay_memory", ReplayMemory(capacity))
    found = {1: set(), 2: set(), 3: set()}
    for batch in batches(three, training_images, 8, pairs=pairs):
        for t, index in zip(batch["task"].tolist(), batch["index"].tolist(), strict=True):
            found[t].add(index)
    rows = training_images.replay_memory.rows(dict.fromkeys("abc", TRAIN))
    assert {len(kept) for kept in rows} == {held}
    for t, kept in enumerate(rows, start=1):
        assert found[t] <= set(kept.tolist())
        assert len(found[t]) > 1


@pytest.mark.parametrize("pairs", PROTOCOLS)
@pytest.mark.parametrize(("epoch", "earlier"), [(4, 1), (8, 2)])
@pytest.mark.parametrize("capacity", [1000, 12])
def test_the_memory_rides_along(
    three: list[str], pairs: object, epoch: int, earlier: int, capacity: int
) -> None:
    training_images = replaying(capacity)
    stream = stream_at(three, training_images, epoch, pairs=pairs)
    train = {t: stream.data[name].part("train") for t, name in enumerate("abc", start=1)}
    kept = training_images.replay_memory.rows(dict.fromkeys("abc"[:earlier], TRAIN))
    per_task = 8 // earlier  # of 8 images, with shares 1 and 1/2
    count = 0
    for batch in stream.train_dataloader():
        assert set(batch["task"].tolist()) == {earlier + 1}
        memory = batch["replay"]
        assert Counter(memory["task"].tolist()) == dict.fromkeys(range(1, earlier + 1), per_task)
        for t, index, mos in zip(
            memory["task"].tolist(), memory["index"].tolist(), memory["mos"], strict=True
        ):
            assert index in kept[t - 1]
            assert train[t].mos[index] == mos
        first, second = memory["pairs"].T
        assert torch.equal(memory["task"][first], memory["task"][second])
        assert (memory["index"][first] != memory["index"][second]).all()
        assert torch.equal(memory["target"], (memory["mos"][first] > memory["mos"][second]).float())
        per_pairs = (
            per_task // 2 if isinstance(pairs, SampledPairs) else per_task * (per_task - 1) // 2
        )
        assert len(memory["pairs"]) == earlier * per_pairs
        assert batch["pairs"].max() < len(batch["image"])
        count += 1
    assert count == 4


def test_the_current_batches_are_those_without_a_memory(three: list[str]) -> None:
    plain, replayed = (
        batches(three, training_images, 8) for training_images in (TrainingImages(), replaying())
    )
    for one, two in zip(plain, replayed, strict=True):
        assert all(
            torch.equal(one[key], two[key])
            if isinstance(one[key], torch.Tensor)
            else one[key] == two[key]
            for key in one
        )


@pytest.mark.parametrize("epoch", [0, 1, 3, 6])
def test_no_replay_in_the_first_task_and_in_warmups(three: list[str], epoch: int) -> None:
    assert all("replay" not in batch for batch in batches(three, replaying(), epoch))


def test_remembered_pairs_are_one_draw_for_the_whole_task(three: list[str]) -> None:
    """16 current pairs and two earlier tasks: 8 pairs of each, the same in both epochs, in another
    order.
    """
    found = []
    for epoch in (7, 8):
        pairs = Counter()
        for batch in batches(three, replaying(), epoch, pairs=SampledPairs(16)):
            memory = batch["replay"]
            for i, j in memory["pairs"].tolist():
                pairs[
                    (memory["task"][i].item(), memory["index"][i].item(), memory["index"][j].item())
                ] += 1
        found.append(pairs)
    assert found[0] == found[1]
    assert Counter(t for t, _, _ in found[0]) == {1: 8, 2: 8}


@pytest.mark.parametrize("pairs", PROTOCOLS)
def test_batches_with_memory_are_a_function_of_seed_and_epoch(
    three: list[str], pairs: object
) -> None:
    def shown(epoch: int, **options: object) -> list[torch.Tensor]:
        return [
            batch["replay"]["image"]
            for batch in batches(three, replaying(), epoch, pairs=pairs, **options)
        ]

    first = shown(4)
    assert all(torch.equal(one, two) for one, two in zip(first, shown(4), strict=True))
    assert all(
        torch.equal(one, two) for one, two in zip(first, shown(4, num_workers=2), strict=True)
    )
    assert not all(torch.equal(one, two) for one, two in zip(first, shown(5), strict=True))


def test_ranks_share_the_memory(three: list[str]) -> None:
    def indices(rank: int, ranks: int) -> list[Counter]:
        found = batches(three, replaying(), 8, pairs=SampledPairs(16), rank=rank, ranks=ranks)
        keys = [batch["replay"] for batch in found]
        return [
            Counter(zip(key["task"].tolist(), key["index"].tolist(), strict=True)) for key in keys
        ]

    for whole, first, second in zip(indices(0, 1), indices(0, 2), indices(1, 2), strict=True):
        assert first + second == whole
        assert first.total() == second.total()
        assert {t for t, _ in first} == {t for t, _ in second} == {1, 2}


def test_an_earlier_joint_task_keeps_its_sets_apart(three: list[str]) -> None:
    stream = stream_at(three, replaying(20), 4, order=[["a", "b"], "c"])
    whole = torch.cat([stream.data[name].part("train").mos for name in "ab"])
    for batch in stream.train_dataloader():
        memory = batch["replay"]
        torch.testing.assert_close(memory["mos"], whole[memory["index"]])
        sets = (memory["index"] >= TRAIN)[memory["pairs"]]
        assert (sets[:, 0] == sets[:, 1]).all()


def test_bytes_kept(three: list[str]) -> None:
    def kept(training_images: TrainingImages) -> list[int]:
        stream = stream_at(three, training_images, 0)
        return [stream.kept_bytes(t) for t in range(4)]

    parts = [stream_at(three, TrainingImages(), 0).data[name].part("train") for name in "abc"]
    sizes = [
        [3 * item["image"].numel() // 3 for item in map(part.__getitem__, range(len(part)))]
        for part in parts
    ]
    one, two, three_ = (sum(size) for size in sizes)
    assert kept(TrainingImages()) == [0, 0, 0, 0]
    assert (
        kept(TrainingImages("seen")) == kept(replaying()) == [0, one, one + two, one + two + three_]
    )
    assert kept(TrainingImages("all")) == [one + two + three_] * 4
    rows = ReplayMemory(10).rows(dict.fromkeys("ab", TRAIN))
    expected = sum(size[i] for size, row in zip(sizes, rows, strict=False) for i in row)
    assert kept(replaying(10))[2] == expected


def test_a_memory_too_small_for_the_stream_is_refused(three: list[str]) -> None:
    with pytest.raises(ValueError, match=r"capacity=5.*3 tasks.*6 images"):
        folder_stream(three, phases=PHASES).serve(replaying(5))
    with pytest.raises(ValueError, match="task a, too few"):
        batches(three, replaying(6), 4, ranks=4)


def test_passes_are_joined_without_their_rests() -> None:
    passes = iter(
        [[np.arange(3), np.arange(3, 6), np.arange(6, 7)], [np.arange(7, 10), np.arange(10, 12)]]
    )
    found = cycled(lambda generator: next(passes), 3)(np.random.default_rng(0))
    assert [batch.tolist() for batch in found] == [[0, 1, 2], [3, 4, 5], [7, 8, 9]]
    assert cycled(lambda generator: [], 3)(np.random.default_rng(0)) == []


@pytest.mark.parametrize("images", [0, 1])
def test_there_is_no_pair_of_one_image(images: int) -> None:
    assert len(draw_pairs(images, 5, np.random.default_rng(0))) == 0
