"""The stream: orders, positions in the walk, hashes, and the batches that a task really gets."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from iqa_lightning.datasets.base import unlocked_test_set
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.images.transforms import View
from iqa_lightning.stream.pairs import InBatchPairs, SampledPairs, pair_target
from iqa_lightning.stream.schedule import Phase, Position
from iqa_lightning.stream.stream import TaskStream, folder_stream
from iqa_lightning.stream.training_images import TrainingImages
from tests.walks import ROOT, composed

PHASES = [Phase("warmup", 1, 8, trains="heads"), Phase("finetune", 2, 8)]
few = settings(deadline=None, max_examples=60)


def named(*names: str, order: list | None = None, phases: list[Phase] = PHASES) -> TaskStream:
    """A stream of data sets that are only names."""
    return TaskStream(
        {name: lambda name, **_: SimpleNamespace(name=name) for name in names}, phases, order
    )


def ready(
    folders: list[Path], epoch: int = 0, rank: int = 0, ranks: int = 1, **options: object
) -> TaskStream:
    """A stream of real folders, at an epoch of a walk."""
    stream = folder_stream(
        [str(folder) for folder in folders], phases=PHASES, view=View(0, 32), **options
    )
    stream.setup()
    stream.trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=ranks)
    return stream


def batches(
    folders: list[Path], epoch: int = 0, **options: object
) -> list[dict[str, torch.Tensor]]:
    return list(ready(folders, epoch, **options).train_dataloader())


def same(first: list[dict[str, torch.Tensor]], second: list[dict[str, torch.Tensor]]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(one[key], two[key])
        if isinstance(one[key], torch.Tensor)
        else one[key] == two[key]
        for one, two in zip(first, second, strict=True)
        for key in one
    )


# --- orders


def test_the_order_picks_the_tasks() -> None:
    stream = named("a", "b", "c", order=["c", "a"])
    assert [(task.t, task.name, task.datasets) for task in stream.tasks] == [
        (1, "c", ("c",)),
        (2, "a", ("a",)),
    ]
    assert stream.datasets == ["c", "a"]
    assert stream.task_of_dataset == {"c": 1, "a": 2}


def test_without_an_order_all_tasks_come_as_they_stand() -> None:
    assert [task.name for task in named("b", "a").tasks] == ["b", "a"]


def test_an_order_by_name_takes_all_tasks() -> None:
    assert named("a", "b", "c", order="reverse").order == ["c", "b", "a"]
    assert sorted(named("a", "b", "c", order="random:7").order) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="williams is a list of orders"):
        named("a", "b", order="williams")


def test_nested_lists_are_joint_tasks() -> None:
    stream = named("a", "b", "c", order=[["a", "c"], "b"])
    assert [(task.name, task.datasets) for task in stream.tasks] == [
        ("a+c", ("a", "c")),
        ("b", ("b",)),
    ]
    assert stream.task_of_dataset == {"a": 1, "c": 1, "b": 2}
    assert stream.datasets == ["a", "c", "b"]


def test_a_data_set_that_comes_again_is_a_task_of_its_own() -> None:
    stream = named("a", "b", order=["a", "b", "a", ["b", "a"]])
    assert [task.name for task in stream.tasks] == ["a", "b", "a_2", "b_2+a_3"]
    assert stream.task_of_dataset == {"a": 1, "b": 2, "a_2": 3, "b_2": 4, "a_3": 4}
    assert stream.data["a_3"] is stream.data["a_2"] is stream.data["a"]


def test_names_stay_unique_whatever_the_data_sets_are_called() -> None:
    stream = named("a", "a_2", order=["a", "a", "a_2"])
    assert len(stream.datasets) == len(set(stream.datasets)) == 3
    assert stream.data[stream.tasks[1].name] is stream.data["a"]


def test_a_stream_of_one_task() -> None:
    stream = named("a")
    assert stream.num_epochs == 3
    assert [stream.at(epoch).starts_task for epoch in range(3)] == [True, False, False]
    assert [stream.at(epoch).ends_task for epoch in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (["a", "kadid"], r"'kadid'.*\['a', 'b'\]"),
        ([["a", "kadid"]], r"'kadid'.*\['a', 'b'\]"),
        ([], "no data set"),
        (["a", []], "no data set"),
        ([["a", "a"]], "twice"),
        ([5], "5"),
        ([[["a"]]], "a"),
    ],
)
def test_a_wrong_order_is_refused(order: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        named("a", "b", order=order)


def test_a_schedule_without_phases_is_refused() -> None:
    with pytest.raises(ValueError, match="no phase"):
        named("a", phases=[])


# --- phases and positions


def test_phases_of_a_method_follow_the_schedule_in_each_task() -> None:
    stream = named("a", "b", "c")
    stream.serve(TrainingImages(), [Phase("generator", 2, 64, trains="generator")])
    found = [
        (at.task.t, at.phase.name, at.epoch, at.ends_task)
        for at in map(stream.at, range(stream.num_epochs))
    ]
    learnt = [("warmup", 0), ("finetune", 0), ("finetune", 1)]
    whole = [*learnt, ("generator", 0), ("generator", 1)]
    expected = [(t, *step) for t in (1, 2, 3) for step in whole]
    assert [step[:3] for step in found] == expected
    assert [k for k, step in enumerate(found) if step[3]] == [4, 9, 14]
    assert [stream.at(epoch).full_epoch for epoch in range(5)] == [-1, 0, 1, -1, -1]


def test_a_schedule_cannot_hold_such_a_phase() -> None:
    with pytest.raises(ValueError, match=r"phase 'generator' has trains='generator'.*method"):
        named("a", phases=[*PHASES, Phase("generator", 2, 64, trains="generator")])


def test_sources_of_tasks_that_come_again() -> None:
    stream = named("a", "b", order=["a", ["a", "b"], "a", ["a", "b"]])
    assert [task.name for task in stream.tasks] == ["a", "a_2+b", "a_3", "a_4+b_2"]
    assert stream.task_datasets == ["a", "a+b", "a", "a+b"]


@pytest.mark.parametrize(
    "wrong",
    [{"trains": "body"}, {"decay": "linear"}, {"epochs": 0}, {"batch_size": 1}],
    ids=lambda wrong: str(*wrong),
)
def test_a_phase_that_cannot_run_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="'finetune'"):
        Phase(**{"name": "finetune", "epochs": 1, "batch_size": 8} | wrong)


def test_a_cosine_goes_from_the_full_rate_towards_zero() -> None:
    phase = Phase("finetune", 4, 8, lr_factor=0.5, decay="cosine")
    found = [phase.lr_at(epoch) for epoch in range(4)]
    assert found == pytest.approx([0.5, 0.25 * (1 + np.sqrt(0.5)), 0.25, 0.25 * (1 - np.sqrt(0.5))])


@pytest.mark.parametrize(
    ("schedule", "method", "epochs"),
    [("tsn_paper", "tsn_iqa", 4), ("lwf_paper", "sh_cl", 3), ("lwf_paper", "mh_cl", 3)],
)
def test_golden_learning_rates_and_batches_of_the_papers(
    schedule: str, method: str, epochs: int
) -> None:
    phases = OmegaConf.load(ROOT / "conf" / "schedule" / f"{schedule}.yaml")
    lr = composed(f"method={method}").method.optimizer.lr
    stream = named("a", phases=[Phase(name=name, **phase) for name, phase in phases.items()])
    walk = [stream.at(epoch) for epoch in range(stream.num_epochs)]
    assert [lr * at.phase.lr_at(at.epoch) for at in walk] == pytest.approx(
        [2e-4] * epochs + [2e-5] * epochs + [2e-6] * epochs, rel=1e-9
    )
    assert [at.phase.trains for at in walk] == ["heads"] * epochs + ["all"] * 2 * epochs
    assert [at.phase.batch_size // 2 for at in walk] == [128] * epochs + [32] * 2 * epochs


phases = st.builds(
    Phase, st.just("x"), st.integers(1, 4), st.just(8), st.sampled_from(["heads", "all"])
)


@few
@given(st.integers(1, 4), st.lists(phases, min_size=1, max_size=4))
def test_positions_equal_a_walk_by_hand(tasks: int, phases: list[Phase]) -> None:
    stream = named(*"abcd"[:tasks], phases=phases)
    expected = []
    for task in stream.tasks:
        full = -1
        for k, phase in enumerate(phases):
            for epoch in range(phase.epochs):
                full += phase.trains == "all"
                first, last = (
                    (k, epoch) == (0, 0),
                    (k, epoch) == (len(phases) - 1, phase.epochs - 1),
                )
                expected.append(
                    Position(
                        task, phase, epoch, full if phase.trains == "all" else -1, first, last
                    ),
                )
    assert stream.num_epochs == len(expected)
    found = {epoch: stream.at(epoch) for epoch in reversed(range(len(expected)))}
    assert [found[epoch] for epoch in range(len(expected))] == expected


# --- real folders


def test_the_split_hash_is_the_same_for_every_order(folders: list[Path]) -> None:
    orders = [["a", "b"], ["b", "a"], [["a", "b"]], ["a", "b", "a"]]
    assert len({ready(folders, order=order).split_hash for order in orders}) == 1


def test_the_split_hash_differs_between_splits_and_sets(folders: list[Path]) -> None:
    hashes = [ready(folders, split=split).split_hash for split in range(1, 11)]
    hashes += [ready(folders, order=[name]).split_hash for name in "ab"]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("names", "words"),
    [([], r"stream\.folders is \[\]"), (["x/a", "x/a/"], "twice")],
)
def test_wrong_folders_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        folder_stream(names, phases=PHASES)


def test_a_folder_whose_name_records_cannot_bear() -> None:
    assert folder_stream(["x/my photos"], phases=PHASES).datasets == ["my_photos"]


def test_folders_are_named_after_themselves(folders: list[Path]) -> None:
    stream = folder_stream([f"{folder}/" for folder in folders], phases=PHASES)
    assert stream.datasets == ["a", "b"]
    assert [
        Path(data.root) for data in stream.data.values() if isinstance(data, CSVData)
    ] == folders


def test_a_missing_folder_is_found_before_the_training(tmp_path: Path) -> None:
    stream = folder_stream([str(tmp_path / "gone")], phases=PHASES)
    for check in (stream.prepare_data, stream.setup):
        with pytest.raises(ValueError, match="gone"):
            check()


@pytest.mark.parametrize(
    "pairs", [InBatchPairs(), SampledPairs(200), SampledPairs(200, target="soft")]
)
def test_a_task_gets_its_own_images_with_the_targets_of_their_scores(
    folders: list[Path], pairs: object
) -> None:
    stream = ready(folders, epoch=4, pairs=pairs)
    part = stream.data["b"].part("train")
    seen = set()
    for batch in stream.train_dataloader():
        assert batch["image"].dtype == torch.uint8
        assert batch["image"].shape[1:] == (3, 32, 32)
        torch.testing.assert_close(batch["mos"], part.mos[batch["index"]])
        seen |= set(batch["index"].tolist())
        first, second = batch["pairs"].T
        mos, std = (
            torch.stack([values[first], values[second]], dim=1)
            for values in (batch["mos"], batch["mos_std"])
        )
        torch.testing.assert_close(batch["target"], pair_target(mos, std, stream.pairs.target))
    assert seen == set(range(len(part)))


@pytest.mark.parametrize("pairs", [InBatchPairs(), SampledPairs(60)])
def test_a_joint_task_pairs_images_of_one_set_only(folders: list[Path], pairs: object) -> None:
    stream = ready(folders, order=[["a", "b"]], pairs=pairs)
    border = len(stream.data["a"].part("train"))
    both = torch.cat([stream.data[name].part("train").mos for name in "ab"])
    crossing = set()
    for batch in stream.train_dataloader():
        assert torch.equal(batch["dataset_index"], (batch["index"] >= border).long())
        torch.testing.assert_close(batch["mos"], both[batch["index"]])
        sources = batch["dataset_index"][batch["pairs"]]
        assert (sources[:, 0] == sources[:, 1]).all()
        crossing |= set(batch["dataset_index"].tolist())
    assert crossing == {0, 1}


def test_batches_are_a_function_of_seed_and_epoch(folders: list[Path]) -> None:
    assert same(batches(folders, 1), batches(folders, 1))
    assert same(batches(folders, 1), batches(folders, 1, num_workers=2))
    assert not same(batches(folders, 1), batches(folders, 2))
    assert not same(batches(folders, 1), batches(folders, 1, seed=1))


def test_ranks_share_the_training_images(folders: list[Path]) -> None:
    alone = [set(batch["index"].tolist()) for batch in batches(folders)]
    shares = [
        [set(batch["index"].tolist()) for batch in batches(folders, rank=rank, ranks=2)]
        for rank in (0, 1)
    ]
    for whole, first, second in zip(alone, *shares, strict=True):
        assert first | second == whole
        assert not first & second


def test_the_epoch_after_the_last_has_a_loader_too(folders: list[Path]) -> None:
    assert same(
        batches(folders, 6), batches(folders, 5)
    )  # the trainer asks for one before it sees that it is done


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_evaluation_shows_every_image_of_a_part_once(folders: list[Path], ranks: int) -> None:
    streams = [
        ready(folders, rank=rank, ranks=ranks, max_pixels=3 * 36 * 44) for rank in range(ranks)
    ]
    with unlocked_test_set():
        loaders = [stream.evaluation_dataloader("b", "test") for stream in streams]
        size = len(streams[0].data["b"].part("test"))
    index = [i for loader in loaders for batch in loader for i in batch["index"].tolist()]
    assert sorted(index) == list(range(size))


def test_the_test_part_is_closed_outside_of_an_evaluation(folders: list[Path]) -> None:
    with pytest.raises(PermissionError):
        ready(folders).evaluation_dataloader("a", "test")
