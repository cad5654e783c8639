"""Quality-aware contrastive pre-training of a backbone on photographs without ratings, and its
nearest relatives.

QPT: K. Zhao et al., "Quality-aware Pre-trained Models for Blind Image Quality Assessment", CVPR
2023, https://arxiv.org/abs/2303.00521. There is no public code, and its text was not at hand: what
goes beyond the abstract is our own design. Re-IQA (https://arxiv.org/abs/2304.00451) and ARNIQA
(https://arxiv.org/abs/2310.14918) follow their official codes.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from iqa_lightning.distributed import from_all, world_size
from iqa_lightning.images.degradations.chain import Chain
from iqa_lightning.losses.contrastive import NEGATIVES, quality_contrast
from iqa_lightning.pretraining.contrastive import Contrastive, Patches
from iqa_lightning.pretraining.patches import (
    degrade_each,
    halved,
    overlapping_corners,
    patch,
    random_corner,
)
from iqa_lightning.seeds import seed_of


class QPT(Contrastive):
    """Patches of one degraded photograph attract; the same under another degradation and other
    photographs repel.

    Two chains a photograph, two patches of each result: a query and a key, encoded by a copy of the
    encoder that follows it slowly. The last `queue` keys, those of the same photograph left out,
    are the other photographs'. `negatives`: `joint` or `summed`, see `losses.contrastive`.
    `versions`, `overlap`, `pristine`, `same_negatives` make it Re-IQA: that many single distortions
    of different kinds and the pristine image, of which all show the two patches of one geometry
    with `overlap`, half of them swapped, and only the queue repels, keys of the same photograph
    among it (`own_keys_repel`).

    Key patches are exchanged between ranks before they are encoded, so that batch statistics tell
    nothing of a pair.
    """

    queue: Tensor
    queue_index: Tensor

    def __init__(
        self,
        momentum: float = 0.999,
        queue: int = 4096,
        negatives: str = "joint",
        same_negatives: bool = True,
        versions: int = 2,
        pristine: bool = False,
        overlap: tuple[float, float] | None = None,
        own_keys_repel: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if negatives not in NEGATIVES:
            raise ValueError(f"method.negatives={negatives!r}: choose one of {NEGATIVES}")
        self.momentum, self.negatives, self.same_negatives = momentum, negatives, same_negatives
        self.versions, self.pristine, self.overlap = versions, pristine, overlap
        self.own_keys_repel = own_keys_repel
        self.key_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, self.width), dim=1))
        self.register_buffer("queue_index", torch.full((queue,), -1))  # of nothing yet

    def loss(self, images: Sequence[Tensor], index: Int[Tensor, " images"]) -> Float[Tensor, ""]:
        """Mean over the scales; the keys join the queue."""
        self.follow()
        scales = self.scaled_patches(images, self.draws(index))
        count = len(scales[0][0]) // len(index)  # versions of one image stand together
        queue = self.queue.clone()  # the loss is differentiated after the queue has moved on
        losses, keys = [], []
        if self.joint_scales:
            both = [torch.cat(side) for side in zip(*scales, strict=True)]
            queries = self.encoder(both[0]).chunk(len(scales))
            encoded = list(zip(queries, self.encode_keys(both[1]).chunk(len(scales)), strict=True))
        else:
            encoded = [(self.encoder(q), self.encode_keys(k)) for q, k in scales]
        for u, k in encoded:
            same = (
                others(k.view(len(index), count, -1))
                if self.same_negatives
                else k.new_empty(len(k), 0, k.shape[1])
            )
            own = self.queue_index == index.repeat_interleave(count)[:, None]
            usable = (self.queue_index >= 0) & (self.own_keys_repel | ~own)
            losses.append(
                quality_contrast(u, k, same, queue, self.temperature, self.negatives, usable)
            )
            keys.append(k)
        self.enqueue(torch.cat(keys), index.repeat_interleave(count).repeat(len(keys)))
        return torch.stack(losses).mean()

    def scaled_patches(
        self, images: Sequence[Tensor], draws: Sequence[np.random.Generator]
    ) -> list[tuple[Patches, Patches]]:
        """Query and key patch of each version of each image, at each scale."""
        damaged, versions = self.damaged(images, draws)
        query, key = self.cut(damaged, versions, draws)
        if not self.half_scale or self.half_shows == "patch":
            return list(zip(self.scales(query), self.scales(key), strict=True))
        smaller = [halved(image, self.patch) for image in damaged]
        return [(query, key), self.cut(smaller, versions, draws)]

    def patches(
        self, images: Sequence[Tensor], draws: Sequence[np.random.Generator]
    ) -> tuple[Patches, Patches]:
        """Query and key patch of each version of each image, at full size."""
        return self.cut(*self.damaged(images, draws), draws)

    def damaged(
        self, images: Sequence[Tensor], draws: Sequence[np.random.Generator]
    ) -> tuple[list[Tensor], list[int]]:
        """The versions of all images, and how many each has."""
        chains = [self.versions_of(draw) for draw in draws]
        seeds = [
            [int(seed) for seed in draw.integers(2**63, size=len(own))]
            for draw, own in zip(draws, chains, strict=True)
        ]
        repeated = [image for image, own in zip(images, chains, strict=True) for _ in own]
        flat_seeds = [seed for own in seeds for seed in own]
        damaged = degrade_each(repeated, [chain for own in chains for chain in own], flat_seeds)
        return damaged, [len(own) for own in chains]

    def cut(
        self,
        damaged: Sequence[Tensor],
        versions: Sequence[int],
        draws: Sequence[np.random.Generator],
    ) -> tuple[Patches, Patches]:
        """Query and key patch of each of the damaged images, `versions` of each photograph."""
        rest = iter(damaged)
        query, key = [], []
        for draw, count in zip(draws, versions, strict=True):
            shared = None
            for k in range(count):
                image = next(rest)
                if self.overlap is None:
                    pair = (
                        random_corner(image, self.patch, draw),
                        random_corner(image, self.patch, draw),
                    )
                else:
                    shared = shared or overlapping_corners(image, self.patch, self.overlap, draw)
                    pair = shared if k % 2 == 0 else shared[::-1]
                query.append(patch(image, pair[0], self.patch))
                key.append(patch(image, pair[1], self.patch))
        return torch.stack(query), torch.stack(key)

    def versions_of(self, draw: np.random.Generator) -> list[Chain]:
        """The chains of one image, all different."""
        chains: list[Chain] = [()] if self.pristine else []
        kinds = {step.kind for chain in chains for step in chain}
        while len(chains) < self.versions + self.pristine:
            chain = self.chains.draw(draw)
            taken = self.overlap is not None and bool(
                kinds & {step.kind for step in chain}
            )  # Re-IQA: distinct kinds
            if chain not in chains and not taken:
                chains.append(chain)
                kinds |= {step.kind for step in chain}
        return chains

    @torch.no_grad()
    def follow(self) -> None:
        """The key encoder moves a little towards the encoder."""
        for slow, fast in zip(
            self.key_encoder.parameters(), self.encoder.parameters(), strict=True
        ):
            slow.lerp_(fast, 1 - self.momentum)

    @torch.no_grad()
    def encode_keys(self, patches: Patches) -> Float[Tensor, "n width"]:
        """Keys of this rank's patches, encoded in batches mixed from all ranks."""
        ranks = world_size()
        if ranks == 1:
            keys: Tensor = self.key_encoder(patches)
            return keys
        generator = torch.Generator().manual_seed(
            seed_of(self.seed, "ranks", "", "pretrain", self.global_step)
        )
        order = torch.randperm(len(patches) * ranks, generator=generator).to(patches.device)
        share = order.view(ranks, -1)[self.global_rank]
        mixed = from_all(self.key_encoder(from_all(patches)[share]))
        keys = torch.empty_like(mixed)
        keys[order] = mixed
        return keys.view(ranks, len(patches), -1)[self.global_rank]

    @torch.no_grad()
    def enqueue(self, keys: Float[Tensor, "n width"], index: Int[Tensor, " n"]) -> None:
        """The newest keys of all ranks first; the oldest fall out."""
        keys, index = from_all(keys), from_all(index)
        self.queue.copy_(torch.cat([keys, self.queue])[: len(self.queue)])
        self.queue_index.copy_(torch.cat([index, self.queue_index])[: len(self.queue)])


def others(keys: Float[Tensor, "images versions width"]) -> Float[Tensor, "n others width"]:
    """To each version of an image the keys of its other versions."""
    count = keys.shape[1]
    rest = [[j for j in range(count) if j != i] for i in range(count)]
    return keys[:, torch.tensor(rest, device=keys.device)].flatten(0, 1)
