"""A generator of features and a critic of them, both told which distortion is meant.

Layers and constants of the nearest public relative, Generative Feature Replay (Liu et al., CVPR
workshops 2020, https://arxiv.org/abs/2004.09199; code https://github.com/xialeiliu/GFR-IL): three
linear layers each, LeakyReLU 0.2, weights N(0, 0.02). The generator reads noise and a one-hot
condition, the critic adds a projection <V condition, h> (https://arxiv.org/abs/1802.05637). Here
their hidden width is that of the feature unless it is given, and the weights of the one-hot
condition are a row for each slot, to the bit the same however many slots there are.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iqa_lightning.seeds import seed_of

SLOPE = 0.2


START = 0.02


class SlotRows(nn.Module):
    """A row of weights for each slot: what a linear map without bias makes of a one-hot condition.

    Each row starts from random numbers of its own, so that more slots change none of them.
    """

    def __init__(self, num_slots: int, width: int) -> None:
        super().__init__()
        seed = int(torch.randint(2**62, ()))
        rows = [
            torch.randn(
                width, generator=torch.Generator().manual_seed(seed_of(seed, "slot", str(k)))
            )
            for k in range(num_slots)
        ]
        self.weight = nn.Parameter(START * torch.stack(rows))

    def forward(self, slot: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """The row of each slot (from 0)."""
        return self.weight[slot]


class Generator(nn.Module):
    """Features of a slot from noise: [z ; one-hot] -> hidden -> hidden -> width."""

    def __init__(
        self, width: int, num_slots: int, noise: int = 200, hidden: int | None = None
    ) -> None:
        super().__init__()
        hidden = hidden or width
        self.noise = noise
        self.layers = nn.Sequential(
            nn.Linear(noise, hidden),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, width),
        ).apply(start)
        self.condition = SlotRows(num_slots, hidden)

    def forward(
        self, z: Float[Tensor, "batch noise"], slot: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch width"]:
        """One feature for each row of noise and its slot (from 0)."""
        first, *rest = self.layers
        h = first(z) + self.condition(slot)
        for layer in rest:
            h = layer(h)
        return h  # type: ignore[no-any-return]  # modules are untyped

    def row(self) -> int:
        """Parameters that one more slot takes: its row of weights."""
        return self.condition.weight.shape[1]


class Critic(nn.Module):
    """Unbounded score of features, higher is more real: a linear one of h(feature) plus <V slot,
    h(feature)>.
    """

    def __init__(self, width: int, num_slots: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or width
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(SLOPE),
        ).apply(start)
        self.score = nn.Linear(hidden, 1).apply(start)
        self.projection = SlotRows(num_slots, hidden)

    def forward(
        self, feature: Float[Tensor, "batch width"], slot: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        h = self.layers(feature)
        return self.score(h)[:, 0] + (h * self.projection(slot)).sum(dim=1)  # type: ignore[no-any-return]  # modules are untyped

    def row(self) -> int:
        """Parameters that one more slot takes: its row of V."""
        return self.projection.weight.shape[1]


def start(module: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=START)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
