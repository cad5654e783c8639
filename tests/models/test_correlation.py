"""The torchmetrics classes, fed in batches, against scipy on everything at once."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from iqa_lightning.models.correlation import KRCC, PLCC, RMSE, SRCC, CorrelationMetric

REFERENCE = {
    SRCC: lambda x, y: stats.spearmanr(x, y).statistic,
    PLCC: lambda x, y: stats.pearsonr(x, y).statistic,
    KRCC: lambda x, y: stats.kendalltau(x, y).statistic,
    RMSE: lambda x, y: np.sqrt(np.mean((x - y) ** 2)),
}


def sample(images: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mos = torch.randint(0, 40, (images,), generator=generator).float()  # with ties
    return mos + 12 * torch.randn(images, generator=generator), mos


@pytest.mark.parametrize("metric", REFERENCE)
def test_batches_give_what_scipy_says_of_all(metric: type[CorrelationMetric]) -> None:
    pred, mos = sample()
    measure = metric()
    for i in range(0, 90, 32):
        measure.update(pred[i : i + 32], mos[i : i + 32])
    assert measure.compute().item() == pytest.approx(REFERENCE[metric](pred.numpy(), mos.numpy()), abs=1e-6)
    assert measure.higher_is_better is (metric is not RMSE)


def test_a_reset_forgets() -> None:
    pred, mos = sample()
    measure = SRCC()
    measure.update(pred, mos)
    measure.compute()
    measure.reset()
    measure.update(-mos, mos)
    assert measure.compute().item() == pytest.approx(-1)


def test_each_batch_has_a_value_of_its_own() -> None:
    pred, mos = sample()
    measure = SRCC()
    assert measure(pred[:40], mos[:40]).item() == pytest.approx(REFERENCE[SRCC](pred[:40], mos[:40]), abs=1e-6)
    assert measure(-mos[40:], mos[40:]).item() == pytest.approx(-1)
    both = torch.cat([pred[:40], -mos[40:]])
    assert measure.compute().item() == pytest.approx(REFERENCE[SRCC](both, mos), abs=1e-6)


@pytest.mark.parametrize("metric", [SRCC, PLCC, KRCC])
def test_constant_scores_have_no_correlation(metric: type[CorrelationMetric]) -> None:
    measure = metric()
    measure.update(torch.ones(9), torch.arange(9.0))
    assert math.isnan(measure.compute())


def test_half_precision_scores_are_taken() -> None:
    measure = PLCC()
    pred = torch.arange(9.0, dtype=torch.bfloat16, requires_grad=True)
    measure.update(pred, torch.arange(9.0, dtype=torch.float64))
    assert measure.compute().item() == pytest.approx(1)
    assert not measure.pred[0].requires_grad
