"""Orders by name: what they contain, and that a Williams design is balanced, counted by hand."""

from collections import Counter
from itertools import pairwise

import pytest

from iqa_lightning.stream.orders import expand_orders, named_order, single_names, williams

TASKS = ["live", "csiq", "bid", "clive", "koniq10k", "kadid10k"]


def test_single_orders() -> None:
    assert named_order("default", TASKS) == TASKS
    assert named_order("reverse", TASKS) == ["kadid10k", "koniq10k", "clive", "bid", "csiq", "live"]


def test_a_random_order_is_a_permutation_fixed_by_its_seed() -> None:
    drawn = [named_order(f"random:{seed}", TASKS) for seed in range(200)]
    assert drawn == [named_order(f"random:{seed}", TASKS) for seed in range(200)]
    assert all(sorted(order) == sorted(TASKS) for order in drawn)
    first = Counter(order[0] for order in drawn)
    assert set(first) == set(TASKS)
    assert max(first.values()) < 60  # 33 expected, 5 standard deviations of 5.3


def test_the_draw_never_changes() -> None:
    # the Mersenne twister of seed 1 starts with 0.134, 0.847, 0.764, 0.255
    assert named_order("random:1", ["a", "b", "c", "d"]) == ["a", "d", "c", "b"]


@pytest.mark.parametrize("count", range(1, 9))
def test_a_williams_design_is_balanced(count: int) -> None:
    tasks = [f"t{i}" for i in range(count)]
    orders = williams(tasks)
    times = 2 if count % 2 and count > 1 else 1
    assert len(orders) == times * count
    assert orders[0] == tasks
    places = Counter((place, task) for order in orders for place, task in enumerate(order))
    assert len(places) == count * count
    assert set(places.values()) == {times}
    neighbours = Counter(pair for order in orders for pair in pairwise(order))
    assert len(neighbours) == count * (count - 1)
    assert set(neighbours.values()) <= {times}


def test_six_tasks_need_six_orders() -> None:
    assert len(expand_orders("williams", TASKS)) == 6


def test_one_order_of_a_design_has_a_name() -> None:
    tasks = ["a", "b", "c", "d"]
    assert single_names("williams", tasks) == [
        "williams:1",
        "williams:2",
        "williams:3",
        "williams:4",
    ]
    assert [named_order(name, tasks) for name in single_names("williams", tasks)] == williams(tasks)
    assert named_order("all:2", ["a", "b", "c"]) == ["a", "c", "b"]
    assert single_names("reverse", tasks) == ["reverse"]
    for name in ("williams:0", "williams:5", "all:25"):
        with pytest.raises(ValueError, match="counted from 1"):
            named_order(name, tasks)
    with pytest.raises(ValueError, match="not known"):
        named_order("williams:x", tasks)


def test_all_orders_of_a_short_stream() -> None:
    assert expand_orders("all", ["a", "b", "c"]) == [
        list(order) for order in ("abc", "acb", "bac", "bca", "cab", "cba")
    ]
    assert expand_orders("reverse", ["a", "b"]) == [["b", "a"]]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("backwards", "backwards.*reverse"),
        ("random", "random"),
        ("random:x", "random:x"),
        ("all", "list of orders"),
    ],
)
def test_a_wrong_name_is_refused(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        named_order(name, TASKS)


def test_too_many_permutations_are_refused() -> None:
    with pytest.raises(ValueError, match="williams"):
        expand_orders("all", TASKS)
