"""Cosine heads: free norm in training, unit norm at test, single precision always."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SciRidge
from torch.nn import functional as F
from torch.nn.functional import cosine_similarity

from iqa_lightning.models.heads import CosineHeads
from iqa_lightning.models.ridge import ALPHAS


@pytest.fixture
def heads() -> CosineHeads:
    torch.manual_seed(0)
    heads = CosineHeads(16, 3)
    with torch.no_grad():
        heads.weight[1].mul_(7)
    return heads


@pytest.fixture
def feature() -> torch.Tensor:
    return 5 * torch.randn(50, 16, generator=torch.Generator().manual_seed(1))


def test_all_heads_start_alike_but_are_their_own() -> None:
    heads = CosineHeads(16, 3)
    assert all(torch.equal(weight, heads.weight[0]) for weight in heads.weight)
    assert len({weight.data_ptr() for weight in heads.weight}) == 3
    assert heads.weight[0].abs().max() <= 1 / 4  # uniform in 1 / sqrt(width)
    assert [name for name, _ in heads.named_parameters()] == [
        "weight.0",
        "weight.1",
        "weight.2",
    ]  # no bias


def test_scores_are_cosines_at_test(heads: CosineHeads, feature: torch.Tensor) -> None:
    for head in range(3):
        scores = heads.eval()(feature, head)
        torch.testing.assert_close(scores, cosine_similarity(feature, heads.weight[head][None]))
        assert scores.abs().max() <= 1


def test_the_norm_is_free_in_training(heads: CosineHeads, feature: torch.Tensor) -> None:
    lengths = torch.stack([weight.norm() for weight in heads.weight])
    for head in range(3):
        torch.testing.assert_close(
            heads.train()(feature, head), heads.eval()(feature, head) * lengths[head]
        )


def test_the_norm_may_stay_free_at_test(feature: torch.Tensor) -> None:
    heads = CosineHeads(16, 1, normalize=False)
    assert torch.equal(heads.train()(feature, 0), heads.eval()(feature, 0))


def test_a_head_at_the_end_of_its_range(heads: CosineHeads) -> None:
    weight = heads.weight[1].detach()
    scores = heads.eval()(torch.stack([weight, -weight, torch.zeros(16)]), 1)
    torch.testing.assert_close(scores, torch.tensor([1.0, -1.0, 0.0]))


def test_scores_are_single_precision_under_autocast(
    heads: CosineHeads, feature: torch.Tensor
) -> None:
    heads.eval()
    with torch.autocast("cpu", torch.bfloat16):
        half = heads(feature.bfloat16(), 0)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, heads(feature.bfloat16().float(), 0), rtol=0, atol=0)


def test_starts() -> None:
    torch.manual_seed(0)
    kaiming, linear = (
        CosineHeads(65_536, 2, start=start) for start in ("kaiming_normal", "linear")
    )
    assert torch.equal(kaiming.weight[0], kaiming.weight[1])
    assert kaiming.weight[0].std().item() == pytest.approx((2 / 65_536) ** 0.5, rel=0.02)
    assert kaiming.weight[0].norm().item() == pytest.approx(2**0.5, rel=0.02)
    assert linear.weight[0].norm().item() == pytest.approx(3**-0.5, rel=0.02)
    with pytest.raises(ValueError, match=r"head_init='xavier'.*kaiming_normal"):
        CosineHeads(4, 1, start="xavier")


def test_free_scores_are_those_of_training() -> None:
    torch.manual_seed(0)
    heads, x = CosineHeads(6, 1), torch.randn(5, 6)
    training = heads.train()(x, 0)
    assert torch.equal(heads.eval().free(x, 0), training)
    assert not torch.equal(heads(x, 0), training)


def test_a_head_that_starts_as_a_ridge_regression_is_scikit_learns() -> None:
    """Unit-norm features, standardised; MOS of deviation 1; without its constant."""
    random = np.random.default_rng(0)
    feature = torch.from_numpy(random.random((40, 12))).float()
    mos = torch.from_numpy(
        30 + 10 * random.standard_normal(40) + 20 * feature[:, 0].numpy()
    ).float()
    heads = CosineHeads(12, 2, start="ridge")
    before = heads.weight[0].clone()
    heads.start_by_ridge(1, feature, mos)

    unit = F.normalize(feature.double(), dim=1).numpy()
    inputs = (unit - unit.mean(axis=0)) / unit.std(axis=0)
    target = (mos.double().numpy() - mos.double().numpy().mean()) / mos.double().numpy().std()
    errors = {}
    for alpha in ALPHAS:  # by leaving images out one after another
        left = []
        for i in range(40):
            others = np.arange(40) != i
            fit = SciRidge(alpha=alpha).fit(inputs[others], target[others])
            left.append((fit.predict(inputs[[i]])[0] - target[i]) ** 2)
        errors[alpha] = np.mean(left)
    fit = SciRidge(alpha=min(errors, key=errors.__getitem__)).fit(inputs, target)
    np.testing.assert_allclose(heads.weight[1].detach(), fit.coef_ / unit.std(axis=0), rtol=1e-4)
    assert torch.equal(heads.weight[0], before)
    with pytest.raises(ValueError, match=r"do not differ; method\.head_init=linear"):
        heads.start_by_ridge(0, feature, torch.full((40,), 50.0))
