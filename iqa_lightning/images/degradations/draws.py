"""Random numbers of a batch, drawn image by image, so that no image depends on its neighbours."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch 3 height width"]
"""RGB in [0, 1]."""


Strengths = Float[Tensor, " batch"]
"""How strong the degradation of each image is, in the unit of the kind."""


Source = torch.Generator | np.random.SFC64
"""Where the numbers of an image come from."""


_even = torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16)


QUANTILES: Tensor = (_even / _even.std(correction=0)).float()
"""The standard normal distribution as that many equally likely numbers, of which the largest is
4.3.
"""


def source(seed: int, device: torch.device) -> Source:
    """PyTorch's generator of a device, but on CPUs the bits of NumPy's fastest, in a third of the
    time.
    """
    return (
        np.random.SFC64(seed) if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
    )


class Draws:
    """Numbers for a batch on a device, each image's from its own source."""

    def __init__(self, sources: Sequence[Source], device: torch.device) -> None:
        self.sources, self.device = sources, device

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (batch, *shape)."""
        return torch.stack([self._normal(source, shape) for source in self.sources])

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), (batch, *shape)."""
        return torch.stack([self._uniform(source, shape) for source in self.sources])

    def _normal(self, source: Source, shape: tuple[int, ...]) -> Tensor:
        if isinstance(source, torch.Generator):
            return torch.randn(shape, generator=source, device=self.device)
        count = math.prod(shape)
        bits = source.random_raw(-(-count // 4)).view(np.uint16)[:count]
        return QUANTILES.index_select(0, torch.from_numpy(bits.astype(np.int32))).view(shape)

    def _uniform(self, source: Source, shape: tuple[int, ...]) -> Tensor:
        if isinstance(source, torch.Generator):
            return torch.rand(shape, generator=source, device=self.device)
        count = math.prod(shape)
        bits = torch.from_numpy(source.random_raw(-(-count // 2)).view(np.int32)[:count])
        return bits.bitwise_right_shift_(8).float().mul_(2**-24).add_(0.5).view(shape)


def wide(strength: Strengths) -> Float[Tensor, "batch 1 1 1"]:
    """Strengths in the shape that multiplies images."""
    return strength.view(-1, 1, 1, 1)
