"""ARNIQA: patches with the same degradation attract.

Agnolucci et al., https://arxiv.org/abs/2310.14918, after its official code.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from iqa_lightning.images.degradations.chain import Chain
from iqa_lightning.losses.contrastive import nt_xent
from iqa_lightning.pretraining.contrastive import Contrastive, Patches
from iqa_lightning.pretraining.patches import degrade_each, halved, patch, random_corner


class ARNIQA(Contrastive):
    """Patches of different photographs with the same degradation attract, all others repel
    (NT-Xent).

    Photographs 2i and 2i + 1 of a batch share a chain; both scales are in one loss.

    Args:
        pristine: share of the pairs that stay pristine.
        crop_first: whether patches are cut out and then degraded, each scale for itself, as the
            official code does; else whole images are degraded, and patches cut out of them.
        options: see `Contrastive`.

    Raises:
        ValueError: a half scale of the same patch, with patches that are cut out first.
    """

    def __init__(self, pristine: float = 0.05, crop_first: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.pristine, self.crop_first = pristine, crop_first
        if self.half_scale and crop_first != (self.half_shows == "crop"):
            raise ValueError(
                f"method.crop_first={crop_first} goes with half={'crop' if crop_first else 'patch'}"
            )

    def loss(self, images: Sequence[Tensor], index: Int[Tensor, " images"]) -> Float[Tensor, ""]:
        """Over pairs of photographs; of an odd number the last is left out."""
        count = len(images) // 2 * 2
        draws = self.draws(index[:count])
        chains = [
            () if draw.random() < self.pristine else self.chains.draw(draw) for draw in draws[::2]
        ]
        doubled = [chain for chain in chains for _ in range(2)]
        whole = list(images[:count])
        if self.crop_first:
            scales = [whole, *([[halved(i, self.patch) for i in whole]] if self.half_scale else [])]
            shown = [self.degraded_crops(scale, doubled, draws) for scale in scales]
        else:
            damaged = degrade_each(whole, doubled, [int(draw.integers(2**63)) for draw in draws])
            shown = self.scales(self.cut(damaged, draws))
        if self.joint_scales:
            embeddings = self.encoder(torch.cat(shown)).chunk(len(shown))
        else:
            embeddings = [self.encoder(patches) for patches in shown]
        first, second = (torch.cat([e[k::2] for e in embeddings]) for k in range(2))
        return nt_xent(first, second, self.temperature)

    def degraded_crops(
        self, images: list[Tensor], chains: list[Chain], draws: list[np.random.Generator]
    ) -> Patches:
        """A random patch of each image, after its chain."""
        crops = list(self.cut(images, draws))
        return torch.stack(
            degrade_each(crops, chains, [int(draw.integers(2**63)) for draw in draws])
        )

    def cut(self, images: Sequence[Tensor], draws: Sequence[np.random.Generator]) -> Patches:
        """A random patch of each image."""
        corners = [
            random_corner(image, self.patch, draw)
            for image, draw in zip(images, draws, strict=True)
        ]
        return torch.stack(
            [patch(im, corner, self.patch) for im, corner in zip(images, corners, strict=True)]
        )
