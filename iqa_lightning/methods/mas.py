"""MAS: parameters to which the output is sensitive are held back. https://arxiv.org/abs/1711.09601."""

from jaxtyping import Float
from torch import Tensor

from iqa_lightning.losses.importance import mas_slopes
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.regularized import PairImportance


class MAS(PairImportance):
    """Importance: |gradient| of the squared preference (not of the score) of a pair, averaged over an epoch's pairs."""

    power = 1

    def slope(self, delta: Float[Tensor, " pairs"], batch: Batch) -> Float[Tensor, " pairs"]:  # noqa: ARG002  # no target
        """Of the squared preference."""
        return mas_slopes(delta, self.link)
