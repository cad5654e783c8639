"""Low-rank updates of frozen layers, one set a task, of which one is in use.

Source: Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022,
https://arxiv.org/abs/2106.09685. A convolution of one pixel is a linear layer on channels, so it is
updated the same way.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class TaskLowRank(nn.Module):
    """A frozen layer and a low-rank update of its weight for each task: W + B A alpha / rank.

    The update is added to the weight before the layer runs, so a pass costs what the layer's own
    does. A starts as PyTorch starts a linear layer, B at zero: a new task starts as the layer.

    Args:
        layer: a linear layer, or a convolution of one pixel without groups.
        tasks: how many updates there are.
        rank: of each.
        alpha: scale of an update, divided by the rank.
    """

    def __init__(self, layer: nn.Module, tasks: int, rank: int, alpha: float) -> None:
        super().__init__()
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        self.layer, self.scale, self.active = layer, alpha / rank, 0
        rows, columns = layer.weight.shape[:2]
        start = nn.init.kaiming_uniform_(torch.empty(rank, columns), a=5**0.5)
        # one draw for all tasks, so that it does not depend on how many there are
        self.down = nn.ParameterList(start.clone() for _ in range(tasks))
        self.up = nn.ParameterList(torch.zeros(rows, rank) for _ in range(tasks))

    @property
    def weight(self) -> Float[Tensor, "out in *kernel"]:
        """The layer's weight with the update in use; set 0 has none."""
        own: Tensor = self.layer.weight
        if self.active == 0:
            return own
        update: Tensor = self.up[self.active - 1] @ self.down[self.active - 1]
        return own + self.scale * update.view_as(own)

    @property
    def bias(self) -> Tensor | None:
        """That of the layer."""
        return self.layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """The layer with the update in use."""
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias, self.layer.stride, self.layer.padding)


class LowRankSets:
    """All low-rank updates of one network, switched together, as `NormSets` switches norms: set 0
    is the network as it starts, set t belongs to task t. Holds no state itself.

    Args:
        network: whose layers are replaced in place.
        num_sets: one more than there are tasks.
        rank: of an update.
        alpha: scale of an update, divided by the rank.

    Raises:
        ValueError: The rank is below 1, or the network has no layer to update.
    """

    can_branch = False
    """Weights differ from set to set, so a pass takes one."""

    def __init__(
        self, network: nn.Module, num_sets: int, rank: int = 4, alpha: float = 4.0
    ) -> None:
        if rank < 1:
            raise ValueError(f"method.rank={rank}: give 1 or more")
        found = list(updatable(network))
        if not found:
            raise ValueError(
                f"{type(network).__name__} has no linear layer and no convolution of one pixel, "
                "which low-rank updates are of: choose another backbone"
            )
        self.updates = []
        for name in found:
            parent, _, child = name.rpartition(".")
            update = TaskLowRank(network.get_submodule(name), num_sets - 1, rank, alpha)
            self.updates.append(update)
            setattr(network.get_submodule(parent), child, update)

    def use(self, index: int) -> None:
        """Make set `index` the one that forward passes go through."""
        for update in self.updates:
            update.active = index

    def branches(self, indices: Sequence[int]) -> AbstractContextManager[None]:
        """Never: see `can_branch`.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"low-rank updates {list(indices)} run one after another")

    def parameters(self, index: int) -> list[nn.Parameter]:
        """Both factors of each update of set `index`."""
        return [
            factors[index - 1] for update in self.updates for factors in (update.down, update.up)
        ]

    @torch.no_grad()
    def copy(self, source: int, target: int) -> None:
        """Start set `target` from set `source`; from set 0: without an update."""
        if source == 0:
            for update in self.updates:
                update.up[target - 1].zero_()
            return
        for new, start in zip(self.parameters(target), self.parameters(source), strict=True):
            new.copy_(start)


def updatable(network: nn.Module) -> Iterator[str]:
    """Names of the layers that a low-rank update fits: linear ones, and convolutions of one pixel.

    Those of `nn.MultiheadAttention` are left out: it reads their weights itself.
    """
    attention = [
        f"{name}."
        for name, part in network.named_modules()
        if isinstance(part, nn.MultiheadAttention)
    ]
    for name, layer in network.named_modules():
        if name.startswith(tuple(attention)):
            continue
        pixel = isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1
        if pixel or isinstance(layer, nn.Linear):
            yield name
