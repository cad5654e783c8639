"""ARNIQA: patches with the same degradation attract.

Agnolucci et al., https://arxiv.org/abs/2310.14918, after its official code.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from iqa_lightning.losses.contrastive import nt_xent
from iqa_lightning.pretraining.contrastive import Contrastive
from iqa_lightning.pretraining.patches import degrade_each, patch, random_corner


class ARNIQA(Contrastive):
    """Patches of different photographs with the same degradation attract, all others repel
    (NT-Xent).

    Photographs 2i and 2i + 1 of a batch share a chain, 5 % of the pairs stay pristine; both scales
    are in one batch.
    """

    def __init__(self, pristine: float = 0.05, **options: Any) -> None:
        super().__init__(**options)
        self.pristine = pristine

    def loss(self, images: Sequence[Tensor], index: Int[Tensor, " images"]) -> Float[Tensor, ""]:
        """Over pairs of photographs; of an odd number the last is left out."""
        count = len(images) // 2 * 2
        draws = self.draws(index[:count])
        chains = [
            () if draw.random() < self.pristine else self.chains.draw(draw) for draw in draws[::2]
        ]
        doubled = [chain for chain in chains for _ in range(2)]
        damaged = degrade_each(
            images[:count], doubled, [int(draw.integers(2**63)) for draw in draws]
        )
        corners = [
            random_corner(image, self.patch, draw)
            for image, draw in zip(damaged, draws, strict=True)
        ]
        patches = torch.stack(
            [patch(im, corner, self.patch) for im, corner in zip(damaged, corners, strict=True)]
        )
        embeddings = [self.encoder(shown) for shown in self.scales(patches)]
        first, second = (torch.cat([e[k::2] for e in embeddings]) for k in range(2))
        return nt_xent(first, second, self.temperature)
