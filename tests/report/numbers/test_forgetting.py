"""Pair flips against a naive double loop, forgetting of images and groups against arithmetic by
hand.
"""

import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iqa_lightning.report.numbers import forgetting
from iqa_lightning.report.numbers.forgetting import (
    forgetting_by,
    image_changes,
    pair_flips,
    worst_forgotten,
)


def records(mos, scores: dict[str, list[float]], **columns) -> dict[str, pd.DataFrame]:
    """Predictions of the data set `a` after each task, beside rows that must not count: val and
    other data sets.
    """
    base = pd.DataFrame(
        {
            "dataset": "a",
            "split": "test",
            "image": [f"{i:02d}" for i in range(len(mos))],
            "mos": mos,
        }
    )
    base = base.assign(**columns)
    others = [
        base[:3].assign(dataset=name, mos=[3.0, 1, 2][: len(mos)])
        for name in sorted({*scores, "b"} - {"a"})
    ]
    found = {}
    for t, values in {"start": np.zeros(len(mos)), **scores}.items():
        part = base.assign(single=np.asarray(values, np.float32))
        val = part.assign(split="val", single=-part["single"])
        found[t] = pd.concat([part, val, *(other.assign(single=0.5) for other in others)])
    return found


def naive(mos, std, before, now, agreement: float) -> tuple[int, int, int, int]:
    pairs = right = flipped = repaired = 0
    for i in range(len(mos)):
        for j in range(len(mos)):
            if mos[i] <= mos[j]:
                continue
            noise = math.hypot(*(0.0 if math.isnan(std[k]) else std[k] for k in (i, j)))
            if noise and NormalDist().cdf((mos[i] - mos[j]) / noise) < agreement:
                continue
            then, later = before[i] > before[j], now[i] > now[j]
            pairs, right = pairs + 1, right + then
            flipped, repaired = flipped + (then and not later), repaired + (later and not then)
    return pairs, right, flipped, repaired


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**31),
    st.integers(2, 25),
    st.sampled_from([0.6, 0.75, 0.9]),
    st.sampled_from([7, 10**6]),
)
def test_flips_are_those_of_a_double_loop(
    seed: int, count: int, agreement: float, block: int
) -> None:
    rng = np.random.default_rng(seed)
    mos, std = rng.integers(0, 40, count) / 2, rng.uniform(0, 6, count)
    std[rng.random(count) < 0.2] = math.nan
    levels = rng.integers(0, 6, (3, count)).astype(float)  # with ties
    tables = records(mos, dict(zip(("a", "b", "c"), levels, strict=True)), mos_std=std)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forgetting, "BLOCK", block)
        found = pair_flips(tables, "single", agreement)
    rows = found[found["dataset"] == "a"].set_index("after")
    assert list(rows.index) == ["b", "c"]
    for after, now in (("b", levels[1]), ("c", levels[2])):
        expected = naive(mos, std, levels[0], now, agreement)
        assert tuple(rows.loc[after, ["pairs", "right", "flipped", "repaired"]]) == expected
        rate = rows.loc[after, "rate"]
        assert rate == pytest.approx(expected[2] / expected[1]) if expected[1] else math.isnan(rate)


def test_three_images_by_hand() -> None:
    # pairs (2,1) (3,1) (3,2): right, right, wrong after a; after b the first is turned, the last
    # repaired
    tables = records([1, 2, 3], {"a": [0.1, 0.9, 0.8], "b": [0.5, 0.4, 0.6]})
    row = pair_flips(tables, "single").set_index("dataset").loc["a"]
    assert tuple(row[["images", "noise_known", "pairs", "right", "flipped", "repaired"]]) == (
        3,
        0,
        3,
        2,
        1,
        1,
    )
    assert row["rate"] == 0.5


def test_noise_hides_pairs_and_unknown_noise_none() -> None:
    """z of 0.75 is 0.6745: with deviations of 3 and 4 a difference of 3.37 is too small, 3.38 is
    not.
    """
    for gap, pairs in ((3.37, 0), (3.38, 1)):
        tables = records([10, 10 + gap], {"a": [0, 1], "b": [1, 0]}, mos_std=[3.0, 4.0])
        row = pair_flips(tables, "single").iloc[0]
        assert (row["pairs"], row["noise_known"]) == (pairs, 1)
        assert row["rate"] == 1 if pairs else math.isnan(row["rate"])
    tables = records([10, 10.001], {"a": [0, 1], "b": [1, 0]}, mos_std=[math.nan, math.nan])
    assert pair_flips(tables, "single").iloc[0]["pairs"] == 1


def test_a_constant_model_has_lost_every_pair_and_missing_scores_have_no_rate() -> None:
    tables = records([1, 2, 3], {"a": [1, 2, 3], "b": [5, 5, 5], "c": [math.nan, 1, 2]})
    rates = pair_flips(tables, "single").set_index(["dataset", "after"])["rate"]["a"]
    assert rates["b"] == 1
    assert math.isnan(rates["c"])


def test_nothing_is_forgotten_where_nothing_follows() -> None:
    tables = records([1, 2, 3], {"a": [1, 2, 3]})
    assert pair_flips(tables, "single").empty
    assert worst_forgotten(tables, "single").empty
    assert forgetting_by(tables, "single", "band").empty


def test_changes_of_images_by_hand() -> None:
    tables = records([10, 20, 30, 40], {"a": [1, 2, 3, 4], "b": [4, 2, 3, 1]})
    found = image_changes(tables, "single")
    assert list(found["dataset"]) == ["a"] * 4  # b is learnt last, and nothing follows
    np.testing.assert_allclose(found["rank_mos"], [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(found["error_before"], 0)
    np.testing.assert_allclose(found["growth"], [0.75, 0, 0, 0.75])
    worst = worst_forgotten(tables, "single")
    assert list(worst["image"]) == [
        "00",
        "03",
    ]  # a tie is in the order of names; images that did not get worse are not
    assert list(worst_forgotten(tables, "single", 1)["image"]) == ["00"]


def test_the_worst_images_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(3)
    tables = records(
        np.arange(30.0),
        {"a": np.arange(30.0), "b": rng.integers(0, 5, 30), "c": rng.integers(0, 5, 30)},
    )
    order = rng.permutation(len(tables["a"]))
    shuffled = {
        after: frame.iloc[order].sort_values("dataset", kind="stable")
        for after, frame in tables.items()
    }
    one, other = worst_forgotten(tables, "single", 12), worst_forgotten(shuffled, "single", 12)
    assert list(one["image"]) == list(other["image"])
    assert (np.diff(one["growth"]) <= 1e-9).all()


def test_bands_are_fifths() -> None:
    rng = np.random.default_rng(4)
    mos = rng.permutation(20) ** 2.0
    tables = records(mos, {"a": mos, "b": -mos})
    found = image_changes(tables, "single")
    assert list(found.sort_values("mos")["band"]) == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4
    rows = forgetting_by(tables, "single", "band", 50).set_index("group")
    # turned round, an image of rank r moves by |1 - 2 r|: ranks .025 .075 .125 .175 in the first
    # band
    assert rows.loc["1", "growth"] == pytest.approx(np.mean([0.95, 0.85, 0.75, 0.65]))
    assert rows.loc["3", "growth"] == pytest.approx(np.mean([0.15, 0.05, 0.05, 0.15]))
    assert (rows.loc["5", "srcc_before"], rows.loc["5", "srcc_after"]) == pytest.approx((1, -1))


def test_groups_by_distortion_with_intervals_by_content() -> None:
    rng = np.random.default_rng(5)
    mos, kinds = rng.uniform(0, 100, 60), np.array(["blur", "noise", ""])[np.arange(60) % 3]
    contents = [f"r{i // 6}" for i in range(60)]
    after = np.where(kinds == "noise", rng.uniform(0, 100, 60), mos)
    labels = {"image/distortion": kinds, "image/reference": contents}
    tables = records(mos, {"a": mos, "b": after}, **labels)
    rows = forgetting_by(tables, "single", "distortion").set_index("group")
    assert list(rows.index) == ["blur", "noise"]
    changes = image_changes(tables, "single")
    for kind in rows.index:
        part = changes[changes["image/distortion"] == kind]
        assert tuple(rows.loc[kind, ["n", "contents"]]) == (20, 10)
        assert rows.loc[kind, "growth"] == pytest.approx(part["growth"].mean())
    assert rows.loc["noise", "srcc_before"] == 1
    expected = stats.spearmanr(mos[kinds == "noise"], after[kinds == "noise"]).statistic
    assert rows.loc["noise", "srcc_after"] == pytest.approx(expected)
    # the t interval of the means of contents, which are all of one size
    means = (
        changes[changes["image/distortion"] == "noise"].groupby("image/reference")["growth"].mean()
    )
    low, high = stats.t.interval(0.95, 9, means.mean(), stats.sem(means))
    assert (rows.loc["noise", "low"], rows.loc["noise", "high"]) == pytest.approx(
        (low, high), abs=0.03
    )


def test_an_image_counts_in_each_of_its_scenes() -> None:
    scenes = ["city", "city+night", "night", "", "city", "night"]
    tables = records(
        np.arange(6.0), {"a": np.arange(6.0), "b": np.arange(6.0)}, **{"image/scene": scenes}
    )
    rows = forgetting_by(tables, "single", "scene", 20).set_index("group")
    assert dict(rows["n"]) == {"city": 3, "night": 3}
    assert rows["low"].isna().all()  # three contents have no interval
    assert forgetting_by(tables, "single", "distortion").empty
    with pytest.raises(
        ValueError, match="by='mood': forgetting is grouped by one of band, distortion, scene"
    ):
        forgetting_by(tables, "single", "mood")


def test_two_thousand_images_take_a_moment() -> None:
    from time import process_time

    rng = np.random.default_rng(6)
    mos = rng.normal(size=2000)
    tables = records(
        mos, {task: mos + rng.normal(size=2000) for task in ("a", "b", "c", "d")}, mos_std=0.3
    )
    start = process_time()
    assert len(pair_flips(tables, "single")) == 6
    assert process_time() - start < 8  # 0.4 s on an idle core
