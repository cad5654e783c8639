"""Warm-up on fixed crops: what the heads read of them is computed once, not in each step."""

import pytorch_lightning as pl
from torch import Tensor

from iqa_lightning.continual.evaluation import evaluation_mode, on_device
from iqa_lightning.images.cache import ram_budget
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.readouts import HeadsReadFeatures
from iqa_lightning.stream.schedule import Position
from iqa_lightning.stream.stream import TaskStream
from iqa_lightning.stream.training_images import FixedCrops


class WarmUpFeatures:
    """Features of the fixed crops of a phase of heads, for methods whose heads read nothing else.

    Computed at the phase's start, and again where a run resumes within it.
    """

    def __init__(self) -> None:
        self.features: Tensor | None = None

    def prepare(
        self, trainer: pl.Trainer, stream: TaskStream, method: ContinualMethod, position: Position
    ) -> None:
        """Compute the features if the phase needs them, and drop those that others left.

        Args:
            trainer: for this rank's share.
            stream: it holds the crops.
            method: what reads them.
            position: the epoch that begins.

        Raises:
            ValueError: they take more memory than there is.
        """
        if position.phase.fixed_crops is None or position.epoch == 0:
            self.features = None
        if position.phase.fixed_crops is None or self.features is not None:
            return
        if not isinstance(method, HeadsReadFeatures) or not method.heads_read_features:
            return
        crops = stream.train_dataloader().dataset
        assert isinstance(crops, FixedCrops)
        check_room(len(crops), method.backbone.width)
        share = crops.loader(stream.max_pixels, trainer.global_rank, trainer.world_size)
        with evaluation_mode(method):
            (self.features,) = method.collect(
                on_device(method, share), lambda image: [method.feature(image)]
            )

    def hand_over(self, batch: Batch) -> None:
        """Put the features of its crops into a batch, as `feature`."""
        if self.features is not None:
            batch["feature"] = self.features[batch["crop"]]


def check_room(count: int, width: int) -> None:
    """Refuse more features than fit in memory.

    Raises:
        ValueError: naming both sizes and what to change.
    """
    nbytes, budget = 4 * count * width, ram_budget()
    if nbytes > budget:
        raise ValueError(
            f"the features of {count} fixed crops take {nbytes / 1e9:.1f} GB of the "
            f"{budget / 1e9:.1f} that may be used (a quarter of what is free): lower the phase's "
            "`fixed_crops`, or set it to null"
        )
