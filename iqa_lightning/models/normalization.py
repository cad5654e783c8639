"""Task-specific normalisation: every norm layer of a network in several sets, of which one is in
use.

Source: TSN-IQA, https://arxiv.org/abs/2107.13429 (batch normalisation). LayerNorm and GroupNorm are
treated the same way here, which the paper does not do.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


PIXELS_AT_ONCE = {"cpu": 2**18}
"""Pixels, of all branches together, that one pass pays for on a processor; measured:
`benchmarks/branches.py`.
"""


PIXELS_ELSEWHERE = 2**24
"""On accelerators, where memory is the limit: about 8 GB of maps of ResNet-18. Not measured."""


Folded = tuple[Tensor, Tensor, bool]


class TaskNorm(nn.Module):
    """Copies of one norm layer: set 0 is kept as it was given, set t belongs to task t."""

    def __init__(self, norm: nn.Module, num_sets: int) -> None:
        super().__init__()
        self.sets = nn.ModuleList(copy.deepcopy(norm) for _ in range(num_sets))
        self.active = 0
        self.folded: Folded | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise with the set in use, or each branch with its own."""
        if self.folded is None:
            return self.sets[self.active](x)  # type: ignore[no-any-return]  # ModuleList is untyped
        return self.branched(x, *self.folded)

    def branched(self, x: Tensor, scale: Tensor, shift: Tensor, splits: bool) -> Tensor:
        """The branches one behind the other; where they begin (`splits`), all of them get the same
        input.
        """
        layer = self.sets[0]
        whole = torch.addcmul(
            shift, x[None] if splits else torch.unflatten(x, 0, (len(scale), -1)), scale
        )
        whole = whole.flatten(0, 1)
        return layer.act(whole) if hasattr(layer, "act") else whole  # type: ignore[operator]  # of timm

    def fold(self, indices: Sequence[int], splits: bool) -> None:
        """Take one scale and shift a branch and channel for the stored statistics of these sets."""
        scales, shifts = [], []
        for index in indices:
            layer = self.sets[index]
            assert isinstance(layer, _BatchNorm)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            scales.append(layer.weight / (layer.running_var + layer.eps).sqrt())
            shifts.append(layer.bias - scales[-1] * layer.running_mean)
        self.folded = (
            torch.stack(scales)[:, None, :, None, None],
            torch.stack(shifts)[:, None, :, None, None],
            splits,
        )


class NormSets:
    """All task norms of one network, switched together. Holds no state: the norms live in the
    network.

    Raises:
        ValueError: the network has no norm layer.
    """

    def __init__(self, network: nn.Module, num_sets: int) -> None:
        found = [
            (name, module) for name, module in network.named_modules() if isinstance(module, NORMS)
        ]
        if not found:
            raise ValueError(
                f"{type(network).__name__} has no normalisation layer: TSN-IQA needs a backbone "
                "with norms"
            )
        kinds = all(
            isinstance(module, nn.BatchNorm2d) and module.track_running_stats for _, module in found
        )
        self.can_branch = kinds and begins_with(network, found[0][1])
        self.norms = []
        for name, module in found:
            parent, _, child = name.rpartition(".")
            self.norms.append(TaskNorm(module, num_sets))
            setattr(network.get_submodule(parent), child, self.norms[-1])

    def use(self, index: int) -> None:
        """Make set `index` the one that forward passes go through."""
        for norm in self.norms:
            norm.active = index

    @contextmanager
    def branches(self, indices: Sequence[int]) -> Iterator[None]:
        """Within it a pass of B images goes through all these sets: (sets * B) features, set by
        set; no gradients.

        All that lies before the first norm runs once, each convolution behind it once on the whole
        batch. The stored statistics are used in any mode, folded into a scale and a shift.

        Raises:
            ValueError: norms that are not batch normalisation, or a network that does not begin
                with its first norm.
        """
        if not self.can_branch:
            raise ValueError(
                "only networks that begin with a batch normalisation run their norm sets at once"
            )
        with torch.no_grad():
            for position, norm in enumerate(self.norms):
                norm.fold(indices, position == 0)
            try:
                yield
            finally:
                for norm in self.norms:
                    norm.folded = None

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


def chunks(sets: Sequence[int], image: Tensor, can_branch: bool) -> list[Sequence[int]]:
    """The norm sets that go through a pass together, by the budget of pixels; less than three at
    once gain nothing.
    """
    count = PIXELS_AT_ONCE.get(image.device.type, PIXELS_ELSEWHERE) // (
        len(image) * image.shape[2] * image.shape[3]
    )
    count = min(count, len(sets))
    step = count if can_branch and (count >= 3 or count == len(sets)) else 1
    return [sets[start : start + step] for start in range(0, len(sets), max(step, 1))]


def begins_with(network: nn.Module, norm: nn.Module) -> bool:
    """Whether all that a network computes goes through `norm` first, as far as its structure tells.

    True where the way to the norm leads through the network itself and chains of modules only: in a
    block with a shortcut, part of the images would pass the norm by.
    """
    holder = next(child for child in network.children() if norm in child.modules())
    while holder is not norm:
        if not isinstance(holder, nn.Sequential):
            return False
        holder = next(child for child in holder.children() if norm in child.modules())
    return True


def batch_norms(network: nn.Module) -> Iterator[_BatchNorm]:
    """Every layer of a network that keeps running statistics."""
    return (module for module in network.modules() if isinstance(module, _BatchNorm))
