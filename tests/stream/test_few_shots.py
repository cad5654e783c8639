"""Few shots: as many images as asked for, the same ones in every epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_lightning.stream.few_shots import FewShots


def positions(pairs: FewShots, sizes: list[int], epoch: int, batch_size: int = 8) -> list[int]:
    names = [f"set{i}" for i in range(len(sizes))]
    batches = pairs.draw(sizes, names, 0, batch_size)(np.random.default_rng(epoch))
    return [int(i) for batch in batches for i in batch.flatten()]


@given(st.integers(2, 40), st.lists(st.integers(2, 90), min_size=1, max_size=3), st.integers(0, 9))
def test_shots_are_distinct_and_stay(shots: int, sizes: list[int], seed: int) -> None:
    pairs = FewShots(shots, seed)
    drawn = positions(pairs, sizes, 1)
    assert len(set(drawn)) == len(drawn) == sum(min(shots, size) for size in sizes)
    assert max(drawn) < sum(sizes)
    assert set(positions(pairs, sizes, 2)) == set(drawn)
    ends = np.cumsum(sizes)
    found = np.bincount(np.searchsorted(ends, drawn, side="right"), minlength=len(sizes))
    assert found.tolist() == [min(shots, size) for size in sizes]


def test_seeds_draw_other_images_and_order_changes_by_epoch() -> None:
    assert set(positions(FewShots(10, 0), [500], 1)) != set(positions(FewShots(10, 1), [500], 1))
    assert positions(FewShots(10, 0), [500], 1) != positions(FewShots(10, 0), [500], 2)
    assert len(positions(FewShots(10, 0, min_images=35), [500], 1)) == 35


def test_one_full_batch_an_epoch_in_the_setting_of_the_paper() -> None:
    batches = FewShots(50).draw([818], ["clive"], 0, 192)(np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [50]


def test_too_few() -> None:
    with pytest.raises(ValueError, match=r"pairs\.shots=1"):
        FewShots(1)
