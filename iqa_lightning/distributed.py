"""Values of several processes (ranks): summed, gathered. Without a process group each is what it
was.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, in place, the same on each."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
    return value


def from_all_ranks(value: Value) -> list[Value]:
    """The value of each rank, in their order, on every rank; ranks may hold values of different
    sizes.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def world_size() -> int:
    """Number of ranks."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1


def from_all(value: Tensor) -> Tensor:
    """Rows of all ranks in their order; each rank has as many."""
    if world_size() == 1:
        return value
    values = [torch.empty_like(value) for _ in range(world_size())]
    torch.distributed.all_gather(values, value.contiguous())
    return torch.cat(values)
