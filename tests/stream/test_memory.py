"""Replay memory: never over its budget, balanced, reproducible, trimmed but never refilled."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_lightning.stream.training_images import ReplayMemory
from tests.walks import ROOT

sizes = st.lists(st.integers(2, 400), min_size=1, max_size=8)
capacities = st.integers(2, 500)
few = settings(deadline=None, max_examples=100)


def by_name(sizes: list[int]) -> dict[str, int]:
    return {f"task{k}": size for k, size in enumerate(sizes)}


def test_filling_by_hand() -> None:
    memory = ReplayMemory(100)
    assert memory.counts([30]) == [30]  # fits
    assert memory.counts([30, 40]) == [30, 40]  # fits beside it
    assert memory.counts([30, 40, 50]) == [
        30,
        33,
        33,
    ]  # does not: at most 100 // 3, and 3 + 1 places stay empty
    assert memory.counts([30, 40, 50, 4]) == [30, 33, 33, 4]  # exactly what was free
    assert memory.counts([30, 40, 50, 5]) == [25, 25, 25, 5]
    assert memory.counts([30, 40, 50, 5, 20]) == [25, 25, 25, 5, 20]  # again all of what is free


def test_the_published_shares() -> None:
    """Large tasks of equal size, and the real sizes of the six data sets (specs/protocol.md)."""
    memory = ReplayMemory()
    assert [max(memory.counts([5000] * t)) for t in range(1, 7)] == [1000, 500, 333, 250, 200, 166]
    assert memory.counts([538, 607, 410, 813, 7051, 7125]) == [166] * 6
    assert memory.counts([538, 607]) == [500, 500]
    assert [memory.share(earlier) * 32 for earlier in (1, 2, 3, 4, 9)] == [32, 16, 8, 8, 8]


def test_golden_values() -> None:
    file = ROOT.parent / "shared" / "specs" / "golden.json"
    if not file.is_file():
        pytest.skip("the golden values (../shared/specs) are not on this machine")
    golden = json.loads(Path(file).read_text())["replay"]
    memory = ReplayMemory(golden["capacity"])
    assert [len(memory.rows(by_name([9000] * t))[-1]) for t in range(1, 7)] == golden["per_task"]
    assert [memory.share(t) * 32 for t in (1, 2, 3)] == [
        golden["pairs_per_step"][key] for key in ("1", "2", "3+")
    ]


@few
@given(capacities, sizes, st.integers(0, 5))
def test_never_over_budget_and_balanced(capacity: int, sizes: list[int], seed: int) -> None:
    rows = ReplayMemory(capacity, seed).rows(by_name(sizes))
    assert sum(map(len, rows)) <= capacity
    assert len(rows) == len(sizes)
    for kept, size in zip(rows, sizes, strict=True):
        assert len(np.unique(kept)) == len(kept)
        assert set(kept.tolist()) <= set(range(size))
        assert len(kept) >= min(size, capacity // len(sizes))


@few
@given(capacities, sizes, st.integers(0, 5))
def test_a_later_task_only_trims(capacity: int, sizes: list[int], seed: int) -> None:
    memory = ReplayMemory(capacity, seed)
    for t in range(1, len(sizes)):
        before, after = memory.rows(by_name(sizes[:t])), memory.rows(by_name(sizes[: t + 1]))
        assert all(
            set(new.tolist()) <= set(old.tolist()) for old, new in zip(before, after, strict=False)
        )


@few
@given(capacities, sizes, st.integers(0, 5))
def test_the_same_on_every_rank_and_after_a_restart(
    capacity: int, sizes: list[int], seed: int
) -> None:
    np.random.default_rng(1).random()
    first, second = (ReplayMemory(capacity, seed).rows(by_name(sizes)) for _ in range(2))
    assert all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))


def test_samples_are_random() -> None:
    rows = [ReplayMemory(50, seed).rows(by_name([400, 400])) for seed in range(2)]
    assert not np.array_equal(rows[0][0], rows[1][0])
    assert not np.array_equal(rows[0][0], rows[0][1])
    drawn = np.concatenate([ReplayMemory(50, seed).rows({"a": 400})[0] for seed in range(400)])
    counts = np.bincount(drawn, minlength=400)  # 20000 draws: 50 each on average, binomial
    assert abs(counts.mean() - 50) < 1e-9
    assert counts.max() < 50 + 5 * np.sqrt(50)
    assert counts.min() > 50 - 5 * np.sqrt(50)


def test_a_task_keeps_the_same_wherever_it_stands() -> None:
    one = ReplayMemory(50).rows({"a": 400, "b": 300})
    other = ReplayMemory(50).rows({"b": 300, "a": 400})
    assert np.array_equal(one[0], other[1])
    assert np.array_equal(one[1], other[0])


@pytest.mark.parametrize(
    "wrong", [{"capacity": 1}, {"shares": []}, {"shares": [1.0, 0.0]}], ids=str
)
def test_a_useless_memory_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ReplayMemory(**wrong)
