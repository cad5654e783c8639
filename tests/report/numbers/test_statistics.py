"""Intervals, tests and variances: against scipy and arithmetic by hand, and right on simulated
data.
"""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iqa_lightning.report.numbers import verdicts
from iqa_lightning.report.numbers.difference import cell_differences
from iqa_lightning.report.numbers.statistics import (
    bootstrap_interval,
    content_weights,
    correlation,
    holm,
    paired_permutation,
    runs_interval,
    t_interval,
    unit_ranks,
    variance_components,
)
from iqa_lightning.report.text import paper

NAN = math.nan


def resampled(x, y, weights) -> np.ndarray:
    return correlation(unit_ranks(x, weights), unit_ranks(y, weights))


# --- bootstrap


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(8, 40), st.sampled_from([3, 1000]))
def test_srcc_of_every_resample_is_that_of_the_repeated_images(
    seed: int, count: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(levels, size=count) / 7, rng.integers(levels, size=count) - 1e6
    weights = content_weights(rng.integers(count // 3, size=count), 12, seed)
    found = resampled(x, y, weights)
    assert (weights[:, 0] == 1).all()
    for b in range(weights.shape[1]):
        again = np.repeat(np.arange(count), weights[:, b])
        if np.ptp(x[again]) > 0 and np.ptp(y[again]) > 0:
            assert found[b] == pytest.approx(
                stats.spearmanr(x[again], y[again]).statistic, abs=1e-12
            )
        else:
            assert math.isnan(found[b])


def test_constant_or_missing_scores_have_no_correlation() -> None:
    weights = content_weights(np.arange(10), 5)
    for scores in (np.ones(10), np.array([NAN, *range(9)]), np.full(10, np.inf)):
        assert np.isnan(resampled(scores, np.arange(10), weights)).all()


def test_a_resample_takes_whole_contents() -> None:
    contents = np.array(["b", "a", "b", "c", "a", "d"])
    weights = content_weights(contents, 500, seed=3)
    for content in "abcd":
        assert (np.ptp(weights[contents == content], axis=0) == 0).all()
    firsts = weights[[0, 1, 3, 5]]
    assert (firsts.sum(axis=0) == 4).all()
    # a content is absent with probability (3/4)^4 = 0.316; three standard errors of 2,000 draws are
    # 0.03
    assert abs((firsts[:, 1:] == 0).mean() - 0.75**4) < 0.03
    assert not np.array_equal(weights, content_weights(contents, 500, seed=4))


def test_few_contents_have_no_interval_and_many_have_the_percentiles() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 3))
    assert np.isnan(bootstrap_interval(draws, 4)).all()
    low, high = bootstrap_interval(draws, 10**6)
    np.testing.assert_allclose(low, np.quantile(draws, 0.025, axis=0), atol=1e-3)
    np.testing.assert_allclose(high, np.quantile(draws, 0.975, axis=0), atol=1e-3)
    wider = bootstrap_interval(draws, 6)
    assert (wider[0] < low).all()
    assert (wider[1] > high).all()


@pytest.mark.parametrize(
    ("contents", "each", "rho", "simulations"),
    [(80, 1, 0.85, 800), (25, 4, 0.8, 800)],
    ids=["images", "contents"],
)
def test_the_interval_covers_the_truth(
    contents: int, each: int, rho: float, simulations: int
) -> None:
    """Of normal pairs the population's Spearman correlation is 6/pi asin(rho/2)."""
    rng, truth = np.random.default_rng(1), 6 / math.pi * math.asin(rho / 2)
    root, group = np.linalg.cholesky([[1, rho], [rho, 1]]), np.repeat(np.arange(contents), each)
    hits, naive = 0, 0
    for simulation in range(simulations):
        shared, own = (
            rng.normal(size=(contents, 2)) @ root.T,
            rng.normal(size=(contents * each, 2)) @ root.T,
        )
        x, y = (math.sqrt(0.85) * shared[group] + math.sqrt(0.15) * own).T
        low, high = bootstrap_interval(
            resampled(x, y, content_weights(group, 200, simulation))[1:], contents
        )
        hits += low <= truth <= high
        if each > 1 and simulation < 200:
            weights = content_weights(np.arange(len(x)), 200, simulation)
            low, high = bootstrap_interval(resampled(x, y, weights)[1:], len(x))
            naive += low <= truth <= high
    assert 0.93 <= hits / simulations <= 0.97
    assert naive / 200 < 0.90  # which is why contents are drawn


# --- runs


def test_a_t_interval() -> None:
    # mean 3, standard deviation sqrt(2.5), t quantile of 4 degrees of freedom 2.7764
    mean, low, high, n = t_interval([1, 2, NAN, 3, 4, 5])
    assert (mean, n) == (3, 5)
    assert high - 3 == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-6)
    assert 3 - low == pytest.approx(high - 3)


def test_one_run_has_no_interval() -> None:
    for values, n in (([0.7], 1), ([0.7, NAN], 1), ([], 0), ([NAN], 0)):
        found = t_interval(values)
        assert found.n == n
        assert found.mean == 0.7 if n else math.isnan(found.mean)
        assert math.isnan(found.low)
        assert math.isnan(found.high)


# --- tests between methods


def test_three_blocks_by_hand() -> None:
    # differences 3, 1, 2: of the 8 sign patterns only two reach a sum of 6
    first, second = (
        {"x": [5.0], "y": [2.0], "z": [4.0]},
        {"x": [2.0], "y": [1.0], "z": [2.0], "w": [9.0]},
    )
    assert paired_permutation(first, second) == (2.0, 0.25, 3)
    assert paired_permutation(second, first) == (-2.0, 0.25, 3)


def test_one_block_of_three_seeds_by_hand() -> None:
    # C(6, 3) = 20 labellings, the observed and its mirror image are the most extreme
    assert paired_permutation({0: [4.0, 5.0, 6.0]}, {0: [1.0, 2.0, 3.0]}) == (3.0, 0.1, 1)


def test_sign_flips_agree_with_scipy() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(0.4, 1, 12), rng.normal(0, 1, 12)
    found = paired_permutation({i: [x] for i, x in enumerate(a)}, {i: [x] for i, x in enumerate(b)})
    expected = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)
    many = rng.normal(0.25, 1, 60)  # too many to count: drawn
    drawn = paired_permutation({i: [x] for i, x in enumerate(many)}, {i: [0.0] for i in range(60)})
    assert drawn.p == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.01)


def test_without_a_common_block_there_is_no_test() -> None:
    difference, p, blocks = paired_permutation({"x": [1.0]}, {"y": [1.0]})
    assert math.isnan(difference)
    assert math.isnan(p)
    assert blocks == 0


@pytest.mark.parametrize(("blocks", "seeds"), [(8, 1), (3, 3)])
def test_no_difference_is_found_in_one_of_twenty(blocks: int, seeds: int) -> None:
    """Methods that differ by seed only: large effects of order and split, none of the method."""
    rng, found = np.random.default_rng(5), []
    for _ in range(3000):
        values = rng.normal(0, 1, (blocks, 1)) + rng.normal(0, 0.3, (blocks, 2 * seeds))
        first, second = (dict(enumerate(half.tolist())) for half in np.split(values, 2, axis=1))
        found.append(paired_permutation(first, second).p)
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.01)


def test_runs_that_differ_by_seed_only_are_not_distinguishable() -> None:
    """Three methods that are one, in a table: Holm bounds the chance that any two of them are said
    to differ.
    """
    rng, said, names = np.random.default_rng(11), [], ("x", "y", "z")
    rows = pd.DataFrame(
        itertools.product(names, "ab", range(4)), columns=["method", "order", "split"]
    )
    rows = rows.assign(measure="msrcc", readout="single")
    for _ in range(400):
        block = rng.normal(0, 1, 8)
        found = verdicts.tests(rows.assign(value=np.tile(block, 3) + rng.normal(0, 0.3, 24)))
        said.append("differ |" in "\n".join(paper.tests_part(found)))
    assert len(found[found["measure"] == "msrcc"]) == 3
    assert np.mean(said) <= 0.06
    assert "not distinguishable |" in "\n".join(paper.tests_part(found))
    apart = verdicts.tests(
        rows.assign(value=np.repeat([0.0, 5.0, 9.0], 8) + rng.normal(0, 0.3, 24))
    )
    assert "\n".join(paper.tests_part(apart)).count("differ |") == 3


def test_cells_of_two_runs_that_differ_by_seed_only_are_not_distinguishable() -> None:
    """The paired bootstrap of `diff`: of one quality with other noise, one cell in twenty is said
    to differ.

    With 100 resamples instead of 1,000 it would be one in thirteen.
    """
    rng, said = np.random.default_rng(12), []
    for _ in range(100):
        base = pd.DataFrame(
            {
                "dataset": np.repeat(list("abcdefgh"), 60),
                "split": "test",
                "mos": rng.normal(size=480),
            }
        )
        base["image"] = [str(i) for i in range(480)]
        runs = [{"start": base.assign(single=base["mos"] + rng.normal(size=480))} for _ in range(2)]
        said += list(cell_differences(*runs)["at 5 %"])
    assert set(said) == {"differ", "not distinguishable"}
    assert np.mean(np.array(said) == "differ") == pytest.approx(0.05, abs=0.01)
    worse = {"start": base.assign(single=base["mos"] + 4 * rng.normal(size=480))}
    assert (cell_differences(runs[0], worse)["at 5 %"] == "differ").all()


def test_a_real_difference_is_found_through_the_noise_of_blocks() -> None:
    rng = np.random.default_rng(6)
    block = rng.normal(0, 1, 8)
    better, worse = block + 0.3 + rng.normal(0, 0.1, 8), block + rng.normal(0, 0.1, 8)
    first, second = ({i: [value] for i, value in enumerate(values)} for values in (better, worse))
    assert paired_permutation(first, second).p <= 0.05
    assert stats.ttest_ind(better, worse).pvalue > 0.05


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .06 with the running maximum
    assert holm([0.02, NAN, 0.01, 0.04, 0.03]) == pytest.approx(
        [0.06, NAN, 0.04, 0.06, 0.06], nan_ok=True
    )
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# --- variance


def crossed(orders: int, splits: int, seeds: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        itertools.product(range(orders), range(splits), range(seeds)),
        columns=["order", "split", "seed"],
    )


def test_components_equal_the_analysis_of_variance() -> None:
    rng, table = np.random.default_rng(7), crossed(4, 5)
    y = (rng.normal(0, 3, (4, 1)) + rng.normal(0, 2, (1, 5)) + rng.normal(0, 1, (4, 5))).ravel()
    cells = y.reshape(4, 5)
    rows, columns, mean = cells.mean(1, keepdims=True), cells.mean(0, keepdims=True), cells.mean()
    rest = ((cells - rows - columns + mean) ** 2).sum() / 12
    expected = {"order": (5 * ((rows - mean) ** 2).sum() / 3 - rest) / 5}
    expected |= {"split": (4 * ((columns - mean) ** 2).sum() / 4 - rest) / 4, "rest": rest}
    assert min(expected.values()) > 0
    assert variance_components(y, table[["order", "split"]]) == pytest.approx(expected, rel=1e-6)


def test_components_are_those_of_the_simulation_even_with_missing_runs() -> None:
    rng, table, found = np.random.default_rng(8), crossed(6, 6, 2), []
    for _ in range(300):
        order, split = rng.normal(0, math.sqrt(0.5), 6), rng.normal(0, 1, 6)
        y = order[table["order"]] + split[table["split"]] + rng.normal(0, 0.5, len(table))
        kept = rng.random(len(table)) < 0.8
        found.append(variance_components(y[kept], table.loc[kept, ["order", "split"]]))
    means = pd.DataFrame(found).mean()
    assert means["order"] == pytest.approx(0.5, abs=0.08)
    assert means["split"] == pytest.approx(1.0, abs=0.12)
    assert means["rest"] == pytest.approx(0.25, abs=0.02)


def test_an_interval_of_crossed_runs_by_hand() -> None:
    """Mean squares of a 3 x 4 table without repetition: the variance of the mean is (MSo + MSs -
    MSr) / 12.
    """
    rng, table = np.random.default_rng(9), crossed(3, 4)
    cells = rng.normal(0, 2, (3, 1)) + rng.normal(0, 3, (1, 4)) + rng.normal(0, 1, (3, 4))
    rows, columns, mean = cells.mean(1, keepdims=True), cells.mean(0, keepdims=True), cells.mean()
    order, split = 4 * ((rows - mean) ** 2).sum() / 2, 3 * ((columns - mean) ** 2).sum() / 3
    rest = ((cells - rows - columns + mean) ** 2).sum() / 6
    assert min(order, split) > rest
    variance = (order + split - rest) / 12
    freedom = variance**2 / ((order / 12) ** 2 / 2 + (split / 12) ** 2 / 3)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    found = runs_interval(cells.ravel(), table[["order", "split"]])
    assert found == pytest.approx((mean, mean - half, mean + half, 12), rel=1e-6)


def test_runs_of_one_order_have_a_plain_t_interval() -> None:
    table = pd.DataFrame({"order": "a", "split": [1, 2, 3, 4]})
    assert runs_interval([1.0, 4.0, NAN, 2.0], table) == t_interval([1.0, 4.0, 2.0])
    assert runs_interval([0.5], table[:1]).n == 1
    assert runs_interval([NAN], table[:1]).n == 0


@pytest.mark.parametrize("shape", [(4, 3, 1), (1, 6, 3)])
def test_an_interval_of_crossed_runs_covers_the_truth(shape: tuple[int, int, int]) -> None:
    rng, table, hits, naive = np.random.default_rng(10), crossed(*shape), 0, 0
    for _ in range(500):
        order, split = rng.normal(0, 0.7 * (shape[0] > 1), shape[0]), rng.normal(0, 1, shape[1])
        y = order[table["order"]] + split[table["split"]] + rng.normal(0, 0.5, len(table))
        _, low, high, _ = runs_interval(y, table[["order", "split"]])
        hits += low <= 0 <= high
        _, low, high, _ = t_interval(y)
        naive += low <= 0 <= high
    assert 0.93 <= hits / 500 <= 0.98  # on the wide side by construction
    assert naive / 500 < 0.85


def test_what_runs_cannot_tell_is_not_told() -> None:
    seeds = variance_components(
        [1.0, 2.0, 4.0], pd.DataFrame({"order": [0, 0, 0], "split": [1, 1, 1]})
    )
    assert math.isnan(seeds["order"])
    assert math.isnan(seeds["split"])
    assert seeds["rest"] == pytest.approx(np.var([1, 2, 4], ddof=1))
    together = variance_components(
        [1.0, 2.0, 4.0], pd.DataFrame({"order": [0, 1, 2], "split": [1, 2, 3]})
    )
    assert all(math.isnan(value) for value in together.values())
    assert all(
        math.isnan(v)
        for v in variance_components([1.0], pd.DataFrame({"order": [0], "split": [0]})).values()
    )
