"""Episodes: support and query without a common reference, views, targets, ranks."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from iqa_lightning.datasets.demo import DemoData
from iqa_lightning.pretraining.episodes import DistortionTasks, TaskSampler, cycled, split


@pytest.fixture(scope="module")
def tasks() -> DistortionTasks:
    data = DistortionTasks(
        [DemoData("blur"), DemoData("noise")],
        resize=64,
        crop=48,
        support_batch=30,
        query_batch=12,
        batches=2,
    )
    data.setup()
    return data


def test_an_episode(tasks: DistortionTasks) -> None:
    episode = tasks.episodes[(1, 0, 0)]
    assert [len(episode[name]) for name in ("support", "query")] == [2, 2]
    for name, size in (("support", 30), ("query", 12)):
        for batch in episode[name]:
            assert batch["image"].shape == (size, 3, 48, 48)
            assert batch["image"].dtype == torch.uint8
            assert ((batch["target"] >= 0) & (batch["target"] <= 1)).all()
    again = tasks.episodes[(1, 0, 0)]
    assert all(
        torch.equal(a["image"], b["image"])
        for a, b in zip(episode["support"], again["support"], strict=True)
    )
    other = tasks.episodes[(1, 1, 0)]
    assert not torch.equal(other["support"][0]["image"], episode["support"][0]["image"])


def test_query_images_are_whole_and_targets_their_own(tasks: DistortionTasks) -> None:
    data = tasks.data[0]
    part = data.part("train")
    whole = torch.stack(
        [
            interpolate(part[i]["image"][None], [48, 48], mode="bilinear", antialias=True)[0]
            for i in range(len(part))
        ]
    )
    batch = tasks.episodes[(0, 3, 1)]["query"][0]
    for image, target in zip(batch["image"], batch["target"].tolist(), strict=True):
        found = (whole == image).flatten(1).all(dim=1).nonzero().flatten().tolist()
        assert any(float(part.mos[i]) / 100 == pytest.approx(target) for i in found)


def test_support_and_query_share_no_reference() -> None:
    codes = np.repeat(np.arange(8), 5)
    for seed in range(20):
        support, query = split(codes, 0.8, np.random.default_rng(seed))
        assert len(support) == 30
        assert len(query) == 10
        assert not set(codes[support]) & set(codes[query])
    with pytest.raises(ValueError, match="one reference only"):
        split(np.zeros(4, dtype=np.int64), 0.8, np.random.default_rng(0))


def test_batches_go_on_from_the_start() -> None:
    assert [rows.tolist() for rows in cycled(np.array([5, 6, 7]), 2, 3)] == [[5, 6], [7, 5], [6, 7]]
    assert [rows.tolist() for rows in cycled(np.array([5, 6]), 9, 2)] == [[5, 6], [5, 6]]


def test_ranks_share_each_mini_batch_of_tasks() -> None:
    whole = list(TaskSampler([8], 5, 2, 0, 3, 0, 1))
    shares = [list(TaskSampler([8], 5, 2, 0, 3, rank, 2)) for rank in range(2)]
    assert [len(batch) for batch in whole] == [5, 3, 5, 3]
    assert len(TaskSampler([8], 5, 2, 0, 3, 0, 1)) == 4
    for k, batch in enumerate(whole):
        assert sorted(shares[0][k] + shares[1][k]) == sorted(batch)
    assert sorted(key[0] for batch in whole[:2] for key in batch) == list(range(8))


def test_only_training_images_are_seen(tasks: DistortionTasks) -> None:
    parts = tasks.data[0].parts
    references = tasks.data[0].samples.table["reference"]
    assert set(tasks.contents) == {f"DemoData:{name}" for name in references.iloc[parts.train]}
    assert not set(tasks.contents) & {f"DemoData:{name}" for name in references.iloc[parts.test]}


def test_a_crop_must_fit() -> None:
    with pytest.raises(ValueError, match="crop=64"):
        DistortionTasks([], resize=48, crop=64)
