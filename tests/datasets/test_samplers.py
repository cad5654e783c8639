"""Samplers: repeatable, fair to the ranks, nothing lost, nothing twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_lightning.datasets.samplers import EpochSampler, Key, SizeSampler
from iqa_lightning.stream.pairs import InBatchPairs, SampledPairs

few = settings(deadline=None, max_examples=40)
Unit = tuple[Key, ...]


def pair_sampler(rank: int = 0, ranks: int = 1, seed: int = 0, batch: int = 24) -> EpochSampler:
    return EpochSampler(SampledPairs(100).draw([30], ["a"], 0, batch), seed, rank, ranks)


def units(batch: list[Key], images: int = 2) -> list[Unit]:
    """Keys of a batch by unit: first images stand before second images."""
    count = len(batch) // images
    return list(zip(*(batch[k * count : (k + 1) * count] for k in range(images)), strict=True))


def test_a_second_iteration_gives_the_same_batches() -> None:
    sampler = pair_sampler()
    assert list(sampler) == list(sampler)
    assert len(sampler) == len(list(sampler)) == 9
    assert list(sampler) == list(pair_sampler())


def test_another_seed_gives_others() -> None:
    assert list(pair_sampler(seed=1)) != list(pair_sampler())


@few
@given(st.integers(1, 4), st.integers(2, 40), st.booleans(), st.integers(0, 99))
def test_ranks_share_out_each_batch(ranks: int, batch: int, single: bool, epoch: int) -> None:
    pairs = InBatchPairs() if single else SampledPairs(60)
    draw = pairs.draw([30], ["a"], 0, batch)
    drawn = [one[: len(one) // ranks * ranks] for one in draw(np.random.default_rng(epoch))]
    expected = [one for one in drawn if one.size >= 2 * ranks]
    shares = [list(EpochSampler(draw, epoch, rank, ranks)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {len(EpochSampler(draw, epoch, 0, ranks))}
    for batch_of_all, *parts in zip(expected, *shares, strict=True):
        assert len({len(part) for part in parts}) == 1
        found = [
            tuple(key[0] for key in unit)
            for part in parts
            for unit in units(part, batch_of_all.shape[1])
        ]
        assert sorted(found) == sorted(map(tuple, batch_of_all.tolist()))


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_see_the_same_pairs_in_the_same_crops_as_one_process(ranks: int) -> None:
    shares = [list(pair_sampler(rank, ranks)) for rank in range(ranks)]
    for alone, *parts in zip(pair_sampler(), *shares, strict=True):
        assert sorted(units(alone)) == sorted(unit for part in parts for unit in units(part))


def test_the_images_of_a_pair_are_cropped_independently() -> None:
    views = np.array(
        [[key[1:] for key in unit] for batch in pair_sampler() for unit in units(batch)]
    )
    assert views.shape == (100, 2, 3)
    assert ((views >= 0) & (views < 1)).all()
    assert len(np.unique(views)) == views.size
    assert abs(np.corrcoef(views.reshape(100, 6).T) - np.eye(6)).max() < 0.4


@pytest.mark.parametrize(
    ("shape", "ranks", "left"),
    [
        ((1, 1), 1, 0),  # one image makes no pair
        ((2, 1), 1, 2),
        ((3, 1), 2, 0),  # a rank would get one image
        ((4, 1), 2, 2),
        ((5, 1), 2, 2),
        ((1, 2), 1, 2),
        ((1, 2), 2, 0),  # a rank would get no pair
        ((3, 2), 2, 2),
    ],
)
def test_what_leaves_a_rank_without_a_pair_is_left_out(
    shape: tuple[int, int], ranks: int, left: int
) -> None:
    first = np.arange(8)[:, None]
    last = 10 + np.arange(shape[0] * shape[1]).reshape(shape)
    for rank in range(ranks):
        sampler = EpochSampler(lambda _: [first, last], 0, rank, ranks)
        batches = list(sampler)
        assert [len(batch) for batch in batches] == [8 // ranks, *([left] if left else [])]
        assert len(sampler) == len(batches)


sizes_of_images = st.lists(
    st.sampled_from([(8, 8), (8, 16), (16, 8), (40, 30)]), min_size=1, max_size=80
)


@few
@given(sizes_of_images, st.integers(1, 5000), st.integers(1, 4), st.integers(1, 9))
def test_evaluation_batches_hold_each_image_once(
    sizes: list[tuple[int, int]], max_pixels: int, ranks: int, max_images: int
) -> None:
    samplers = [
        SizeSampler(np.array(sizes), max_pixels, rank, ranks, max_images) for rank in range(ranks)
    ]
    batches = [batch for sampler in samplers for batch in sampler]
    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    assert sum(len(sampler) for sampler in samplers) == len(batches)
    for batch in batches:
        (height, width), *others = {sizes[i] for i in batch}
        assert not others
        assert len(batch) == 1 or len(batch) * height * width <= max_pixels
        assert len(batch) <= max_images


def test_photographs_run_in_batches_and_forty_megapixels_alone() -> None:
    sizes = np.array([(768, 1024)] * 19 + [(5477, 7303)] * 2)
    assert sorted(map(len, SizeSampler(sizes).batches)) == [1, 1, 3, 8, 8]
    assert {len(batch) for batch in SizeSampler(sizes, max_pixels=1)} == {1}


def test_ranks_get_about_as_many_evaluation_batches() -> None:
    sizes = np.array([(8, 8)] * 50 + [(8, 16)] * 51)
    lengths = [len(SizeSampler(sizes, 640, rank, 3)) for rank in range(3)]
    assert max(lengths) - min(lengths) <= 1
