"""Random numbers of a batch, drawn image by image, so that no image depends on its neighbours."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch 3 height width"]
"""RGB in [0, 1]."""

Strengths = Float[Tensor, " batch"]
"""How strong the degradation of each image is, in the unit of the kind."""


class Draws:
    """One generator an image, on the device of the images."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (batch, *shape)."""
        numbers = self._empty(shape)
        for row, generator in zip(numbers, self.generators, strict=True):
            row.normal_(generator=generator)
        return numbers

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), (batch, *shape)."""
        numbers = self._empty(shape)
        for row, generator in zip(numbers, self.generators, strict=True):
            row.uniform_(generator=generator)
        return numbers

    def _empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(len(self.generators), *shape, device=self.generators[0].device)


def wide(strength: Strengths) -> Float[Tensor, "batch 1 1 1"]:
    """Strengths in the shape that multiplies images."""
    return strength.view(-1, 1, 1, 1)
