"""Random numbers of an epoch are a function of (seed, epoch, rank)."""

import random

import numpy as np
import pytest
import torch

from iqa_lightning.continual.checkpoints import seed_epoch


def drawn(seed: int, epoch: int, rank: int = 0) -> tuple[float, float, float]:
    seed_epoch(seed, epoch, rank)
    return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002  # the global state is meant


def test_nothing_that_came_before_matters() -> None:
    first = drawn(0, 3)
    for epoch in range(3):
        drawn(0, epoch)
    random.random()
    assert drawn(0, 3) == first


@pytest.mark.parametrize("other", [(1, 3, 0), (0, 4, 0), (0, 3, 1), (3, 0, 0)])
def test_another_seed_epoch_or_rank_draws_others(other: tuple[int, int, int]) -> None:
    assert not set(drawn(*other)) & set(drawn(0, 3, 0))


def test_the_three_generators_do_not_share_a_seed() -> None:
    seed_epoch(0, 0)
    states = [random.getstate()[1][0], np.random.get_state()[1][0], torch.initial_seed()]  # noqa: NPY002
    assert len(set(map(int, states))) == 3
