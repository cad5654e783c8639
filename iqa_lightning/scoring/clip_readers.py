"""Readers that compare images with sentences, as CLIP does."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.models.backbones import Encoder, Images
from iqa_lightning.scoring.building import build_encoder
from iqa_lightning.scoring.reader import Description, Reader


class SentenceReader(Reader):
    """Mean quality by the likeness to sentences, whose features are kept (`methods.liqe`).

    Args:
        shape: number of qualities, scenes and distortions.
        options: see `Reader`.
    """

    def __init__(self, shape: list[int], **options: Any) -> None:
        super().__init__(**options)
        self.shape = list(shape)
        count = shape[0] * shape[1] * shape[2]
        self.texts = nn.Parameter(torch.zeros(count, self.backbone.embedding_width))

    def score(self, image: Images) -> Tensor:
        """Mean quality, of an image's windows."""
        windows = image if image.ndim == 5 else image[:, None]
        likeness = self.backbone.similarity(self.backbone(windows.flatten(0, 1)), self.texts)
        pooled = likeness.view(*windows.shape[:2], -1).mean(dim=1)
        p = pooled.flatten(1).softmax(dim=1).view(-1, *self.shape)
        scale = torch.arange(1, self.shape[0] + 1, device=p.device, dtype=p.dtype)
        return (p.sum(dim=(2, 3)) @ scale)[:, None]  # type: ignore[no-any-return]  # modules are untyped


class PromptedReader(Reader):
    """Probability of the better of two texts, with learnt tokens in the image encoder
    (`methods.grmp_iqa`).

    Args:
        prompts: arguments of `models.prompted_clip.Prompts`.
        options: see `Reader`.
    """

    def __init__(self, prompts: Mapping[str, Any], **options: Any) -> None:
        from iqa_lightning.models.prompted_clip import Prompts  # noqa: PLC0415

        super().__init__(**options)
        self.prompts = nn.ModuleList(Prompts(self.backbone, **prompts) for _ in self.heads)
        width = self.backbone.embedding_width
        self.texts = nn.Parameter(torch.zeros(len(self.heads), 2, width))

    def score(self, image: Images) -> Tensor:
        """Score of each head."""
        scores = []
        for prompts, texts in zip(self.prompts, self.texts, strict=True):
            feature = prompts.image_feature(self.backbone, image)  # type: ignore[operator]
            scores.append(self.backbone.similarity(feature, texts).softmax(dim=1)[:, 0])
        return torch.stack(scores, dim=1)


class ZeroShotReader(Reader):
    """How natural the patches of an image are, and how good a photo CLIP finds it
    (`methods.grepq`).

    Args:
        high: description of the CLIP, if there is one.
        patch: side of a patch.
        stride: from one to the next.
        options: see `Reader`.
    """

    def __init__(
        self, patch: int, stride: int, high: Description | None = None, **options: Any
    ) -> None:
        from iqa_lightning.models.naturalness import Naturalness  # noqa: PLC0415

        super().__init__(**options)
        self.naturalness = Naturalness(self.backbone.width, patch, stride)
        self.high: Encoder | None = None
        if high is not None:
            self.high = build_encoder(high)
            self.texts = nn.Parameter(torch.zeros(2, self.high.embedding_width))  # type: ignore[arg-type]  # a CLIP

    def score(self, image: Images) -> Tensor:
        """The only score."""
        score: Tensor = self.naturalness(self.backbone, image)
        if self.high is not None:
            from iqa_lightning.models.clip_any_size import preference_of  # noqa: PLC0415

            feature = F.normalize(self.high(image).float(), dim=-1)
            score = score + preference_of(*(feature @ self.texts.T.float()).unbind(dim=-1))  # type: ignore[arg-type]  # two columns
        return score[:, None]

    def watched(self, image: Images) -> Tensor:
        """The score is all that the method reads."""
        return self.score(image)
