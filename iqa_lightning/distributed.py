"""Values of several processes (ranks): summed, averaged, gathered. Without a process group each is
what it was.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


def in_group() -> bool:
    """Whether there is a process group."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """Number of this process, from 0."""
    return torch.distributed.get_rank() if in_group() else 0


def world_size() -> int:
    """Number of ranks."""
    return torch.distributed.get_world_size() if in_group() else 1


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, in place, the same on each."""
    if in_group():
        torch.distributed.all_reduce(value)
    return value


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, the same on each."""
    return sum_over_ranks(value.clone()) / world_size()


def from_all_ranks(value: Value) -> list[Value]:
    """The value of each rank, in their order, on every rank; ranks may hold values of different
    sizes.
    """
    if not in_group():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def from_all(value: Tensor) -> Tensor:
    """Rows of all ranks in their order; each rank has as many."""
    if world_size() == 1:
        return value
    values = [torch.empty_like(value) for _ in range(world_size())]
    torch.distributed.all_gather(values, value.contiguous())
    return torch.cat(values)
