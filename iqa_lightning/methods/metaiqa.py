"""MetaIQA's fine-tuning as a method: from a prior, or any other start, over the tasks of a stream.

H. Zhu et al., "MetaIQA: Deep Meta-learning for No-Reference Image Quality Assessment", CVPR 2020,
https://arxiv.org/abs/2004.05508. The prior is made by `pretraining/metaiqa.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.distributed import from_all_ranks
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.readouts import HeadScores, Known
from iqa_lightning.models.backbones import Images
from iqa_lightning.models.normalization import batch_norms
from iqa_lightning.models.regression import RegressionNet, load_rest
from iqa_lightning.stream.schedule import Position, Task


class MetaIQA(ContinualMethod):
    """The fine-tuning of MetaIQA from task to task: one network and one regression head, mean
    squared error.

    Scores of the current task go to [0, 1], by `label_range` or by the range of its training
    images, which the network has to meet; the others of the stream are only ranked. `bn_stats` is
    of the backbone; `frozen` holds for the head too. The published rates are those of
    `conf/experiment/metaiqa_finetune.yaml`.

    Args:
        prior: the weights file of a pre-training, of which the head is taken too (give it as
            `backbone.weights` as well); null: the head starts at random.
        dropout: share of the head's units that a training step leaves out.
        label_range: scores that are 0 and 1 to the network, `[0, 100]` for the official code's MOS
            / 100 on CLIVE; null: the range of the task's training images.
        options: see `ContinualMethod`.

    Raises:
        ValueError: `prior` holds no such head.
    """

    readouts = ("single",)
    low: Tensor
    high: Tensor

    def __init__(
        self,
        prior: str | None = None,
        dropout: float = 0.5,
        label_range: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if label_range is not None and not label_range[0] < label_range[-1]:
            raise ValueError(
                f"method.label_range={list(label_range)}: give the scores that are 0 and 1, as in "
                "[0, 100]"
            )
        self.label_range = label_range
        self.rest = RegressionNet(self.backbone, dropout).rest
        if prior is not None:
            load_rest(self.rest, prior)
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(1.0))

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score in (0, 1), higher is better."""
        return self.rest(self.backbone(image))[:, 0]  # type: ignore[no-any-return]  # modules are untyped

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """The only head's score."""
        return HeadScores(self.score(image)[:, None])

    def body_parameters(self) -> list[nn.Parameter]:
        """The backbone."""
        return self.backbone.trainable()

    def head_parameters(self) -> list[nn.Parameter]:
        """All that stands on the backbone."""
        return list(self.rest.parameters())

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """The range of the task's scores, over all ranks."""
        super().on_task_start(task, images)
        if self.label_range is not None:
            low, high = self.label_range
        else:
            mos = torch.cat(from_all_ranks(torch.cat([batch["mos"].cpu() for batch in images])))
            low, high = float(mos.min()), float(mos.max())
        self.low.fill_(low)
        self.high.fill_(high)

    def on_phase_start(self, position: Position) -> None:
        """The head is normalised by batch statistics whenever it is trained, as in the official
        code.
        """
        super().on_phase_start(position)
        for layer in batch_norms(self.rest):
            layer.train(self.bn_stats != "frozen" and position.phase.trains != "nothing")

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Mean squared error of the images; pairs play no part."""
        target = (batch["mos"] - self.low) / (self.high - self.low)
        return F.mse_loss(self.score(batch["image"]).float(), target)
