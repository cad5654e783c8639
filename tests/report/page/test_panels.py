"""What the diagram of average ranks is given, by hand."""

import pandas as pd
import pytest

from iqa_lightning.report.numbers.ranking import Ranking
from iqa_lightning.report.page.panels import average_ranks


def test_groups_are_places_of_their_members() -> None:
    ranks = pd.DataFrame({"method": list("bac"), "rank": [1.25, 1.75, 3.0]})
    found = average_ranks(Ranking(ranks, 6, [["b", "c"], ["a"]], ["d"]))
    assert found == {
        "methods": ["b", "a", "c"],
        "ranks": pytest.approx([1.25, 1.75, 3.0]),
        "groups": [[0, 2], [1]],
        "splits": 6,
    }


def test_one_method_and_no_shared_split_have_none() -> None:
    one = pd.DataFrame({"method": ["a"], "rank": [1.0]})
    assert average_ranks(Ranking(one, 6, [], [])) is None
    two = pd.DataFrame({"method": ["a", "b"], "rank": [float("nan")] * 2})
    assert average_ranks(Ranking(two, 0, [], [])) is None
