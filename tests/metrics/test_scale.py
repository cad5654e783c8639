"""One scale: known answers, monotone maps against scikit-learn, coverage by simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from iqa_lightning.metrics.scale import (
    Scale,
    concordance,
    fit_scale,
    increasing,
    learnt_sets,
    quantile,
    scale_audit,
)
from iqa_lightning.records import RunFolder

OWNER = {"a": "a", "b": "b"}


def frame(seed: int = 0, count: int = 200, noise: float = 0.05, heads: bool = True) -> pd.DataFrame:
    """Two sets whose pictures are rated on scales of their own; b is the worse set by two units.

    Both heads see the quality, each on a scale of its own, and share a few images.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for name, level in (("a", 1.0), ("b", -1.0)):
        quality = rng.normal(level, 1, 2 * count)
        part = pd.DataFrame({"dataset": name, "split": ["val", "test"] * count})
        part["image"] = [f"{i}.png" for i in range(2 * count)]
        part["mos"] = 50 + 10 * (quality - level) if name == "a" else 3 + 0.5 * (quality - level)
        if heads:
            part["score/a"] = quality + rng.normal(0, noise, 2 * count)
            part["score/b"] = 40 + 9 * np.exp(quality / 2) + rng.normal(0, noise, 2 * count)
            part["gate/a"] = np.where(quality + rng.normal(0, 1, 2 * count) > 0, 0.8, 0.2)
            part["gate/b"] = 1 - part["gate/a"]
            part["latest"] = part["oracle"] = part["score/b"]
            part["gated"] = sum(part[f"gate/{k}"] * part[f"score/{k}"] for k in "ab")
        else:
            part["single"] = quality + rng.normal(0, noise, 2 * count)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def test_heads_that_see_the_same_quality_agree_once_they_are_aligned() -> None:
    table = frame()
    scale = fit_scale(table, OWNER)
    audit = scale_audit(table, scale, OWNER)
    assert audit["agreement_before"] < 0.2
    assert audit["agreement_after"] > 0.95
    test = table["split"] == "test"
    quality = table.loc[test, "score/a"]  # nearly
    assert stats.spearmanr(scale.score(table[test]), quality)[0] > 0.99
    assert abs(stats.spearmanr(table.loc[test, "gated"], quality)[0]) < 0.9
    val = scale.score(table[table["split"] == "val"])
    assert np.percentile(val, [1, 99]).tolist() == pytest.approx([0, 100], abs=0.5)


def test_one_head_keeps_its_order_and_its_pooled_correlation() -> None:
    table = frame(heads=False)
    scale = fit_scale(table, OWNER)
    audit = scale_audit(table, scale, OWNER)
    test = table[table["split"] == "test"]
    z = test.groupby("dataset")["mos"].transform(lambda m: (m - m.mean()) / m.std(ddof=0))
    assert audit["pooled_before"] == pytest.approx(stats.spearmanr(test["single"], z)[0])
    assert audit["pooled_after"] == pytest.approx(audit["pooled_before"], abs=0.02)
    assert math.isnan(audit["agreement_after"])
    assert list(scale.common) == ["single"]
    found = scale.native["a"](test.query("dataset == 'a'")["single"].to_numpy())
    assert np.abs(found - test.query("dataset == 'a'")["mos"]).mean() < 2  # of 50 +- 10


def test_coverage_is_what_was_promised() -> None:
    hits = []
    for seed in range(30):
        table = frame(seed, count=60, noise=1.0)
        hits.append(scale_audit(table, fit_scale(table, OWNER), OWNER)["coverage"])
    assert 0.86 < np.mean(hits) < 0.95


def test_the_quantile_by_hand() -> None:
    assert quantile(np.arange(1.0, 100.0)) == 90.0  # the 90th of 99: ceil(100 * 0.9)
    assert quantile(np.arange(1.0, 6.0)) == 100.0  # too few


@given(st.integers(0, 999), st.integers(3, 60))
@settings(max_examples=60, deadline=None)
def test_maps_increase_and_follow_the_isotonic_regression(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, w = rng.normal(size=count), rng.normal(size=count), rng.uniform(0.1, 1, count)
    knots = increasing(x, y + 2 * x, w)
    assert (np.diff(knots.x) > 0).all()
    assert (np.diff(knots.y) > 0).all()
    grid = np.linspace(-5, 5, 50)
    assert (np.diff(knots(grid)) > 0).all()
    expected = IsotonicRegression().fit(x, y + 2 * x, sample_weight=w).predict(x)
    found = np.unique(np.round(expected, 9))
    if len(found) > 1:
        np.testing.assert_allclose(knots.y, found, atol=1e-8)


def test_a_head_that_says_nothing_still_has_a_map() -> None:
    knots = increasing(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0]), np.ones(3))
    assert knots.y[0] < 2 < knots.y[1]
    constant = increasing(np.ones(4), np.arange(4.0), np.ones(4))
    assert np.isfinite(constant(np.array([0.0, 1.0, 2.0]))).all()


def test_concordance_by_hand() -> None:
    one = np.array([1.0, 2.0, 3.0])
    assert concordance(one, one) == pytest.approx(1)
    assert concordance(one, one + 1) == pytest.approx(2 * (2 / 3) / (4 / 3 + 1))


def test_stored_and_read_again(tmp_path: object) -> None:
    table, folder = frame(), RunFolder(str(tmp_path))
    scale = fit_scale(table, OWNER)
    folder.write_scale(scale.tensors(), scale.metadata())
    first = (folder.path / "scale.safetensors").read_bytes()
    again = Scale.from_tensors(*folder.read_scale())
    np.testing.assert_array_equal(again.score(table), scale.score(table))
    assert again.radius == scale.radius
    assert again.truth == scale.truth
    folder.write_scale(again.tensors(), again.metadata())
    assert (folder.path / "scale.safetensors").read_bytes() == first
    (folder.path / "scale.safetensors").write_bytes(first[:20])
    with pytest.raises(ValueError, match=r"scale\.safetensors cannot be read"):
        folder.read_scale()


def test_only_what_is_learnt_takes_part() -> None:
    table = frame()
    learnt = {"a": "a"}
    some = table.drop(columns=["score/b", "gate/b"]).assign(**{"gate/a": 1.0})
    assert list(fit_scale(some, learnt).native) == ["a"]
    assert learnt_sets({"start": table, "a": table}) == learnt
    with pytest.raises(ValueError, match="no data set is learnt yet"):
        fit_scale(table, {})
