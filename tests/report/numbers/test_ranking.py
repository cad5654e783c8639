"""Average ranks over splits and the groups that tests do not tell apart: by hand and by search."""

import itertools

import numpy as np
import pandas as pd

from iqa_lightning.report.numbers.ranking import alike, rank_methods

CLOSE, APART = "not distinguishable", "differ"


def measures(values: np.ndarray, names: str, measure: str = "msrcc") -> pd.DataFrame:
    """Values (splits, methods) as rows of runs in two orders, the second a copy of the first."""
    rows = [
        {"method": name, "order": order, "split": i, "measure": measure, "value": row[m]}
        for order in ("a>b", "b>a")
        for i, row in enumerate(values)
        for m, name in enumerate(names)
    ]
    return pd.DataFrame(rows)


def verdicts_of(said: dict[str, str]) -> pd.DataFrame:
    """Tests by pair: `{"xy": ...}`."""
    return pd.DataFrame(
        [(*pair, what) for pair, what in said.items()], columns=["first", "second", "said"]
    )


def test_three_methods_by_hand() -> None:
    """x is best in both splits, y and z tie once: ranks 1, 2.25, 2.75."""
    values = np.array([[0.9, 0.5, 0.5], [0.8, 0.7, 0.2]])
    said = verdicts_of({"xy": APART, "xz": APART, "yz": CLOSE})
    found = rank_methods(measures(values, "xyz"), "msrcc", said)
    assert list(found.ranks.itertuples(index=False, name=None)) == [
        ("x", 1.0),
        ("y", 2.25),
        ("z", 2.75),
    ]
    assert (found.splits, found.groups, found.left_out) == (2, [["y", "z"]], [])
    worse = rank_methods(measures(values, "xyz", "forgetting"), "forgetting", said)
    assert list(worse.ranks["method"]) == ["z", "y", "x"]  # less is better
    constant = rank_methods(measures(values, "xyz"), "msrcc", said, {"x"})
    assert (list(constant.ranks["method"]), constant.left_out) == (["y", "z"], ["x"])


def test_orders_are_averaged_within_a_split() -> None:
    rows = measures(np.array([[0.6, 0.5]] * 3), "xy")
    rows.loc[rows["order"].eq("b>a") & rows["method"].eq("y"), "value"] = 0.9
    found = rank_methods(rows, "msrcc", verdicts_of({}))
    assert list(found.ranks["method"]) == ["y", "x"]
    assert found.splits == 3


def test_splits_of_one_method_alone_push_no_other_out() -> None:
    table = measures(np.array([[0.9, 0.5], [0.8, 0.4], [0.7, 0.6]]), "ab")
    more = table[table["method"] == "a"].assign(split=lambda rows: rows["split"] + 9)
    once = table[:1].assign(method="c", value=5.0)
    found = rank_methods(
        pd.concat([table, more, once], ignore_index=True), "msrcc", verdicts_of({})
    )
    assert (list(found.ranks["rank"]), found.splits, found.left_out) == ([1.0, 2.0], 3, ["c"])
    assert found.groups == []  # nothing was tested


def test_groups_are_the_largest_sets_that_no_test_tells_apart() -> None:
    """Every group is close in all pairs, none is part of another, each close pair is in one: by
    search.
    """
    rng = np.random.default_rng(0)
    for _ in range(100):
        pairs = {
            a + b: str(rng.choice([CLOSE, APART])) for a, b in itertools.combinations("abcdef", 2)
        }
        subsets = [set(c) for k in range(2, 7) for c in itertools.combinations("abcdef", k)]
        close = [
            s
            for s in subsets
            if all(pairs["".join(p)] == CLOSE for p in itertools.combinations(sorted(s), 2))
        ]
        largest = [s for s in close if not any(s < other for other in close)]
        found = alike(list("abcdef"), verdicts_of(pairs))
        assert sorted(map(sorted, found)) == sorted(map(sorted, largest))
