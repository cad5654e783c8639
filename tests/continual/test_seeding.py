"""Random numbers of an epoch are a function of (seed, task, phase, epoch of the phase, rank)."""

import random
from hashlib import sha256
from itertools import product

import numpy as np
import pytest
import torch

from iqa_lightning.continual.checkpoints import seed_epoch
from iqa_lightning.seeds import seed_of

Words = tuple[str, str, int]
FIRST: Words = ("a", "finetune", 3)


def drawn(seed: int, words: Words, rank: int = 0) -> tuple[float, float, float]:
    seed_epoch(seed, words, rank)
    return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002  # the global state is meant


def test_a_seed_by_hand() -> None:
    text = '[3, "batches", "live+csiq", "warmup", 2, "bid"]'
    expected = int(sha256(text.encode()).hexdigest()[:16], 16) // 2
    assert seed_of(3, "batches", "live+csiq", "warmup", 2, "bid") == expected


def test_no_two_purposes_share_a_seed() -> None:
    rest: tuple[tuple[int | str, ...], ...] = ((), (0,), ("0",))
    words = product((0, 1), ("x", "y"), ("a", "ab"), ("", "b"), (0, 1), rest)
    seeds = [seed_of(s, what, task, phase, k, *more) for s, what, task, phase, k, more in words]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_nothing_that_came_before_matters() -> None:
    first = drawn(0, FIRST)
    for epoch in range(3):
        drawn(0, ("a", "finetune", epoch))
    random.random()
    assert drawn(0, FIRST) == first


@pytest.mark.parametrize(
    "other",
    [
        (0, ("b", "finetune", 3), 0),
        (0, ("a", "warmup", 3), 0),
        (0, ("a", "finetune", 4), 0),
        (0, FIRST, 1),
        (3, FIRST, 0),
    ],
)
def test_another_seed_task_phase_epoch_or_rank_draws_others(other: tuple[int, Words, int]) -> None:
    assert not set(drawn(*other)) & set(drawn(0, FIRST, 0))


def test_the_three_generators_do_not_share_a_seed() -> None:
    seed_epoch(0, FIRST)
    states = [random.getstate()[1][0], np.random.get_state()[1][0], torch.initial_seed()]  # noqa: NPY002
    assert len(set(map(int, states))) == 3
