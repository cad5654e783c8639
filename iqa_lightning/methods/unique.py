"""UNIQUE: one scale for all data sets, with an uncertainty for each image.

Zhang et al., "Uncertainty-aware blind image quality assessment in the laboratory and wild", IEEE
TIP 30, 2021, https://arxiv.org/abs/2005.13983; official code https://github.com/zwx8981/UNIQUE.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.losses.fidelity import fidelity
from iqa_lightning.losses.thurstone import deviation_hinge, thurstone
from iqa_lightning.methods.base import FIXED, Batch, ContinualMethod
from iqa_lightning.models.backbones import Backbone, Images
from iqa_lightning.models.normalization import batch_norms
from iqa_lightning.stream.pairs import pair_target
from iqa_lightning.stream.schedule import Position, Task

Outputs = tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]


class UNIQUE(ContinualMethod):
    """One head with two outputs, mean quality and its standard deviation (softplus), for all data
    sets.

    The mean learns by the fidelity of Thurstone's preference to the human one (soft targets
    always), the deviation by a hinge on the order of the human deviations with margin `xi`. The
    paper learns all sets at once, which is a joint task here: `stream.order=[[a,b,...]]`; with
    single tasks the network is fine-tuned from set to set.

    `weight` beyond 0 adds, from the second task on and in the warm-up too, since the head is
    shared, that of learning without forgetting: fidelity to the preference of the model as it was
    before the task, plus the squared difference of the deviations. This goes beyond the paper.
    `bn_stats: always` includes the warm-up, as the official code does.
    """

    readouts = ("single",)

    def __init__(self, xi: float = 0.025, weight: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.xi, self.weight = xi, weight
        self.head = start_head(self.backbone.width)
        self.teacher: Backbone | None = None
        if weight > 0:
            self.teacher = self.backbone.twin()
            self.teacher_head = start_head(self.backbone.width).requires_grad_(False)

    def outputs(self, image: Images, fixed: Tensor | None = None) -> Outputs:
        """Mean, unbounded, higher is better, and standard deviation, above 0, of each image."""
        return two_outputs(self.backbone(image, fixed), self.head)

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """The mean."""
        return self.outputs(image)[0]

    def head_scores(
        self,
        image: Images,
        known: Mapping[str, Tensor],  # the network goes on changing
    ) -> dict[str, Float[Tensor, "batch heads"]]:
        """The only head's mean."""
        return {"score": self.score(image)[:, None]}

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Float[Tensor, " batch"]]:
        """The mean as `single`, and the two deviations that the audit of the uncertainty compares."""
        mean, sigma = self.outputs(batch["image"], batch.get("known", {}).get(FIXED))
        return {"single": mean, "sigma": sigma, "mos_std": batch["mos_std"]}

    def body_parameters(self) -> list[nn.Parameter]:
        """The backbone, but for what is never trained of it."""
        return self.backbone.trainable()

    def head_parameters(self) -> list[nn.Parameter]:
        """Weights and bias of both outputs."""
        return list(self.head.parameters())

    def added_parameters(self) -> int:
        """A task adds nothing."""
        return 0

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """The model as it is now is the teacher."""
        super().on_task_start(task, images)
        if self.teacher is not None:
            self.teacher.load_state_dict(self.backbone.state_dict())
            self.teacher_head.load_state_dict(self.head.state_dict())

    def on_phase_start(self, position: Position) -> None:
        """Statistics may move in the warm-up too; the teacher's never."""
        super().on_phase_start(position)
        if self.bn_stats == "always":
            trained = {id(parameter) for parameter in self.body_parameters()}
            for layer in batch_norms(self.backbone):
                layer.train(id(layer.weight) in trained)
        if self.teacher is not None:
            self.teacher.eval()

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Fidelity and hinge, means over the pairs, and what keeps the old preferences."""
        image, pairs = batch["image"], batch["pairs"]
        fixed = self.backbone.frozen_output(image)
        mean, sigma = self.outputs(image, fixed)
        both = pairs.cpu()
        target = pair_target(batch["mos"].cpu()[both], batch["mos_std"].cpu()[both], "soft").to(
            mean.device
        )
        p = thurstone(mean, sigma, pairs)
        losses = fidelity(p, target) + deviation_hinge(sigma, batch["mos_std"], pairs, self.xi)
        loss = losses.sum() / max(len(pairs), 1)
        if self.teacher is None or self.seen == 1:
            return loss
        with torch.no_grad():
            old_mean, old_sigma = two_outputs(self.teacher(image, fixed), self.teacher_head)
            wanted = thurstone(old_mean, old_sigma, pairs)
        kept = fidelity(p, wanted).sum() / max(len(pairs), 1) + (sigma - old_sigma).square().mean()
        return loss + self.weight * kept


def start_head(width: int) -> nn.Linear:
    """Two outputs with bias: Kaiming-normal weights, zero bias, as in the official code."""
    head = nn.Linear(width, 2)
    nn.init.kaiming_normal_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def two_outputs(feature: Float[Tensor, "batch width"], head: nn.Linear) -> Outputs:
    """Mean and deviation from L2-normalised features, in float32."""
    with torch.autocast(feature.device.type, enabled=False):
        out = head(F.normalize(feature.float(), dim=1))
        return out[:, 0], F.softplus(out[:, 1])
