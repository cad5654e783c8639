"""Average ranks and groups of a critical-difference diagram, by hand."""

import pandas as pd
import pytest

from iqa_lightning.report.panels import alike, average_ranks


def test_average_ranks_and_groups_by_hand() -> None:
    scores = {"a": [9, 9, 8], "b": [5, 9, 7], "c": [1, 2, 3]}
    rows = [
        {"method": method, "order": "x>y", "split": split, "measure": "msi", "value": value}
        for method, values in scores.items()
        for split, value in enumerate(values)
    ]
    rows += [{**rows[0], "method": "a", "split": 7, "value": 0.0}]  # a block that not all of them have
    rows += [{**rows[0], "method": "joint", "order": "x+y"}]  # shares no block with any other
    pairs = [("a", "b", 0.2), ("a", "c", 0.01), ("b", "c", 0.4)]
    tests = pd.DataFrame([{"measure": "msi", "first": x, "second": y, "p_holm": p} for x, y, p in pairs])
    found = average_ranks(pd.DataFrame(rows), tests, "msi")
    assert found is not None
    assert found["methods"] == ["a", "b", "c"]
    assert found["ranks"] == pytest.approx([(1 + 1.5 + 1) / 3, (2 + 1.5 + 2) / 3, 3], abs=1e-4)
    assert (found["groups"], found["blocks"]) == ([(0, 1), (1, 2)], 3)
    assert average_ranks(pd.DataFrame(rows[:3]), tests, "msi") is None


def test_groups_are_the_longest_stretches() -> None:
    names = ["a", "b", "c", "d"]
    assert alike(names, []) == [(0, 3)]
    assert alike(names, [frozenset("ad")]) == [(0, 2), (1, 3)]
    assert alike(names, [frozenset(pair) for pair in ("ac", "ad", "bc", "bd")]) == [(0, 1), (2, 3)]
    assert alike(names, [frozenset(pair) for pair in ("ab", "bc", "cd")]) == []
