"""Readers whose heads stand on the features of a network."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.models.backbones import Images
from iqa_lightning.models.heads import CosineHeads
from iqa_lightning.models.low_rank import LowRankSets
from iqa_lightning.models.normalization import NormSets
from iqa_lightning.scoring.reader import Reader


class CosineReader(Reader):
    """Linear heads on the unit-norm feature of one network (`methods.finetune` and what follows)."""

    def __init__(self, normalize: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.linear = CosineHeads(self.backbone.width, len(self.heads), normalize)

    def score(self, image: Images) -> Tensor:
        """Score of each head, from one pass."""
        feature = self.backbone(image, self.backbone.frozen_output(image))
        return torch.stack([self.linear(feature, k) for k in range(len(self.heads))], dim=1)


class NormsReader(Reader):
    """Norms, or low-rank updates, and a linear head for each task (`methods.tsn_iqa`), and the two
    closed-form parts of `methods.tsn_ridge` where `weights` are given.
    """

    def __init__(
        self,
        normalize: bool = True,
        weights: Mapping[str, float] | None = None,
        low_rank: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        count = len(self.heads)
        self.sets = (
            LowRankSets(self.backbone.network, 1 + count, **low_rank)
            if low_rank
            else NormSets(self.backbone.network, 1 + count)
        )
        self.linear = CosineHeads(self.backbone.width, count, normalize)
        self.weights = dict(weights or {})
        if self.weights:
            width = self.backbone.statistics_width
            self.maps = nn.ParameterDict(
                {
                    part: nn.Parameter(torch.zeros(count, width).double())
                    for part in ("own", "frozen")
                }
            )
            self.centre = nn.Parameter(torch.zeros(3, count).double())
            self.spread = nn.Parameter(torch.ones(3, count).double())

    def gate_stages(self, image: Images) -> list[Tensor]:
        """Features under the norms that the network started with."""
        self.sets.use(0)
        return super().gate_stages(image)

    def score(self, image: Images) -> Tensor:
        """Score of each task under its own norms."""
        fixed = self.backbone.frozen_output(image)
        if self.weights:
            self.sets.use(0)
            return self.combined(image, fixed, self.backbone.statistics(image))
        scores = []
        for k in range(len(self.heads)):
            self.sets.use(k + 1)
            scores.append(self.linear(self.backbone(image, fixed), k))
        return torch.stack(scores, dim=1)

    def score_beside(self, image: Images, stages: list[Tensor]) -> Tensor:
        """The same; a gate may have read the statistics that the ridge of the start reads."""
        assert self.gate is not None
        if self.weights and self.gate_encoder is None and self.gate.features == "stages":
            return self.combined(image, self.backbone.frozen_output(image), stages[0])
        return self.score(image)

    def combined(self, image: Images, fixed: Tensor | None, frozen: Tensor) -> Tensor:
        """Weighted sums of trained head, ridge under the task's norms, ridge of the start."""
        columns = []
        for k in range(len(self.heads)):
            self.sets.use(k + 1)
            feature, (own,) = self.backbone.with_stages(image, fixed, "stages")
            parts = [
                self.linear(feature, k).double(),
                own.double() @ self.maps["own"][k],
                frozen.double() @ self.maps["frozen"][k],
            ]
            scaled = [
                self.weights[name] * (part - self.centre[i, k]) / self.spread[i, k]
                for i, (name, part) in enumerate(
                    zip(("trained", "own", "frozen"), parts, strict=True)
                )
            ]
            columns.append(torch.stack(scaled).sum(dim=0).float())
        return torch.stack(columns, dim=1)


class AffineReader(Reader):
    """Linear maps in float64 of features that are read image by image (`methods.ridge`).

    Args:
        features: `last` or `stages`.
        projected: number of random features between them, 0 for none.
        options: see `Reader`.
    """

    def __init__(self, features: str = "stages", projected: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.features, count = features, len(self.heads)
        width = self.backbone.width if features == "last" else self.backbone.statistics_width
        self.projected = projected
        if projected:
            self.mean, self.deviation, self.matrix = (
                nn.Parameter(torch.zeros(shape).double())
                for shape in ((width,), (width,), (width, projected))
            )
        self.weight = nn.Parameter(torch.zeros(count, projected or width).double())
        self.bias = nn.Parameter(torch.zeros(count).double())

    def alone(self, image: Images, read: Callable[[Tensor], Tensor]) -> Tensor:
        """Features of images, one at a time."""
        return torch.cat([read(image[i : i + 1]).float() for i in range(len(image))])

    def score(self, image: Images) -> Tensor:
        """Score of each head."""
        read = self.backbone if self.features == "last" else self.backbone.statistics
        return self.mapped(self.alone(image, read))

    def score_beside(self, image: Images, stages: list[Tensor]) -> Tensor:
        """The same; a gate may have read the statistics that the heads read."""
        assert self.gate is not None
        shared = self.features == self.gate.features == "stages"
        return self.mapped(stages[0]) if shared and self.gate_encoder is None else self.score(image)

    def mapped(self, feature: Tensor) -> Tensor:
        """Score of each head from what the heads read."""
        feature = feature.double()
        if self.projected:
            feature = torch.relu((feature - self.mean) / self.deviation @ self.matrix)
        scores = [feature @ w + b for w, b in zip(self.weight, self.bias, strict=True)]
        return torch.stack(scores, dim=1).float()

    def gate_stages(self, image: Images) -> list[Tensor]:
        """What the gate reads, one image at a time too."""
        assert self.gate is not None
        if self.gate.features == "stages":
            return [self.alone(image, self.backbone.statistics)]
        both = self.alone(image, lambda one: torch.cat(self.backbone.stages(one), dim=1))
        return list(torch.split(both, self.backbone.stage_widths, dim=1))


class TrunkReader(Reader):
    """A float64 linear map of the features of several backbones (`methods.grepq`)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.ridge = nn.Parameter(torch.zeros(self.backbone.width + 1).double())

    def score(self, image: Images) -> Tensor:
        """The only score."""
        feature = self.backbone(image, self.backbone.frozen_output(image)).double()
        return (feature @ self.ridge[:-1] + self.ridge[-1]).float()[:, None]  # type: ignore[no-any-return]  # modules are untyped


class EmbeddingReader(Reader):
    """Small networks on frozen features (`methods.lpf`).

    Args:
        hidden: width of the embedding.
        blocks: its depth.
        components: of a score.
        component_weights: how they are weighed.
        embeddings: how many there are, 1 or one a head.
        options: see `Reader`.
    """

    def __init__(
        self,
        hidden: int,
        blocks: int,
        components: int,
        component_weights: str,
        embeddings: int,
        **options: Any,
    ) -> None:
        from iqa_lightning.models.lpf_heads import (  # noqa: PLC0415
            FeatureEmbedding,
            QualityRegression,
        )

        super().__init__(**options)
        self.embeddings = nn.ModuleList(
            FeatureEmbedding(self.backbone.width, hidden, blocks) for _ in range(embeddings)
        )
        self.regressions = nn.ModuleList(
            QualityRegression(hidden, components, component_weights) for _ in self.heads
        )

    def score(self, image: Images) -> Tensor:
        """Score of each head."""
        feature = self.backbone(image, self.backbone.frozen_output(image))
        scores = []
        for k, regression in enumerate(self.regressions):
            embedding = self.embeddings[k if len(self.embeddings) > 1 else 0]
            scores.append(regression(embedding(feature)))
        return torch.stack(scores, dim=1)


class RegressionReader(Reader):
    """One network and what stands on its feature (`methods.metaiqa`, `methods.unique`).

    Args:
        kind: `metaiqa` or `unique`.
        options: see `Reader`.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        from iqa_lightning.models.regression import RegressionHead  # noqa: PLC0415

        super().__init__(**options)
        self.kind, width = kind, self.backbone.width
        self.rest = (
            nn.Sequential(nn.Linear(width, 1000), RegressionHead())
            if kind == "metaiqa"
            else nn.Linear(width, 2)
        )

    def score(self, image: Images) -> Tensor:
        """The only score."""
        feature = self.backbone(image, None if self.kind == "metaiqa" else self.fixed(image))
        if self.kind == "unique":
            feature = F.normalize(feature.float(), dim=1)
        return self.rest(feature)[:, :1]  # type: ignore[no-any-return]  # modules are untyped

    def fixed(self, image: Images) -> Tensor | None:
        """The frozen part of the pass."""
        return self.backbone.frozen_output(image)  # type: ignore[no-any-return]


class MapReader(Reader):
    """The student of DP-IQA, or its teacher (`methods.dp_iqa`).

    Args:
        side: of the student's squares; 0 for the teacher.
        width: of the teacher's decoder.
        options: see `Reader`.
    """

    def __init__(self, side: int = 0, width: int = 512, **options: Any) -> None:
        from iqa_lightning.models.dp_iqa import FACTOR, Decoder, Student  # noqa: PLC0415

        super().__init__(**options)
        self.side = side
        self.rest: nn.Module = (
            Student(self.backbone, side)
            if side
            else Decoder(self.backbone.map_channels, self.backbone.side // FACTOR, width)
        )

    def score(self, image: Images) -> Tensor:
        """The only score."""
        if self.side:
            return self.rest(self.backbone, image)[0][:, None]  # type: ignore[no-any-return]
        latent = self.backbone.frozen_output(image)
        return self.rest(self.backbone.maps_of(image, latent))[0][:, None]  # type: ignore[no-any-return]
