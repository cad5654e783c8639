"""Pairs and their targets against scipy, full enumerations and an official list."""

import tracemalloc
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from iqa_lightning.stream.pairs import (
    InBatchPairs,
    PairCollate,
    SampledPairs,
    draw_pairs,
    pair_target,
)

LIVE = "splits/biqa_cl/IQA_Database/databaserelease2/splits2/1"
NAN = float("nan")
few = settings(deadline=None, max_examples=40)


def rows(file: Path) -> list[list[str]]:
    """Cells of an official list, whose rows end with a bare carriage return."""
    return [line.split("\t") for line in file.read_text(encoding="ascii").splitlines()]


def target(mos: tuple[float, float], std: tuple[float, float], kind: str) -> float:
    return pair_target(
        torch.tensor([mos], dtype=torch.float32), torch.tensor([std], dtype=torch.float32), kind
    ).item()


def draw(images: int, count: int, seed: int = 0) -> np.ndarray:
    return draw_pairs(images, count, np.random.default_rng(seed))


def unordered(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(min(pair), max(pair)) for pair in pairs.tolist()}


def test_targets_equal_an_official_list(shared_data: Path) -> None:
    rated = {
        image: (float(mos), float(std))
        for image, mos, std in rows(shared_data / LIVE / "live_train_score.txt")
    }
    pairs = rows(shared_data / LIVE / "live_train.txt")
    assert len(pairs) == 7000
    first, second = (torch.tensor([rated[pair[side]] for pair in pairs]) for side in (0, 1))
    mos, std = torch.stack([first, second], dim=1).unbind(dim=2)
    soft = torch.tensor([float(pair[2]) for pair in pairs])
    torch.testing.assert_close(pair_target(mos, std, "soft"), soft, atol=1e-5, rtol=0)
    assert pair_target(mos, std).tolist() == [float(pair[5]) for pair in pairs]


@pytest.mark.parametrize(
    ("mos", "std", "soft", "binary"),
    [
        ((60, 50), (8, 6), 0.8413447460685429, 1),  # golden: Phi(1)
        ((50, 60), (8, 6), 1 - 0.8413447460685429, 0),
        ((60, 50), (0, 10), 0.8413447460685429, 1),
        ((60, 50), (0, 0), 1, 1),
        ((50, 60), (0, 0), 0, 0),
        ((50, 50), (0, 0), 0.5, 0),
        ((50, 50), (8, 6), 0.5, 0),
        ((60, 50), (NAN, NAN), 1, 1),
        ((50, 60), (NAN, 6), 0, 0),
        ((50, 50), (NAN, NAN), 0.5, 0),
    ],
)
def test_targets_by_hand(
    mos: tuple[float, float], std: tuple[float, float], soft: float, binary: float
) -> None:
    assert target(mos, std, "soft") == pytest.approx(soft, abs=1e-6)
    assert target(mos, std, "binary") == binary


@few
@given(
    st.lists(
        st.tuples(*[st.floats(0, 100, width=32)] * 2, *[st.floats(0.125, 30, width=32)] * 2),
        min_size=1,
    )
)
def test_soft_targets_are_thurstones(table: list[tuple[float, ...]]) -> None:
    mos, std = torch.tensor(table).split(2, dim=1)
    m, s = mos.double().numpy(), std.double().numpy()
    expected = norm.cdf((m[:, 0] - m[:, 1]) / np.hypot(s[:, 0], s[:, 1]))
    found = pair_target(mos, std, "soft")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found + pair_target(mos.flip(1), std.flip(1), "soft"), 1, atol=1e-6)


@pytest.mark.parametrize("pairs", [SampledPairs, InBatchPairs])
def test_an_unknown_target_is_refused(pairs: type) -> None:
    with pytest.raises(ValueError, match=r"'hard'.*binary.*soft"):
        pairs(target="hard")


@few
@given(st.integers(2, 60), st.integers(1, 2000), st.integers(0, 2**32 - 1))
def test_drawn_pairs_are_distinct(images: int, count: int, seed: int) -> None:
    pairs = draw(images, count, seed)
    assert len(pairs) == min(count, images * (images - 1) // 2) == len(unordered(pairs))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert (pairs >= 0).all()
    assert (pairs < images).all()
    np.testing.assert_array_equal(pairs, draw(images, count, seed))


@pytest.mark.parametrize("images", [2, 3, 7, 40])
def test_a_small_set_gives_every_pair(images: int) -> None:
    assert unordered(draw(images, 10_000)) == set(combinations(range(images), 2))


@pytest.mark.parametrize(("images", "count"), [(7_051, 95_000), (95_000, 20_000), (95_000, 95_000)])
def test_a_large_set_is_not_enumerated(images: int, count: int) -> None:
    tracemalloc.start()
    pairs = draw(images, count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32e6
    assert len(unordered(pairs)) == count
    assert 0 <= pairs.min() < pairs.max() < images
    assert pairs.max() > 0.99 * images


@pytest.mark.parametrize(
    ("images", "count", "median"), [(538, 7_000, 26), (410, 10_000, 49), (813, 20_000, 49)]
)
def test_every_image_gets_about_as_many_pairs_as_in_the_official_lists(
    images: int, count: int, median: int
) -> None:
    assert np.median(np.bincount(draw(images, count).ravel(), minlength=images)) == pytest.approx(
        median, abs=1
    )


def test_pairs_are_drawn_uniformly_and_in_either_order() -> None:
    generator = np.random.default_rng(0)
    drawn = np.concatenate([draw_pairs(5, 1, generator) for _ in range(4000)])
    seen = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(seen) == 20
    assert (abs(seen - 200) < 5 * np.sqrt(200)).all()


def sampled(
    sizes: list[int], names: list[str], seed: int = 0, epoch: int = 0, **options: object
) -> list[np.ndarray]:
    batches = SampledPairs(**options).draw(sizes, names, seed, 64)  # type: ignore[arg-type]
    return batches(np.random.default_rng(epoch))


def test_sampled_pairs_have_a_count_by_name_and_stay_in_their_set() -> None:
    batches = sampled([30, 40, 4], ["clive", "bid", "tiny"], count=100, counts={"clive": 50})
    table = np.concatenate(batches)
    sets = np.searchsorted([30, 70], table, side="right")
    assert (sets[:, 0] == sets[:, 1]).all()
    assert np.bincount(sets[:, 0]).tolist() == [50, 100, 6]
    assert [len(batch) for batch in batches] == [32, 32, 32, 32, 28]


def test_sampled_pairs_are_fixed_and_shuffled_each_epoch() -> None:
    first, second = (
        np.concatenate(sampled([50], ["a"], epoch=epoch, count=200)) for epoch in (0, 1)
    )
    assert not np.array_equal(first, second)
    assert sorted(first.tolist()) == sorted(second.tolist())
    other = np.concatenate(sampled([50], ["a"], seed=1, count=200))
    assert unordered(first) != unordered(other)


def test_sampled_pairs_of_a_set_do_not_depend_on_its_company() -> None:
    alone = np.concatenate(sampled([50], ["b"], count=200))
    joint = np.concatenate(sampled([30, 50], ["a", "b"], count=200))
    assert sorted((alone + 30).tolist()) == sorted(joint[joint[:, 0] >= 30].tolist())
    assert unordered(alone) != unordered(np.concatenate(sampled([50], ["a"], count=200)))


@few
@given(st.lists(st.integers(0, 3), min_size=2, max_size=12))
def test_in_batch_pairs_are_all_of_one_set(source: list[int]) -> None:
    pairs = InBatchPairs().positions(torch.tensor(source))
    expected = [(i, j) for i, j in combinations(range(len(source)), 2) if source[i] == source[j]]
    assert sorted(map(tuple, pairs.tolist())) == expected


@few
@given(st.integers(2, 50), st.integers(0, 120), st.integers(2, 40))
def test_in_batch_images_come_in_whole_rounds(images: int, least: int, batch_size: int) -> None:
    batches = InBatchPairs(min_images=least).draw([images], ["a"], 0, batch_size)(
        np.random.default_rng(0)
    )
    times = np.bincount(np.concatenate(batches).ravel(), minlength=images)
    assert times.sum() == max(images, least)
    assert times.max() - times.min() <= 1
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}


@few
@given(st.lists(st.integers(2, 60), min_size=2, max_size=5), st.integers(0, 80), st.integers(4, 16))
def test_a_small_set_of_a_union_gets_its_share_of_pairs(
    sizes: list[int], least: int, batch_size: int
) -> None:
    names = [chr(97 + i) for i in range(len(sizes))]
    batches = InBatchPairs(min_images=least).draw(sizes, names, 0, batch_size)(
        np.random.default_rng(0)
    )
    source = np.repeat(np.arange(len(sizes)), sizes)
    seen, paired = np.zeros(len(sizes)), np.zeros(len(sizes))
    for batch in batches:
        assert len(batch) <= batch_size
        held = np.bincount(source[batch.ravel()], minlength=len(sizes))
        seen, paired = seen + held, paired + held * (held - 1) // 2
    assert seen.tolist() == [max(size, least) for size in sizes]
    length = batch_size // 2
    runs = [divmod(int(count), length) for count in seen]
    assert (
        paired
        >= [whole * length * (length - 1) // 2 + rest * (rest - 1) // 2 for whole, rest in runs]
    ).all()


def collate(
    index: list[int], source: list[int], mos: list[float], pairs: InBatchPairs
) -> dict[str, torch.Tensor]:
    items = [
        {"index": i, "dataset_index": s, "mos": torch.tensor(m), "mos_std": torch.tensor(1.0)}
        for i, s, m in zip(index, source, mos, strict=True)
    ]
    return PairCollate(pairs)(items)


def test_collate_gives_each_pair_its_target() -> None:
    batch = collate([4, 7, 2, 9], [0, 1, 0, 1], [3.0, 20.0, 4.0, 10.0], InBatchPairs())
    found = {
        tuple(pair): value
        for pair, value in zip(batch["pairs"].tolist(), batch["target"].tolist(), strict=True)
    }
    assert found == {(0, 2): 0.0, (1, 3): 1.0}


def test_an_image_that_comes_twice_in_a_batch_is_not_paired_with_itself() -> None:
    batch = collate([4, 7, 4], [0, 0, 0], [3.0, 5.0, 3.0], InBatchPairs(min_images=30))
    assert batch["pairs"].tolist() == [[0, 1], [1, 2]]
