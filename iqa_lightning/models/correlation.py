"""Correlations of predictions with ratings as torchmetrics: thin state around `iqa_lightning.metrics.correlation`."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from iqa_lightning.metrics import correlation


class CorrelationMetric(Metric):
    """Keeps all predictions and ratings of one data set, over batches and ranks, and compares them at the end.

    Correlations: [-1, 1], higher is better; NaN where one side is constant.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    function: Callable[..., float]
    pred: list[Tensor]
    mos: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("pred", default=[], dist_reduce_fx="cat")
        self.add_state("mos", default=[], dist_reduce_fx="cat")

    def update(self, pred: Float[Tensor, " batch"], mos: Float[Tensor, " batch"]) -> None:
        """Add a batch."""
        self.pred.append(pred.detach().float())
        self.mos.append(mos.detach().float())

    def compute(self) -> Float[Tensor, ""]:
        """The measure over all that was added."""
        pred, mos = dim_zero_cat(self.pred).cpu().numpy(), dim_zero_cat(self.mos).cpu().numpy()
        return torch.tensor(type(self).function(pred, mos), device=self.device)


class SRCC(CorrelationMetric):
    """Spearman's rank correlation, average ranks on ties."""

    function = staticmethod(correlation.srcc)


class PLCC(CorrelationMetric):
    """Pearson's correlation of the raw scores."""

    function = staticmethod(correlation.plcc)


class KRCC(CorrelationMetric):
    """Kendall's tau-b."""

    function = staticmethod(correlation.krcc)


class RMSE(CorrelationMetric):
    """Root mean squared error in the unit of the ratings, lower is better."""

    higher_is_better = False
    function = staticmethod(correlation.rmse)
