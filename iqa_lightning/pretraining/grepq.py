"""GRepQ's two trainings without scores: the low-level network and the image tower of CLIP.

Srinath et al., WACV 2024, https://arxiv.org/abs/2312.04838; values from the official code,
https://github.com/suhas-srinath/GRepQ (MIT).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.transforms.functional import center_crop

from iqa_lightning.losses.group_contrast import extreme_groups, group_contrast
from iqa_lightning.losses.scene_contrast import SceneContrast
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.clip import CLIP
from iqa_lightning.models.clip_any_size import prompt_quality
from iqa_lightning.models.quality_encoder import QualityEncoder, projection
from iqa_lightning.pretraining.contrastive import lr_factor
from iqa_lightning.seeds import seed_of

OptimizerFactory = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]


class GRepQLow(pl.LightningModule):
    """The low-level network: distorted versions of a photograph attract as far as they are alike.

    The similarity of a photograph's versions is computed when it is first shown, and kept in
    memory: after a resume, once more, to the same bits.

    Args:
        backbone: what learns; a `QualityEncoder` has a head, which is kept, any other gets one for
            the training alone.
        optimizer: builds the optimiser from parameters.
        contrast: a partial of `losses.scene_contrast.SceneContrast`.
        min_lr: where the cosine of the learning rate ends, step by step.
        seed: of distortions and fragments.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        contrast: Callable[..., SceneContrast],
        min_lr: float = 1e-6,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone, self.optimizer_factory = backbone, optimizer
        if isinstance(backbone, QualityEncoder):
            self.encoder: nn.Module = backbone
        else:
            self.encoder = nn.Sequential(backbone, projection(backbone.width))
        self.contrast, self.min_lr, self.seed = contrast(seed=seed), min_lr, seed

    def weights(self) -> dict[str, Tensor]:
        """What is kept: the network and, of a `QualityEncoder`, its head."""
        if isinstance(self.backbone, QualityEncoder):
            return self.backbone.kept()
        kept: dict[str, Tensor] = self.backbone.network.state_dict()
        return kept

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """`loss`, logged; the rate is set for the step."""
        at = self.current_epoch + batch_idx / self.trainer.num_training_batches
        factor = lr_factor(at, self.trainer.max_epochs or 1, "cosine")
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.min_lr + (group["initial_lr"] - self.min_lr) * factor
        loss = self.loss(batch["image"], batch["index"])
        self.log("train/loss", loss, batch_size=len(batch["index"]), prog_bar=True)
        return loss

    def loss(self, images: Sequence[Tensor], index: Int[Tensor, " images"]) -> Float[Tensor, ""]:
        """Loss of whole photographs, whose numbers are `index`."""
        scenes = index.tolist()
        words = ("degradations", "", "pretrain", self.current_epoch)
        draws = [np.random.default_rng(seed_of(self.seed, *words, i)) for i in scenes]
        return self.contrast(self.encoder, images, scenes, draws)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Over network and head."""
        return with_initial_lr(self.optimizer_factory(self.encoder.parameters()))


class GRepQHigh(pl.LightningModule):
    """The image tower of CLIP: the photographs of a batch that look best by two sentences attract
    each other and repel those that look worst.

    The text tower stands still, and no gradient passes through the choice. The official optimiser
    never gets the head, which is dropped after the training: the loss acts through a fixed random
    projection.

    Args:
        backbone: a CLIP.
        optimizer: builds the optimiser from parameters.
        divisor: of b images, b // `divisor` are the best and as many the worst.
        temperature: of the contrast.
        hidden: width of the head.
        train_head: whether it learns.
        warmup_epochs: in which the rate grows from 0 on, step by step.

    Raises:
        ValueError: the backbone has no text tower.
    """

    def __init__(
        self,
        backbone: CLIP,
        optimizer: OptimizerFactory,
        divisor: int = 32,
        temperature: float = 0.5,
        hidden: int = 128,
        train_head: bool = False,
        warmup_epochs: float = 2.5,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, CLIP):
            raise ValueError("pretraining=grepq_high trains a CLIP: backbone=clip_rn50")
        self.backbone, self.optimizer_factory = backbone, optimizer
        backbone.freeze(backbone.text_parameters())
        self.head = nn.Sequential(nn.Linear(backbone.width, hidden), nn.ReLU())
        self.head.requires_grad_(train_head)
        self.divisor, self.temperature = divisor, temperature
        self.warmup_epochs = warmup_epochs

    def weights(self) -> dict[str, Tensor]:
        """What is kept: both towers."""
        kept: dict[str, Tensor] = self.backbone.network.state_dict()
        return kept

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """`loss`, logged; the rate is set for the step, and is 0 in the first."""
        batches = self.trainer.num_training_batches
        warmup = int(self.warmup_epochs * batches)
        done = int(self.current_epoch * batches + batch_idx)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * (done / warmup if done < warmup else 1.0)
        loss = self.loss(batch["image"])
        self.log("train/loss", loss, batch_size=len(batch["index"]), prog_bar=True)
        return loss

    def loss(self, images: Sequence[Tensor]) -> Float[Tensor, ""]:
        """Loss of whole photographs, of which the middle is seen."""
        feature = self.feature(images)
        worst, best = extreme_groups(prompt_quality(self.backbone, feature.detach()), self.divisor)
        shown = self.head(feature)
        return group_contrast(shown[worst], shown[best], self.temperature)

    def feature(self, images: Sequence[Tensor]) -> Float[Tensor, "images width"]:
        """Features of the middle of each photograph, normalised first: what a small one lacks is
        the mean colour, not black.
        """
        clip, side = self.backbone, list(self.backbone.image_size)
        mean, std = clip.mean, clip.std
        crops = [center_crop((image.float() - mean) / std, side) for image in images]
        clip.images_forwarded += len(crops)
        return clip.pooled(torch.stack(crops), None).float()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Over the image tower and, where it learns, the head."""
        trained = [*self.backbone.trainable(), *self.head.parameters()]
        return with_initial_lr(self.optimizer_factory(p for p in trained if p.requires_grad))


def with_initial_lr(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser, which keeps the rate that each step's is a share of."""
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer
