"""Intervals, tests and variances over splits: against scipy and hand arithmetic, and right on
simulated data: one finite data set that is split again and again.
"""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from iqa_lightning.metrics import splits as split_rules
from iqa_lightning.metrics.splits import CLIP, RHO, split_interval
from iqa_lightning.report.numbers import verdicts
from iqa_lightning.report.numbers.statistics import (
    compare,
    components,
    detectable_effect,
    holm,
    image_interval,
    interaction,
    mean_of_sets,
    split_means,
)
from iqa_lightning.report.text import paper

NAN = math.nan
REPETITIONS = 2000
IMAGES, TRAIN, TEST = 324, 227, 65  # 70/10/20 of the size of a small data set


def finite_set(
    rng: np.random.Generator, splits: int, orders: int = 1, interaction: float = 0.0
) -> np.ndarray:
    """Differences of two equal methods in each split of one finite data set, (repetitions, splits).

    A method is a sum over training images (what it learnt of them) and test images (how hard they
    are for it), of one population; each repetition is another data set of it. So splits share what
    they share in images, as in the field's protocol. `interaction` is noise of a method in a split,
    which orders do not average away; orders add noise of their own, which they do.
    """
    found = np.empty((REPETITIONS, splits))
    for block in range(0, REPETITIONS, 500):
        learnt = rng.normal(size=(500, IMAGES))
        hard = rng.normal(size=(500, IMAGES))
        for k in range(splits):
            order = np.argsort(rng.random((500, IMAGES)), axis=1)
            train = np.take_along_axis(learnt, order[:, :TRAIN], axis=1).mean(axis=1)
            test = np.take_along_axis(hard, order[:, -TEST:], axis=1).mean(axis=1)
            noise = 0.05 * rng.normal(size=(500, orders)).mean(axis=1)
            own = interaction * rng.normal(size=500)
            # the training part matters less than the test part: a model is an average of it
            found[block : block + 500, k] = 0.25 * train + test + noise + own
    return found


def corrected(x: np.ndarray) -> np.ndarray:
    """p of the test in each repetition, as `compare` has it."""
    scale = np.sqrt(1 / x.shape[1] + RHO) * x.std(axis=1, ddof=1)
    return 2 * stats.t.sf(np.abs(x.mean(axis=1)) / scale, x.shape[1] - 1)


def naive(x: np.ndarray) -> np.ndarray:
    """The old estimator: splits taken as independent."""
    return np.asarray(stats.ttest_1samp(x, 0, axis=1).pvalue)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("splits", "orders", "own"),
    [(5, 1, 0.0), (10, 1, 0.0), (5, 4, 0.0), (10, 4, 0.0), (5, 4, 0.05), (10, 1, 0.05)],
)
def test_splits_of_one_data_set_are_judged_right_and_naively_wrong(
    splits: int, orders: int, own: float
) -> None:
    """Equal methods are said to differ in 3 to 7 %, so the interval covers in 93 to 97 %."""
    x = finite_set(np.random.default_rng([splits, orders]), splits, orders, own)
    p = corrected(x)
    assert 0.03 <= np.mean(p <= 0.05) <= 0.07
    for row, expected in list(zip(x, p, strict=True))[:50]:
        assert compare(row, RHO).p == pytest.approx(expected, rel=1e-9)
    intervals = np.array([split_interval(row, RHO, "bwt") for row in x])
    assert 0.93 <= np.mean((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)) <= 0.97
    # the control: the same draws, taken as independent
    assert np.mean(naive(x) <= 0.05) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("splits", [5, 10])
def test_correlations_of_a_resplit_set_are_covered(splits: int) -> None:
    """SRCC of one finite set in each of its test parts: the population's value is held by 93 to
    97 %; by the naive interval by far fewer.
    """
    rng, rho, hits, old = np.random.default_rng(splits), 0.8, 0, 0
    truth = 6 / math.pi * math.asin(rho / 2)
    for _ in range(REPETITIONS):
        x, noise = rng.normal(size=(2, IMAGES))
        y = rho * x + math.sqrt(1 - rho**2) * noise
        parts = np.argsort(rng.random((splits, IMAGES)), axis=1)[:, :TEST]
        ranks = (np.argsort(np.argsort(side[parts], axis=1), axis=1) for side in (x, y))
        a, b = (rank - (TEST - 1) / 2 for rank in ranks)
        cells = (a * b).sum(axis=1) / (a**2).sum(axis=1)
        low, high = split_interval(cells, RHO)
        hits += low <= truth <= high
        half = stats.t.ppf(0.975, splits - 1) * cells.std(ddof=1) / math.sqrt(splits)
        old += abs(cells.mean() - truth) <= half
    assert 0.93 <= hits / REPETITIONS <= 0.98
    assert old / REPETITIONS < 0.9


# --- intervals


def test_an_interval_over_five_splits_by_hand() -> None:
    x = np.array([0.5, 0.6, 0.55, 0.7, 0.65])
    z = [0.5 * math.log((1 + v) / (1 - v)) for v in x]
    mean = sum(z) / 5
    half = 2.776445 * math.sqrt((1 / 5 + 2 / 7) * sum((v - mean) ** 2 for v in z) / 4)
    assert split_interval(x, 2 / 7) == pytest.approx(
        (math.tanh(mean - half), math.tanh(mean + half)), rel=1e-6
    )
    low, high = split_interval(x, 2 / 7, "forgetting")
    half = 2.776445 * math.sqrt((1 / 5 + 2 / 7) * np.var(x, ddof=1))
    assert (low, high) == pytest.approx((0.6 - half, 0.6 + half), rel=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_few_splits_have_no_interval_and_no_test(count: int) -> None:
    assert all(map(math.isnan, split_interval([0.1 * i for i in range(count)], RHO)))
    found = compare(np.arange(count), RHO)
    assert (found.splits, math.isnan(found.p), math.isnan(found.above)) == (count, True, True)


@given(
    st.lists(st.floats(-1, 1), min_size=5, max_size=12),
    st.floats(0.01, 2),
    st.sampled_from(["msrcc", "srcc/a", "msi", "area", "fwt", "bwt", "forgetting"]),
)
def test_no_bound_leaves_what_a_measure_can_be(
    values: list[float], rho: float, measure: str
) -> None:
    low, high = split_interval(values, rho, measure)
    limit = {"bwt": 2, "forgetting": 2}.get(measure, 1)
    assert -limit <= low <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= high <= limit
    runs = pd.DataFrame({"split": range(len(values)), "value": values, "low": -1.0, "high": 1.0})
    low, high = image_interval(runs, rho)
    assert -1 - 1e-12 <= low <= high <= 1 + 1e-12


def test_values_next_to_one_keep_their_mean_inside() -> None:
    assert split_interval([1.0] * 6, RHO) == (1.0, 1.0)
    low, high = split_interval([*[1.0] * 9, 0.964], RHO)
    assert low <= np.mean([*[1.0] * 9, 0.964]) <= high <= 1
    assert CLIP < 1


def test_orders_and_seeds_are_averaged_within_a_split() -> None:
    assert list(split_means([1.0, 3.0, NAN, 5.0, NAN], [2, 2, 2, 1, 3])) == [2.0, 5.0]


def test_image_sampling_of_a_mean_over_splits_by_hand() -> None:
    """Two splits whose distances are .1 and .2 below: independent, .5 sqrt(.01 + .04); if they were
    the same images, .15.
    """
    runs = pd.DataFrame(
        {"split": [1, 2], "value": [0.5, 0.7], "low": [0.4, 0.5], "high": [0.55, 0.8]}
    )
    assert image_interval(runs, 0.0)[0] == pytest.approx(0.6 - 0.5 * math.sqrt(0.05))
    assert image_interval(runs, 1e9)[0] == pytest.approx(0.6 - 0.15)
    again = pd.concat([runs, runs])  # another order on the same images adds no information
    assert image_interval(again, RHO) == pytest.approx(image_interval(runs, RHO))
    assert image_interval(runs[:1], RHO) == pytest.approx((0.4, 0.55))
    assert all(map(math.isnan, image_interval(runs.assign(low=[0.4, NAN]), RHO)))


@pytest.mark.slow
def test_the_interval_of_image_sampling_covers_for_two_and_three_splits() -> None:
    """The mean over test parts of one set, each with Bonett and Wright's interval."""
    rng, truth = np.random.default_rng(4), 6 / math.pi * math.asin(0.4)
    for splits in (2, 3):
        hits = 0
        for _ in range(500):
            x = rng.normal(size=(2, IMAGES))
            x[1] = 0.8 * x[0] + 0.6 * x[1]
            rows = []
            for split in range(splits):
                part = rng.permutation(IMAGES)[:TEST]
                r = stats.spearmanr(x[0][part], x[1][part]).statistic
                error = 1.96 * math.sqrt((1 + r * r / 2) / (TEST - 3))
                bounds = math.tanh(math.atanh(r) - error), math.tanh(math.atanh(r) + error)
                rows.append([split, r, *bounds])
            frame = pd.DataFrame(rows, columns=["split", "value", "low", "high"])
            low, high = image_interval(frame, RHO)
            hits += low <= truth <= high
        assert 0.93 <= hits / 500 <= 0.98


def test_the_mean_of_sets_by_hand() -> None:
    cells = pd.DataFrame(
        {
            "value": [0.2, 0.6],
            "low": [-0.1, 0.2],
            "high": [0.5, 0.9],
            "image_variance": [0.02, 0.04],
        }
    )
    assert mean_of_sets(cells) == pytest.approx((0.4, 0.4 - 0.25, 0.4 + math.sqrt(0.18) / 2, 0.015))
    assert all(map(math.isnan, mean_of_sets(cells[:0])))


# --- tests


def test_both_tests_against_scipy() -> None:
    d = np.array([0.02, 0.05, -0.01, 0.03, 0.04, 0.01])
    found, scale = compare(d, RHO), math.sqrt((1 / 6 + 2 / 7) * np.var(d, ddof=1))
    posterior = stats.t(5, loc=d.mean(), scale=scale)
    assert found.p == pytest.approx(2 * stats.t.sf(d.mean() / scale, 5))
    assert (found.below, found.above) == pytest.approx((posterior.cdf(-0.01), posterior.sf(0.01)))
    assert found.below + found.equal + found.above == pytest.approx(1)
    assert (found.low, found.high) == pytest.approx(posterior.interval(0.95))
    mirrored = compare(-d, RHO)
    assert (mirrored.below, mirrored.above) == pytest.approx((found.above, found.below))
    same = compare(np.zeros(5), RHO)
    assert (same.p, same.equal) == (1, 1)


def test_the_detectable_difference_is_found_in_80_percent() -> None:
    rng, splits = np.random.default_rng(3), 6
    effect = detectable_effect(splits)
    x = rng.normal(effect / math.sqrt(splits), 1, (20_000, splits))
    assert np.mean(stats.ttest_1samp(x, 0, axis=1).pvalue <= 0.05) == pytest.approx(0.8, abs=0.01)
    found = compare([0.01, 0.02, 0.04, 0.02, 0.03, 0.05], RHO)
    scale = math.sqrt((1 / 6 + 2 / 7) * np.var([0.01, 0.02, 0.04, 0.02, 0.03, 0.05], ddof=1))
    assert found.detectable == pytest.approx(effect * scale)


def table(values: np.ndarray, methods: str, measure: str = "msrcc") -> pd.DataFrame:
    """Rows of runs from (splits, methods)."""
    rows = [
        {"method": name, "order": "a>b", "split": split, "seed": 0, "readout": "single"}
        | {"measure": measure, "value": values[split, m], "image_variance": 0.0}
        for split in range(len(values))
        for m, name in enumerate(methods)
    ]
    return pd.DataFrame(rows)


def test_a_real_difference_is_found_and_said() -> None:
    rng = np.random.default_rng(6)
    split = rng.normal(0.5, 0.1, (10, 1))
    values = split + np.array([0.0, 0.2, 0.2]) + rng.normal(0, 0.01, (10, 3))
    found = (
        verdicts.pair_tests(table(values, "xyz"))
        .set_index(["measure", "first", "second"])
        .sort_index()
    )
    msrcc = found.loc["msrcc"]
    assert list(msrcc["said"]) == ["differ", "differ", "not distinguishable"]
    assert msrcc.loc[("x", "y"), "worse"] > 0.99
    assert msrcc.loc[("x", "y"), "difference"] == pytest.approx(
        (values[:, 0] - values[:, 1]).mean()
    )
    expected = min(1, 3 * msrcc["p"].min())
    assert msrcc["p_holm"].min() == pytest.approx(expected)
    text = "\n".join(paper.tests_part(found.reset_index()))
    assert text.count("| differ |") == 2
    assert "80 % of cases" in text
    lower = verdicts.pair_tests(table(values, "xyz", "forgetting")).iloc[-3]
    assert (lower["first"], lower["second"], lower["better"] > 0.99) == ("x", "y", True)


def test_below_five_splits_nothing_is_said_to_differ() -> None:
    values = np.array([[0.1, 0.9]] * 4) + np.random.default_rng(0).normal(0, 0.01, (4, 2))
    found = verdicts.pair_tests(table(values, "xy"))
    assert set(found[found["splits"] > 0]["said"]) == {"no test below 5 splits"}
    assert found["p"].isna().all()
    assert "No two methods share 5 splits" in "\n".join(paper.tests_part(found))


def test_what_is_constant_by_construction_is_not_tested() -> None:
    values = np.column_stack([np.linspace(0.8, 0.9, 6), np.ones(6), np.linspace(0.7, 0.95, 6)])
    found = verdicts.pair_tests(table(values, "xjy", "msi")).set_index(
        ["measure", "first", "second"]
    )
    found = found.sort_index()
    said = found.loc["msi", "said"]
    assert said[("x", "j")] == said[("j", "y")] == "constant by construction"
    assert said[("x", "y")] == "not distinguishable"
    assert found.loc[("msi", "x", "y"), "p_holm"] == found.loc[("msi", "x", "y"), "p"]


def test_pairs_are_compared_in_the_orders_that_both_have() -> None:
    rows = table(np.array([[0.5, 0.6]] * 5), "xy")
    more = rows[rows["method"] == "x"].assign(order="b>a", value=0.9)
    found = verdicts.pair_tests(pd.concat([rows, more])).iloc[0]
    assert found["difference"] == pytest.approx(-0.1)
    joint = rows.assign(order=np.where(rows["method"] == "y", "a+b", "a>b"))
    assert verdicts.pair_tests(joint).iloc[0]["difference"] == pytest.approx(-0.1)


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
    rng, runs = np.random.default_rng(7), crossed(4, 5)
    y = (rng.normal(0, 3, (4, 1)) + rng.normal(0, 2, (1, 5)) + rng.normal(0, 1, (4, 5))).ravel()
    cells = y.reshape(4, 5)
    rows, columns, mean = cells.mean(1, keepdims=True), cells.mean(0, keepdims=True), cells.mean()
    rest = ((cells - rows - columns + mean) ** 2).sum() / 12
    found = components(y, runs)
    assert found.order == pytest.approx((5 * ((rows - mean) ** 2).sum() / 3 - rest) / 5)
    assert found.split == pytest.approx((4 * ((columns - mean) ** 2).sum() / 4 - rest) / 4)
    assert found.rest == pytest.approx(rest)
    assert math.isnan(found.seed)


def test_components_are_those_of_the_simulation_even_with_missing_runs() -> None:
    rng, runs, found = np.random.default_rng(8), crossed(6, 6, 2), []
    for _ in range(300):
        order, split = rng.normal(0, math.sqrt(0.5), 6), rng.normal(0, 1, 6)
        y = order[runs["order"]] + split[runs["split"]] + rng.normal(0, 0.5, len(runs))
        kept = rng.random(len(runs)) < 0.8
        found.append(components(y[kept], runs[kept]))
    means = pd.DataFrame(found).mean()
    assert means["order"] == pytest.approx(0.5, abs=0.08)
    assert means["split"] == pytest.approx(1.0, abs=0.12)
    assert means["seed"] == pytest.approx(0.25, abs=0.02)
    assert means["rest"] == pytest.approx(0.25, abs=0.02)


def test_what_runs_cannot_tell_is_not_told() -> None:
    seeds = components([1.0, 2.0, 4.0], crossed(1, 1, 3))
    assert seeds.seed == pytest.approx(np.var([1, 2, 4], ddof=1))
    assert math.isnan(seeds.split)
    assert math.isnan(seeds.order)
    together = pd.DataFrame({"order": [0, 1, 2], "split": [1, 2, 3], "seed": 0})
    assert all(map(math.isnan, components([1.0, 2.0, 4.0], together)))
    assert all(map(math.isnan, components([1.0], together[:1])))


def test_method_by_split_by_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(2)
    found = []
    for _ in range(400):
        x = rng.normal(0, 1, (8, 1)) + rng.normal(0, 0.5, (8, 4)) + np.arange(4)
        found.append(interaction(x))
    split, own = np.mean(found, axis=0)
    assert (split, own) == pytest.approx((1.0, 0.25), abs=0.08)
    assert interaction(np.array([[1.0, 2.0], [3.0, 5.0]])) == pytest.approx((3.0, 0.25))
    assert all(map(math.isnan, interaction(np.ones((1, 3)))))


def test_a_component_below_its_floor_is_said_to_be_and_never_zero() -> None:
    assert paper.spread(0.0004, 0.001) == "not above its floor"
    assert paper.spread(-0.1) == paper.spread(0.0) == "not above its floor"
    assert paper.spread(0.0004, 0.0001) == "0.0200"
    assert paper.spread(NAN) == "-"
    assert split_rules.FEWEST_SPLITS == 5


def test_a_bootstrap_that_misses_its_value_leads_no_interval_out_of_the_measure() -> None:
    """The percentiles of a resampled SRCC may both lie below the SRCC of the sample."""
    runs = pd.DataFrame({"split": [1, 2], "value": 0.999, "low": 0.9, "high": 0.96})
    low, high = image_interval(runs, 2 / 7)
    assert low < 0.999 <= high <= 1
    sets = pd.DataFrame({"value": [0.999] * 2, "low": 0.9, "high": 0.96, "image_variance": 0.0})
    mean, low, high, _ = mean_of_sets(sets)
    assert low < mean <= high <= 1
