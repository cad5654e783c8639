"""Average ranks and groups of a critical-difference diagram, by hand."""

import pandas as pd
import pytest

from iqa_lightning.report.page.panels import average_ranks


def rows(scores: dict[str, list[float]]) -> list[dict]:
    """A run of each method on each split of one order."""
    return [
        {"method": method, "order": "x>y", "split": split, "measure": "msi", "value": value}
        for method, values in scores.items()
        for split, value in enumerate(values)
    ]


def test_average_ranks_and_groups_by_hand() -> None:
    runs = rows({"a": [9, 9, 8], "b": [5, 9, 7], "c": [1, 2, 3]})
    runs += [{**runs[0], "split": 7, "value": 0.0}]  # a block of one method alone
    runs += [{**runs[0], "method": "joint", "order": "x+y", "split": split} for split in range(4)]
    found = average_ranks(pd.DataFrame(runs), "msi")
    assert found is not None
    assert found["methods"] == ["a", "b", "c"]
    assert found["ranks"] == pytest.approx([(1 + 1.5 + 1) / 3, (2 + 1.5 + 2) / 3, 3], abs=1e-4)
    assert found["blocks"] == 3
    # q of Demsar's table for three methods
    assert found["distance"] == pytest.approx(2.343 * (3 * 4 / (6 * 3)) ** 0.5, abs=1e-3)
    assert found["groups"] == [(0, 2)]  # 3 - 1.1667 < 1.913


def test_methods_that_differ_are_in_other_groups() -> None:
    found = average_ranks(
        pd.DataFrame(rows({name: [float(-i)] * 12 for i, name in enumerate("abcd")})), "msi"
    )
    assert found is not None
    assert found["ranks"] == [1, 2, 3, 4]
    assert found["distance"] == pytest.approx(2.569 * (4 * 5 / (6 * 12)) ** 0.5, abs=1e-3)  # 1.354
    assert found["groups"] == [(0, 1), (1, 2), (2, 3)]


def test_one_method_and_no_shared_block_have_none() -> None:
    assert average_ranks(pd.DataFrame(rows({"a": [1, 2]})), "msi") is None
    alone = pd.DataFrame(rows({"a": [1], "b": [2]})).assign(order=["x>y", "y>x"])
    assert average_ranks(alone, "msi") is None
