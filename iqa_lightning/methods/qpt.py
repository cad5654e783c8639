"""Quality-aware contrastive pre-training of a backbone on photographs without ratings, and its nearest relatives.

QPT: K. Zhao et al., "Quality-aware Pre-trained Models for Blind Image Quality Assessment", CVPR 2023,
https://arxiv.org/abs/2303.00521. There is no public code, and its text was not at hand: what goes beyond the abstract
is our own design. Re-IQA (https://arxiv.org/abs/2304.00451) and ARNIQA (https://arxiv.org/abs/2310.14918) follow their
official codes.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from math import cos, pi
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.data.degradations.chain import Chain, ChainSpace
from iqa_lightning.data.patches import degrade_each, overlapping_corners, patch, random_corner
from iqa_lightning.losses.contrastive import NEGATIVES, nt_xent, quality_contrast
from iqa_lightning.models.backbones import Backbone

Patches = UInt8[Tensor, "n 3 side side"] | Float[Tensor, "n 3 side side"]
OptimizerFactory = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]


class Embedding(nn.Module):
    """Backbone and two-layer projector; embeddings of unit norm."""

    def __init__(self, backbone: Backbone, hidden: int, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = nn.Sequential(nn.Linear(backbone.width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, image: Patches) -> Float[Tensor, "n width"]:
        """Embeddings of patches at the resolution they have."""
        return F.normalize(self.projector(self.backbone(image)).float(), dim=1)


class Contrastive(pl.LightningModule):
    """What the three recipes share: an embedding, its optimiser and learning rate, random numbers of each image.

    Args:
        backbone: the network that is to be pre-trained.
        optimizer: builds the optimiser from parameters.
        chains: what degradations are drawn from.
        patch: side of a patch in pixels.
        temperature: of the softmax.
        hidden: width of the projector's hidden layer; null: that of the backbone's feature.
        width: of an embedding.
        schedule: of the learning rate, step by step: `constant`, `cosine` to 0, or `restarts` (cosine in periods of
            1, 2, 4 ... epochs).
        warmup_epochs: epochs in which the rate grows from 0.
        half_scale: whether each patch is also shown at half its size.
        seed: of all degradations and patches.

    Raises:
        ValueError: an unknown schedule.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        chains: ChainSpace,
        patch: int = 96,
        temperature: float = 0.2,
        hidden: int | None = None,
        width: int = 128,
        schedule: str = "cosine",
        warmup_epochs: float = 0.0,
        half_scale: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if schedule not in ("constant", "cosine", "restarts"):
            raise ValueError(f"method.schedule={schedule!r}: choose constant, cosine or restarts")
        self.encoder = Embedding(backbone, hidden or backbone.width, width)
        self.optimizer_factory, self.chains, self.patch = optimizer, chains, patch
        self.temperature, self.half_scale, self.seed = temperature, half_scale, seed
        self.schedule, self.warmup_epochs, self.width = schedule, warmup_epochs, width

    def weights(self) -> dict[str, Tensor]:
        """What is kept of the pre-training: the backbone."""
        kept: dict[str, Tensor] = self.encoder.backbone.network.state_dict()
        return kept

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """`loss`, logged; the rate is set for the step."""
        total = self.trainer.num_training_batches
        at = self.current_epoch + batch_idx / total
        factor = lr_factor(at, self.trainer.max_epochs or 1, self.schedule, self.warmup_epochs)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor
        loss = self.loss(batch["image"], batch["index"])
        self.log("train/loss", loss, batch_size=len(batch["index"]), prog_bar=True)
        return loss

    def loss(self, images: Sequence[Tensor], index: Int[Tensor, " images"]) -> Float[Tensor, ""]:
        """Loss of whole photographs, whose numbers are `index`."""
        raise NotImplementedError

    def draws(self, index: Int[Tensor, " images"]) -> list[np.random.Generator]:
        """Random numbers of each image in this epoch, whichever batch or rank it is in."""
        return [np.random.default_rng((self.seed, self.current_epoch, i)) for i in index.tolist()]

    def scales(self, patches: Patches) -> list[Patches]:
        """The patches and, where asked for, the same at half size."""
        half = F.interpolate(patches.float(), scale_factor=0.5, mode="bicubic", antialias=True)
        return [patches, half.clamp(0, 255)] if self.half_scale else [patches]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Over the encoder alone."""
        optimizer = self.optimizer_factory(self.encoder.parameters())
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer


class QPT(Contrastive):
    """Patches of one degraded photograph attract; the same under another degradation and other photographs repel.

    Two chains a photograph, two patches of each result: a query and a key, encoded by a copy of the encoder that
    follows it slowly. The last `queue` keys, those of the same photograph left out, are the other photographs'.
    `negatives`: `joint` or `summed`, see `losses.contrastive`. `versions`, `overlap`, `pristine`, `same_negatives` make
    it Re-IQA: that many single distortions of different kinds and the pristine image, of which all show the two patches
    of one geometry with `overlap`, half of them swapped, and only the queue repels.

    Key patches are exchanged between ranks before they are encoded, so that batch statistics tell nothing of a pair.
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
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if negatives not in NEGATIVES:
            raise ValueError(f"method.negatives={negatives!r}: choose one of {NEGATIVES}")
        self.momentum, self.negatives, self.same_negatives = momentum, negatives, same_negatives
        self.versions, self.pristine, self.overlap = versions, pristine, overlap
        self.key_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(queue, self.width), dim=1))
        self.register_buffer("queue_index", torch.full((queue,), -1))  # of nothing yet

    def loss(self, images: Sequence[Tensor], index: Int[Tensor, " images"]) -> Float[Tensor, ""]:
        """Mean over the scales; the keys join the queue."""
        self.follow()
        query, key = self.patches(images, self.draws(index))
        count = len(query) // len(index)  # versions of one image stand together
        queue = self.queue.clone()  # the loss is differentiated after the queue has moved on
        losses, keys = [], []
        for queries, shown in zip(self.scales(query), self.scales(key), strict=True):
            u, k = self.encoder(queries), self.encode_keys(shown)
            same = others(k.view(len(index), count, -1)) if self.same_negatives else k.new_empty(len(k), 0, k.shape[1])
            usable = (self.queue_index >= 0) & (self.queue_index != index.repeat_interleave(count)[:, None])
            losses.append(quality_contrast(u, k, same, queue, self.temperature, self.negatives, usable))
            keys.append(k)
        self.enqueue(torch.cat(keys), index.repeat_interleave(count).repeat(len(keys)))
        return torch.stack(losses).mean()

    def patches(self, images: Sequence[Tensor], draws: Sequence[np.random.Generator]) -> tuple[Patches, Patches]:
        """Query and key patch of each version of each image."""
        chains = [self.versions_of(draw) for draw in draws]
        seeds = [
            [int(seed) for seed in draw.integers(2**63, size=len(own))] for draw, own in zip(draws, chains, strict=True)
        ]
        repeated = [image for image, own in zip(images, chains, strict=True) for _ in own]
        flat_seeds = [seed for own in seeds for seed in own]
        damaged = iter(degrade_each(repeated, [chain for own in chains for chain in own], flat_seeds))
        query, key = [], []
        for draw, own in zip(draws, chains, strict=True):
            shared = None
            for k in range(len(own)):
                image = next(damaged)
                if self.overlap is None:
                    pair = random_corner(image, self.patch, draw), random_corner(image, self.patch, draw)
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
            taken = self.overlap is not None and bool(kinds & {step.kind for step in chain})  # Re-IQA: distinct kinds
            if chain not in chains and not taken:
                chains.append(chain)
                kinds |= {step.kind for step in chain}
        return chains

    @torch.no_grad()
    def follow(self) -> None:
        """The key encoder moves a little towards the encoder."""
        for slow, fast in zip(self.key_encoder.parameters(), self.encoder.parameters(), strict=True):
            slow.lerp_(fast, 1 - self.momentum)

    @torch.no_grad()
    def encode_keys(self, patches: Patches) -> Float[Tensor, "n width"]:
        """Keys of this rank's patches, encoded in batches mixed from all ranks."""
        ranks = world_size()
        if ranks == 1:
            keys: Tensor = self.key_encoder(patches)
            return keys
        generator = torch.Generator().manual_seed(self.global_step)
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


class ARNIQA(Contrastive):
    """Patches of different photographs with the same degradation attract, all others repel (NT-Xent).

    Photographs 2i and 2i + 1 of a batch share a chain, 5 % of the pairs stay pristine; both scales are in one batch.
    """

    def __init__(self, pristine: float = 0.05, **options: Any) -> None:
        super().__init__(**options)
        self.pristine = pristine

    def loss(self, images: Sequence[Tensor], index: Int[Tensor, " images"]) -> Float[Tensor, ""]:
        """Over pairs of photographs; of an odd number the last is left out."""
        count = len(images) // 2 * 2
        draws = self.draws(index[:count])
        chains = [() if draw.random() < self.pristine else self.chains.draw(draw) for draw in draws[::2]]
        doubled = [chain for chain in chains for _ in range(2)]
        damaged = degrade_each(images[:count], doubled, [int(draw.integers(2**63)) for draw in draws])
        corners = [random_corner(image, self.patch, draw) for image, draw in zip(damaged, draws, strict=True)]
        patches = torch.stack([patch(im, corner, self.patch) for im, corner in zip(damaged, corners, strict=True)])
        embeddings = [self.encoder(shown) for shown in self.scales(patches)]
        first, second = (torch.cat([e[k::2] for e in embeddings]) for k in range(2))
        return nt_xent(first, second, self.temperature)


def others(keys: Float[Tensor, "images versions width"]) -> Float[Tensor, "n others width"]:
    """To each version of an image the keys of its other versions."""
    count = keys.shape[1]
    rest = [[j for j in range(count) if j != i] for i in range(count)]
    return keys[:, torch.tensor(rest, device=keys.device)].flatten(0, 1)


def lr_factor(at: float, epochs: int, schedule: str, warmup: float = 0.0) -> float:
    """Factor on the learning rate after `at` of `epochs` epochs."""
    if at < warmup:
        return at / warmup
    if schedule == "constant":
        return 1.0
    done, length = at - warmup, epochs - warmup
    if schedule == "restarts":
        length = 1.0
        while done >= length:
            done, length = done - length, 2 * length
    return 0.5 * (1 + cos(pi * done / length))


def world_size() -> int:
    """Number of ranks."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1


def from_all(value: Tensor) -> Tensor:
    """Rows of all ranks in their order; each rank has as many."""
    if world_size() == 1:
        return value
    values = [torch.empty_like(value) for _ in range(world_size())]
    torch.distributed.all_gather(values, value.contiguous())
    return torch.cat(values)
