"""Pairs of maximum differentiation against a search over all pairs of small pools."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.gmad import gmad, gmad_pairs, gmad_text


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(2, 14), st.integers(1, 6), st.sampled_from([4, 10**6]))
def test_pairs_are_those_of_a_search(seed: int, count: int, levels: int, values: int) -> None:
    """The levels are the only thing taken over: neighbours for the defender, as equal in size as
    can be.
    """
    rng = np.random.default_rng(seed)
    defender, attacker = rng.integers(values, size=(2, count)).astype(float)
    found = gmad_pairs(defender, attacker, levels)
    used = max(1, min(levels, count // 2))
    size, more = divmod(count, used)
    order = sorted(range(count), key=lambda i: (defender[i], i))
    rank = [(r - 0.5) / count for r in stats.rankdata(attacker)]
    assert len(found) == used
    for level, row in enumerate(found.itertuples()):
        members, order = order[: size + (level < more)], order[size + (level < more) :]
        assert {row.better, row.worse} <= set(members)
        best = max(rank[i] - rank[j] for i, j in itertools.permutations(members, 2))
        assert row.attacker_gap == pytest.approx(best)
        assert row.level == level + 1
    assert order == []


def test_four_images_by_hand() -> None:
    """Two levels: images 0, 1 and 2, 3. The attacker sees 1 far above 0, and 2 just above 3."""
    found = gmad_pairs([1, 2, 3, 4], [10, 40, 30, 20], 2)
    assert found.values.tolist() == [[1, 1, 0, 0.25, 0.75], [2, 2, 3, -0.25, 0.25]]


def test_without_scores_there_are_no_pairs() -> None:
    assert gmad_pairs([1.0], [2.0]).empty
    assert gmad_pairs([1.0, math.nan], [2.0, 1.0]).empty
    with pytest.raises(ValueError, match="levels=0"):
        gmad_pairs([1, 2], [1, 2], 0)
    with pytest.raises(ValueError, match="2 predictions do not pair with 3"):
        gmad_pairs([1, 2], [1, 2, 3])


def table(scores: dict[str, np.ndarray], mos: dict[str, np.ndarray]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"dataset": name, "split": "test", "mos": mos[name], "single": x.astype(np.float32)})
        .assign(image=[f"{name}{i}" for i in range(len(x))])
        for name, x in scores.items()
    ]  # fmt: skip
    return pd.concat([*parts, parts[0].assign(split="val")], ignore_index=True)


def test_both_roles_in_every_data_set_and_who_is_right() -> None:
    rng = np.random.default_rng(0)
    mos = {"a": rng.permutation(30.0 * np.arange(30)), "b": rng.permutation(np.arange(20.0))}
    good, bad = (table({n: f(mos[n]) for n in mos}, mos) for f in (np.sqrt, rng.permutation))
    found = gmad(good, bad.iloc[::-1], ["single", "single"], levels=5)
    assert found.groupby(["dataset", "defender"]).size().to_dict() == dict.fromkeys(
        itertools.product("ab", ("first", "second")), 5
    )
    gap = found["attacker_gap"] - found["defender_gap"].abs()
    assert (np.diff(gap) <= 1e-9).all()
    ranks = {name: dict(zip(part["image"], stats.rankdata(part["mos"]), strict=True))
             for name, part in good[good["split"] == "test"].groupby("dataset")}  # fmt: skip
    for row in found.itertuples():
        count = len(ranks[row.dataset])
        assert row.rated_gap * count == pytest.approx(
            ranks[row.dataset][row.better] - ranks[row.dataset][row.worse]
        )
        assert row.right == (
            "defender" if row.defender == "first" else "attacker"
        )  # the first knows the ratings


def test_the_images_must_be_the_same() -> None:
    mos = {"a": np.arange(6.0)}
    one = table(mos, mos)
    with pytest.raises(ValueError, match="do not hold the same test images of 'a'"):
        gmad(one, one[one["image"] != "a3"], ["single", "single"])


def test_two_states_of_a_run_as_text(tmp_path) -> None:
    rng = np.random.default_rng(1)
    mos = {"a": np.arange(20.0), "b": np.arange(12.0)}
    run = RunFolder(tmp_path / "it's @home")
    for t, task in enumerate(("start", "a", "b")):
        run.write_predictions(
            t,
            task,
            table({n: x if task == "a" else rng.permutation(x) for n, x in mos.items()}, mos),
        )
    text = gmad_text(f"{run.path}@a", str(run.path), 4)
    assert f"first   {run.path} after a, single" in text
    assert f"second  {run.path} after b, single" in text
    assert "first defends: the ratings side with it on 8 of 8 pairs" in text
    assert "second defends: the ratings side with it on 0 of 8 pairs" in text
    with pytest.raises(ValueError, match="holds no predictions after 'c'; there are start, a, b"):
        gmad_text(f"{run.path}@c", str(run.path))
