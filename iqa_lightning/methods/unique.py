"""UNIQUE: one scale for all data sets, with an uncertainty for each image.

Zhang et al., "Uncertainty-aware blind image quality assessment in the laboratory and wild", IEEE
TIP 30, 2021, https://arxiv.org/abs/2005.13983; official code https://github.com/zwx8981/UNIQUE.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.losses.fidelity import fidelity
from iqa_lightning.losses.thurstone import deviation_hinge, thurstone
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.readouts import NOTHING, HeadScores, Known, Prediction
from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.models.backbones import Images
from iqa_lightning.models.normalization import batch_norms
from iqa_lightning.stream.pairs import pair_target
from iqa_lightning.stream.schedule import Position, Task

Outputs = tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]


class UNIQUE(ContinualMethod):
    """One head with two outputs, mean quality and its standard deviation (softplus), for all data
    sets.

    The mean learns by the fidelity of Thurstone's preference to the human one (soft targets
    always), the deviation by a hinge on the order of the human deviations. The paper learns all
    sets at once, which is a joint task here: `stream.order=[[a,b,...]]`; with single tasks the
    network is fine-tuned from set to set. `bn_stats: always` includes the warm-up, as the official
    code does.

    Args:
        xi: margin of the hinge.
        weight: of learning without forgetting, from the second task on and in the warm-up too,
            since the head is shared: fidelity to the preference of the model as it was before the
            task, plus the squared difference of the deviations. Beyond the paper; 0 keeps no copy.
        options: see `ContinualMethod`.
    """

    readouts = ("single",)

    def __init__(self, xi: float = 0.025, weight: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.xi, self.weight = xi, weight
        self.head = start_head(self.backbone.width)
        self.teacher = Teacher(self.backbone, self.head) if weight > 0 else None

    def outputs(self, image: Images, fixed: Tensor | None = None) -> Outputs:
        """Mean, unbounded, higher is better, and standard deviation, above 0, of each image."""
        return two_outputs(self.backbone(image, fixed), self.head)

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """The mean."""
        return self.outputs(image)[0]

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """The only head's mean."""
        return HeadScores(self.outputs(image, known.frozen_output)[0][:, None])

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Prediction:
        """The mean as `single`, and the two deviations that the audit of uncertainty compares."""
        mean, sigma = self.outputs(batch["image"], batch.get("known", NOTHING).frozen_output)
        return Prediction({"single": mean, "sigma": sigma, "mos_std": batch["mos_std"]})

    def body_parameters(self) -> list[nn.Parameter]:
        """The backbone, but for what is never trained of it."""
        return self.backbone.trainable()

    def head_parameters(self) -> list[nn.Parameter]:
        """Weights and bias of both outputs."""
        return list(self.head.parameters())

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """The model as it is now is the teacher."""
        super().on_task_start(task, images)
        if self.teacher is not None:
            self.teacher.take(self.backbone, self.head)

    def on_phase_start(self, position: Position) -> None:
        """Statistics may move in the warm-up too."""
        super().on_phase_start(position)
        if self.bn_stats == "always":
            trained = {id(parameter) for parameter in self.body_parameters()}
            for layer in batch_norms(self.backbone):
                layer.train(id(layer.weight) in trained)

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
            old_mean, old_sigma = two_outputs(self.teacher(image, fixed), self.teacher.heads)
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
