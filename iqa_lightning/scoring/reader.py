"""What all networks of finished runs share: a plain module made of what `models/` holds, images to
what heads and gate say.

A reader computes what its method computes after the last task, with the same operations in the same
order. It is built from a JSON-able description and filled with tensors by name: no code comes out
of a file.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iqa_lightning.models.backbones import Images
from iqa_lightning.models.gating import Gate
from iqa_lightning.scoring.building import build_encoder, build_gate
from iqa_lightning.scoring.model import Reading

Description = Mapping[str, Any]


class Reader(nn.Module):
    """What all readers share: a backbone and, where there are several heads, a gate.

    Args:
        heads: names of the tasks, or `single`.
        backbone: its description, see `building`.
        gate: that of the gate, if there is one.
        gate_encoder: that of the network which the gate reads, where that is not the backbone.
        watches: what tells whether images are like those that were learnt, where there is no gate:
            `stages` or `statistics` of the backbone.
    """

    def __init__(
        self,
        heads: list[str],
        backbone: Description,
        gate: Description | None = None,
        gate_encoder: Description | None = None,
        watches: str = "stages",
    ) -> None:
        super().__init__()
        self.watches = watches
        self.heads = list(heads)
        self.backbone = build_encoder(backbone)
        self.gate_encoder = None if gate_encoder is None else build_encoder(gate_encoder)
        self.gate: Gate | None = None
        if gate is not None:
            self.gate = build_gate(gate, self.gate_encoder or self.backbone, len(self.heads))

    def forward(self, image: Images) -> Reading:
        """What heads and gate say of images, (batch, 3, height, width) or with windows before 3."""
        if self.gate is None:
            return Reading(self.score(image), None, self.watched(image))
        stages = self.gate_stages(image)
        feature = torch.cat(stages, dim=1).float()
        score = self.score_beside(image, stages)
        if len(self.heads) == 1:
            return Reading(score, torch.ones_like(score), feature)
        return Reading(score, self.gate(stages, len(self.heads)), feature)

    def score(self, image: Images) -> Tensor:
        """Score of each head."""
        raise NotImplementedError

    def score_beside(self, image: Images, stages: list[Tensor]) -> Tensor:
        """Score of each head, where `stages` is what the gate has read of the same images."""
        return self.score(image)

    def gate_stages(self, image: Images) -> list[Tensor]:
        """What the gate reads."""
        assert self.gate is not None
        encoder = self.gate_encoder or self.backbone
        return encoder.gate_stages(image, self.gate.features)  # type: ignore[no-any-return]  # modules are untyped

    def watched(self, image: Images) -> Tensor:
        """What tells whether images are like those that were learnt, where there is no gate."""
        if self.watches == "statistics":
            return self.backbone.statistics(image)  # type: ignore[no-any-return]
        windows = image if image.ndim == 5 else image[:, None]
        stages = torch.cat(self.backbone.stages(windows.flatten(0, 1)), dim=1)
        return stages.float().view(*windows.shape[:2], -1).mean(dim=1)
