"""Task-specific normalisation: every norm layer of a network in several sets, of which one is in use.

Source: TSN-IQA, https://arxiv.org/abs/2107.13429 (batch normalisation). LayerNorm and GroupNorm are treated the same
way here, which the paper does not do.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


class TaskNorm(nn.Module):
    """Copies of one norm layer: set 0 is kept as it was given, set t belongs to task t."""

    def __init__(self, norm: nn.Module, num_sets: int) -> None:
        super().__init__()
        self.sets = nn.ModuleList(copy.deepcopy(norm) for _ in range(num_sets))
        self.active = 0

    def forward(self, x: Tensor) -> Tensor:
        """Normalise with the set in use."""
        return self.sets[self.active](x)  # type: ignore[no-any-return]  # ModuleList is untyped


class NormSets:
    """All task norms of one network, switched together. Holds no state: the norms live in the network.

    Raises:
        ValueError: the network has no norm layer.
    """

    def __init__(self, network: nn.Module, num_sets: int) -> None:
        found = [(name, module) for name, module in network.named_modules() if isinstance(module, NORMS)]
        if not found:
            raise ValueError(
                f"{type(network).__name__} has no normalisation layer: TSN-IQA needs a backbone with norms"
            )
        self.norms = []
        for name, module in found:
            parent, _, child = name.rpartition(".")
            self.norms.append(TaskNorm(module, num_sets))
            setattr(network.get_submodule(parent), child, self.norms[-1])

    def use(self, index: int) -> None:
        """Make set `index` the one that forward passes go through."""
        for norm in self.norms:
            norm.active = index

    def layers(self, index: int) -> Iterator[nn.Module]:
        """Norm layers of set `index`, in the order of the network."""
        return (norm.sets[index] for norm in self.norms)

    def parameters(self, index: int) -> list[nn.Parameter]:
        """Affine parameters of set `index`."""
        return [parameter for layer in self.layers(index) for parameter in layer.parameters()]

    @torch.no_grad()
    def copy(self, source: int, target: int) -> None:
        """Start set `target` from set `source`: affine parameters and running statistics."""
        for layer, start in zip(self.layers(target), self.layers(source), strict=True):
            layer.load_state_dict(start.state_dict())


def batch_norms(network: nn.Module) -> Iterator[_BatchNorm]:
    """Every layer of a network that keeps running statistics."""
    return (module for module in network.modules() if isinstance(module, _BatchNorm))
