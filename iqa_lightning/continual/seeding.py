"""Seeds: what is random in an epoch is a function of (seed, epoch, rank) and of nothing that came before."""

import random

import numpy as np
import torch


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> None:
    """Reseed Python, NumPy and PyTorch, so that a resumed epoch draws what the interrupted one drew."""
    state = np.random.SeedSequence((seed, epoch, rank)).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))  # noqa: NPY002  # third-party code draws from the global state
    torch.manual_seed(int(state[2]))
