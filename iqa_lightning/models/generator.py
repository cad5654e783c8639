"""A generator of features and a critic of them, both told which distortion is meant.

Layers and constants of the nearest public relative, Generative Feature Replay (Liu et al., CVPR
workshops 2020, https://arxiv.org/abs/2004.09199; code https://github.com/xialeiliu/GFR-IL): three
linear layers each, LeakyReLU 0.2, weights N(0, 0.02). The generator reads noise and a one-hot
condition, the critic adds a projection <V condition, h> (https://arxiv.org/abs/1802.05637). Here
their hidden width is that of the feature unless it is given.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2


START = 0.02


class Generator(nn.Module):
    """Features of a slot from noise: [z ; one-hot] -> hidden -> hidden -> width."""

    def __init__(
        self, width: int, num_slots: int, noise: int = 200, hidden: int | None = None
    ) -> None:
        super().__init__()
        hidden = hidden or width
        self.noise, self.num_slots = noise, num_slots
        self.layers = nn.Sequential(
            nn.Linear(noise + num_slots, hidden),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, width),
        ).apply(start)

    def forward(
        self, z: Float[Tensor, "batch noise"], slot: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch width"]:
        """One feature for each row of noise and its slot (from 0)."""
        condition = F.one_hot(slot, self.num_slots).to(z)
        return self.layers(torch.cat([z, condition], dim=1))  # type: ignore[no-any-return]  # Sequential is untyped

    def row(self) -> int:
        """Parameters that one more slot takes: its column of the first layer."""
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        return first.out_features


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
        self.projection = nn.Linear(num_slots, hidden, bias=False).apply(start)

    def forward(
        self, feature: Float[Tensor, "batch width"], slot: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        h = self.layers(feature)
        condition = F.one_hot(slot, self.projection.in_features).to(h)
        return self.score(h)[:, 0] + (h * self.projection(condition)).sum(dim=1)  # type: ignore[no-any-return]  # modules are untyped

    def row(self) -> int:
        """Parameters that one more slot takes: its row of V."""
        return self.projection.out_features


def start(module: nn.Module) -> None:
    """Weights from N(0, 0.02), biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=START)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
