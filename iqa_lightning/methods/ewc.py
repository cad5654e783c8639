"""EWC: parameters to which the loss of earlier tasks is sensitive are held back. https://arxiv.org/abs/1612.00796."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from iqa_lightning.data.pairs import pair_target
from iqa_lightning.losses.importance import ewc_slopes
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.regularized import PairImportance

TARGETS = ("soft", "training")


class EWC(PairImportance):
    """Importance: squared gradient of the fidelity loss of a pair, averaged over the pairs of an epoch.

    `importance_target`: `soft`, Thurstone's preference from MOS and its deviation, as in the official code of LwF-KG,
    although it trains on binary targets; or `training`, the target of the training.

    Raises:
        ValueError: another `importance_target`.
    """

    power = 2

    def __init__(self, importance_target: str = "soft", **options: Any) -> None:
        super().__init__(**options)
        if importance_target not in TARGETS:
            raise ValueError(f"method.importance_target={importance_target!r}: choose one of {TARGETS}")
        self.importance_target = importance_target

    def slope(self, delta: Float[Tensor, " pairs"], batch: Batch) -> Float[Tensor, " pairs"]:
        """Of the fidelity loss."""
        target = batch["target"]
        if self.importance_target == "soft":
            both = batch["pairs"].cpu()
            target = pair_target(batch["mos"].cpu()[both], batch["mos_std"].cpu()[both], "soft").to(delta)
        return ewc_slopes(delta, target, self.link)
