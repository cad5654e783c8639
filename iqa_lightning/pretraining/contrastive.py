"""What contrastive pre-trainings share: an embedding, its optimiser and rate, and random numbers of
each image.
"""

from collections.abc import Callable, Iterator, Sequence
from math import cos, pi
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.images.degradations.chain import ChainSpace
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.seeds import seed_of

Patches = UInt8[Tensor, "n 3 side side"] | Float[Tensor, "n 3 side side"]


OptimizerFactory = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]


class Embedding(nn.Module):
    """Backbone and two-layer projector; embeddings of unit norm, of features of unit norm where
    that is asked for.
    """

    def __init__(
        self, backbone: Backbone, hidden: int, width: int, normalize_feature: bool = False
    ) -> None:
        super().__init__()
        self.backbone, self.normalize_feature = backbone, normalize_feature
        self.projector = nn.Sequential(
            nn.Linear(backbone.width, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def forward(self, image: Patches) -> Float[Tensor, "n width"]:
        """Embeddings of patches at the resolution they have."""
        feature = self.backbone(image)
        if self.normalize_feature:
            feature = F.normalize(feature, dim=1)
        return F.normalize(self.projector(feature).float(), dim=1)


class Contrastive(pl.LightningModule):
    """What the three recipes share: an embedding, its optimiser and learning rate, random numbers
    of each image.

    Args:
        backbone: the network that is to be pre-trained.
        optimizer: builds the optimiser from parameters.
        chains: what degradations are drawn from.
        patch: side of a patch in pixels.
        temperature: of the softmax.
        hidden: width of the projector's hidden layer; null: that of the backbone's feature.
        width: of an embedding.
        schedule: of the learning rate, step by step: `constant`, `cosine` to 0, or `restarts`
            (cosine in periods of 1, 2, 4 ... epochs).
        warmup_epochs: epochs in which the rate grows from 0.
        warmup_inside: whether they count as epochs of the cosine, which they then meet where it is;
            else it begins behind them.
        floor: share of the rate that a cosine ends with.
        half_scale: whether patches are shown at half the size too.
        half: what these show: the same `patch`, or a new `crop` of the image at half its size.
        joint_scales: whether both scales go through the network in one batch; patches have one size
            then, so `half` is `crop`.
        normalize_feature: whether the projector reads features of unit norm.
        exempt_vectors: whether parameters of one dimension (biases, norms) have no weight decay,
            and with `timm.optim.Lars` no adapted rate.
        checkpointing: whether the network computes its activations anew in the backward pass, which
            takes less memory and more time.
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
        warmup_inside: bool = False,
        floor: float = 0.0,
        half: str = "patch",
        joint_scales: bool = False,
        normalize_feature: bool = False,
        exempt_vectors: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if half not in ("patch", "crop") or (joint_scales and half == "patch"):
            raise ValueError(
                f"method.half={half!r}, joint_scales={joint_scales}: choose patch, or crop, with "
                "which alone scales go together"
            )
        if schedule not in ("constant", "cosine", "restarts"):
            raise ValueError(f"method.schedule={schedule!r}: choose constant, cosine or restarts")
        if checkpointing:
            backbone.network.set_grad_checkpointing(True)
        self.encoder = Embedding(backbone, hidden or backbone.width, width, normalize_feature)
        self.warmup_inside, self.floor, self.exempt_vectors = warmup_inside, floor, exempt_vectors
        self.half_shows, self.joint_scales = half, joint_scales
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
        factor = lr_factor(
            at,
            self.trainer.max_epochs or 1,
            self.schedule,
            self.warmup_epochs,
            self.warmup_inside,
            self.floor,
        )
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
        words = ("degradations", "", "pretrain", self.current_epoch)
        return [np.random.default_rng(seed_of(self.seed, *words, i)) for i in index.tolist()]

    def scales(self, patches: Patches) -> list[Patches]:
        """The patches and, where asked for, the same at half size."""
        half = F.interpolate(patches.float(), scale_factor=0.5, mode="bicubic", antialias=True)
        return [patches, half.clamp(0, 255)] if self.half_scale else [patches]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Over the encoder alone."""
        if self.exempt_vectors:
            known = list(self.encoder.parameters())
            groups: Any = [
                {"params": [p for p in known if p.ndim > 1]},
                {"params": [p for p in known if p.ndim == 1], "weight_decay": 0.0},
            ]
            optimizer = self.optimizer_factory(groups)
        else:
            optimizer = self.optimizer_factory(self.encoder.parameters())
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer


def lr_factor(
    at: float,
    epochs: int,
    schedule: str,
    warmup: float = 0.0,
    inside: bool = False,
    floor: float = 0.0,
) -> float:
    """Factor on the learning rate after `at` of `epochs` epochs.

    Args:
        at: epochs done.
        epochs: of the whole training.
        schedule: `constant`, `cosine` or `restarts`.
        warmup: epochs in which the rate grows from 0.
        inside: whether they are part of the cosine.
        floor: what a cosine ends with.
    """
    before = 0.0 if inside else warmup
    if at < warmup:
        top = lr_factor(warmup, epochs, schedule, 0.0, inside, floor) if inside else 1.0
        return top * at / warmup
    if schedule == "constant":
        return 1.0
    done, length = at - before, epochs - before
    if schedule == "restarts":
        length = 1.0
        while done >= length:
            done, length = done - length, 2 * length
    return floor + (1 - floor) * 0.5 * (1 + cos(pi * done / length))
