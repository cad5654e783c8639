"""Values of another kind than an argument takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from iqa_lightning.kinds import annotations, check_arguments


class Above:
    """A constructor with arguments of all kinds."""

    def __init__(
        self,
        root: str | Path,
        *,
        turn: bool = True,
        limit: float = 200,
        count: int | None = None,
        names: Sequence[str] | None = None,
        mode: Literal["a", "b"] = "a",
    ) -> None:
        self.given = root, turn, limit, count, names, mode


class Below(Above):
    """Hands the rest on."""

    def __init__(self, *, own: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.own = own


GOOD = {
    "root": ["x", Path("x"), None],
    "turn": [True, None],
    "limit": [1, 1.5, None],
    "count": [1, 1.0, None],
    "names": [["x"], "whoever takes it judges it", None],
    "mode": ["a", "b"],
    "own": [False],
    "unknown": ["the call says so"],
}
BAD = {
    "root": [True, 5],
    "turn": ["maybe", 1, 0.0],
    "limit": ["abc", True],
    "count": ["2", 1.5, False],
    "mode": ["c", 1, True],
    "own": ["no"],
}


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, values in GOOD.items() for v in values])
def test_what_fits(name: str, value: object) -> None:
    check_arguments(Below, {name: value}, "data")


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, values in BAD.items() for v in values])
def test_what_does_not_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^data\.{name} is {value!r}; it is "):
        check_arguments(Below, {name: value}, "data")


def test_the_words() -> None:
    for name, value, words in (
        ("limit", "abc", "limit is 'abc'; it is a number"),
        ("count", 1.5, "count is 1.5; it is a whole number"),
        ("turn", "maybe", "turn is 'maybe'; it is true or false"),
        ("mode", "c", "mode is 'c'; it is 'a' or 'b'"),
    ):
        with pytest.raises(ValueError, match="it is") as error:
            check_arguments(Above, {name: value}, "")
        assert str(error.value) == words


def test_annotations_of_what_is_above_count_where_the_rest_is_handed_on() -> None:
    assert {"own", "root", "turn"} <= annotations(Below).keys()

    class Closed(Above):
        def __init__(self, *, own: bool) -> None:
            super().__init__("x", turn=own)

    assert {*annotations(Closed)} == {"own"}
