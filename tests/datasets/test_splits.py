"""The ten splits: disjoint, complete, pure by reference, reproducible, different, of the sizes of
the papers.
"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_lightning.datasets.samples import Samples
from iqa_lightning.datasets.splits import Split, generate_split, official_split, split_hash

# Sizes of groups; with at least six groups of at most eight images there is always a way to split.
group_sizes = st.lists(st.integers(1, 8), min_size=6, max_size=60)
numbers = st.integers(1, 10)


def references(sizes: list[int], seed: int) -> list[str]:
    rows = [f"content {i}" for i, size in enumerate(sizes) for _ in range(size)]
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]


@given(group_sizes, st.integers(0, 99), numbers)
@settings(deadline=None)
def test_parts_are_disjoint_complete_pure_and_big_enough(
    sizes: list[int], seed: int, number: int
) -> None:
    reference = references(sizes, seed)
    split = generate_split("set", reference, number)
    rows = np.concatenate(split)
    assert sorted(rows) == list(range(len(reference)))
    owners = [{reference[i] for i in part} for part in split]
    assert not owners[0] & owners[1]
    assert not owners[2] & (owners[0] | owners[1])
    assert all(
        len(part) >= 2 and part.dtype == np.int64 and (np.diff(part) > 0).all() for part in split
    )


@given(group_sizes, st.integers(0, 99), numbers)
@settings(deadline=None, max_examples=30)
def test_a_split_depends_on_contents_not_on_row_order_or_name(
    sizes: list[int], seed: int, number: int
) -> None:
    reference = references(sizes, seed)
    order = np.random.default_rng(seed + 1).permutation(len(reference))
    shuffled = [reference[i] for i in order]
    first, second = (
        generate_split("set", reference, number),
        generate_split("other", shuffled, number),
    )
    for one, two in zip(first, second, strict=True):
        assert {reference[i] for i in one} == {shuffled[i] for i in two}


@given(group_sizes, st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_ten_splits_differ(sizes: list[int], seed: int) -> None:
    reference = references(sizes, seed)
    assert len({tuple(map(tuple, generate_split("set", reference, k))) for k in range(1, 11)}) == 10


@pytest.mark.parametrize(
    ("images", "expected"),
    # specs of the protocol: BID, CLIVE, KonIQ-10k split by image
    [
        (586, (410, 59, 117)),
        (1162, (813, 116, 233)),
        (10073, (7051, 1007, 2015)),
        (6, (2, 2, 2)),
        (10, (6, 2, 2)),
    ],
)
def test_sizes_without_references(images: int, expected: tuple[int, int, int]) -> None:
    split = generate_split("set", [str(i) for i in range(images)], 3)
    assert tuple(map(len, split)) == expected


@pytest.mark.parametrize(
    ("groups", "each", "expected"),
    [(30, 29, (21, 3, 6)), (81, 125, (57, 8, 16)), (12, 20, (8, 1, 3))],
)
def test_sizes_with_references(groups: int, each: int, expected: tuple[int, int, int]) -> None:
    """CSIQ has 21/3/6 of 30 references, KADID-10k 57/8/16 of 81."""
    split = generate_split("set", references([each] * groups, 0), 1)
    assert tuple(len(part) // each for part in split) == expected


@given(st.lists(st.integers(1, 20), min_size=25, max_size=60), numbers)
@settings(deadline=None, max_examples=50)
def test_uneven_groups_still_come_near_the_ratios(sizes: list[int], number: int) -> None:
    split = generate_split("set", references(sizes, 1), number)
    shares = np.array([len(part) for part in split]) / sum(sizes)
    assert np.abs(shares - (0.7, 0.1, 0.2)).max() < 0.05


def test_the_same_rows_on_every_machine() -> None:
    """Written down once; a change of it changes every published split."""
    split = generate_split("set", [str(i) for i in range(12)], 1)
    assert [part.tolist() for part in split] == [[0, 2, 3, 5, 6, 7, 8, 9], [1, 4], [10, 11]]


@pytest.mark.parametrize(
    "reference", [["a"] * 9, ["a", "b"] * 5, [*"abcde"], ["a", "b", *"cccccc"]]
)
def test_too_few_contents_are_refused(reference: list[str]) -> None:
    with pytest.raises(ValueError, match=r"data set 'set': .* cannot be split"):
        generate_split("set", reference, 1)


@pytest.mark.parametrize("number", [0, 11, -1])
def test_there_are_ten_splits(number: int) -> None:
    with pytest.raises(ValueError, match="splits 1 to 10"):
        generate_split("set", [str(i) for i in range(20)], number)


def samples(mos: float = 1.0) -> Samples:
    return Samples(
        "set",
        pd.DataFrame({"image": [f"{i}.png" for i in range(8)], "mos": [mos, 2, 3, 4, 5, 6, 7, 8]}),
    )


def test_the_hash_tells_splits_and_scores_apart() -> None:
    one = Split(np.array([0, 1, 2, 3]), np.array([4, 5]), np.array([6, 7]))
    two = Split(np.array([0, 1, 2, 4]), np.array([3, 5]), np.array([6, 7]))
    assert split_hash(samples(), one) == split_hash(samples(), one)
    assert (
        len({split_hash(samples(), one), split_hash(samples(), two), split_hash(samples(1.5), one)})
        == 3
    )
    assert len(split_hash(samples(), one)) == 16
    int(split_hash(samples(), one), 16)


def test_the_hash_does_not_depend_on_row_order() -> None:
    one = Split(np.array([0, 1, 2, 3]), np.array([4, 5]), np.array([6, 7]))
    turned = Samples("set", samples().table.iloc[::-1].reset_index(drop=True))
    other = Split(np.array([4, 5, 6, 7]), np.array([2, 3]), np.array([0, 1]))
    assert split_hash(samples(), one) == split_hash(turned, other)


# --- the official split


def official(parts: list[str], reference: list[str] | None = None) -> Samples:
    names = [f"{i}.png" for i in range(len(parts))]
    columns = {
        "image": names,
        "mos": np.arange(len(parts)),
        "reference": reference or names,
        "official": parts,
    }
    return Samples("set", pd.DataFrame(columns))


def test_the_official_split_is_the_column() -> None:
    parts = [*("train",) * 5, "val", "", "val", "test", "test", "test", "train"]
    for number in (1, 7):
        split = official_split(official(parts), number)
        assert [rows.tolist() for rows in split] == [[0, 1, 2, 3, 4, 11], [5, 7], [8, 9, 10]]


def test_a_val_part_is_carved_from_train_by_reference() -> None:
    parts = 80 * ["train"] + 20 * ["test"]
    given = official(parts, [f"r{i // 2}" for i in range(100)])
    splits = [official_split(given, number) for number in range(1, 11)]
    for split in splits:
        assert split.test.tolist() == list(range(80, 100))
        assert len(split.val) == 10, "an eighth of train, 10 % of all"
        assert sorted([*split.train, *split.val]) == list(range(80))
        assert not {i // 2 for i in split.train} & {i // 2 for i in split.val}
    assert len({tuple(split.val) for split in splits}) == 10
    assert official_split(given, 4).val.tolist() == splits[3].val.tolist()


@pytest.mark.parametrize(
    ("parts", "reference", "words"),
    [
        (8 * [""], None, "has no official split; use splits=generated"),
        (["train"] * 6 + ["exam"] * 2, None, "row 7: the official part is 'exam'"),
        (
            ["train"] * 6 + ["test"] * 2,
            ["a"] * 6 + ["b"] * 2,
            "6 official train images in 1 groups",
        ),
        (["train"] * 7 + ["test"], None, "1 images in the test part"),
        (
            ["train"] * 4 + ["val"] * 2 + ["test"] * 2,
            [*"abcdefgb"],
            r"'b' is in two parts \('1.png' in train, '7.png'",
        ),
    ],
)
def test_an_official_split_that_cannot_be(
    parts: list[str], reference: list[str] | None, words: str
) -> None:
    with pytest.raises(ValueError, match=f"data set 'set'.*{words}"):
        official_split(official(parts, reference), 1)


def test_there_are_ten_val_parts() -> None:
    with pytest.raises(ValueError, match="splits 1 to 10"):
        official_split(official(["train"] * 20 + ["test"] * 4), 11)


def test_a_table_without_the_column_has_no_official_split() -> None:
    with pytest.raises(ValueError, match="no official split"):
        official_split(samples(), 1)
