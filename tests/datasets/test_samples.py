"""What a table must be, and how it is refused."""

import numpy as np
import pandas as pd
import pytest

from iqa_lightning.datasets.samples import Samples, check_range, check_table


def table(**columns: list) -> pd.DataFrame:
    return pd.DataFrame({"image": ["a.png", "b.png", "c.png"], "mos": [1.0, 2.0, 3.0]} | columns)


def test_optional_columns_are_filled_in() -> None:
    checked = check_table("set", "here", table())
    assert list(checked) == [
        "image",
        "mos",
        "mos_std",
        "reference",
        "distortion",
        "level",
        "official",
        "scene",
    ]
    assert checked["mos"].dtype == checked["mos_std"].dtype == np.float64
    assert checked["mos_std"].isna().all()
    assert list(checked["reference"]) == ["a.png", "b.png", "c.png"]
    assert (
        list(checked["distortion"])
        == list(checked["official"])
        == list(checked["scene"])
        == ["", "", ""]
    )
    assert checked["level"].isna().all()
    assert len(Samples("set", checked)) == 3


def test_given_columns_are_kept_and_blanks_mean_unknown() -> None:
    given = table(
        mos=["1", " 2.5", "-3e0"],
        mos_std=["0", "", "1.5"],
        reference=["x", "", None],
        distortion=["jpeg", "", None],
        level=[2, "", None],
        official=["train", "", None],
    )
    given.index = [7, 7, 9]
    checked = check_table("set", "here", given)
    assert list(checked["mos"]) == [1.0, 2.5, -3.0]
    assert checked["mos_std"].tolist()[::2] == [0.0, 1.5]
    assert np.isnan(checked["mos_std"][1])
    assert list(checked["reference"]) == ["x", "b.png", "c.png"]
    assert list(checked["distortion"]) == ["jpeg", "", ""]
    assert checked["level"][0] == 2
    assert checked["level"].isna().sum() == 2
    assert list(checked["official"]) == ["train", "", ""]
    assert list(given["reference"])[1] == "", "the argument was changed"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (table().drop(columns="mos"), ["'set'", "here", "'mos'"]),
        (table().drop(columns="image"), ["'image'"]),
        (table().iloc[:0], ["no rows"]),
        (table(mos=[1, "good", 3]), ["row 2", "b.png", "'good'"]),
        (table(mos=[1, 2, "inf"]), ["row 3", "c.png", "'inf'"]),
        (table(mos=[1, 2, "nan"]), ["row 3", "c.png", "nan"]),
        (table(mos=[1, None, 3]), ["row 2", "b.png", "missing"]),
        (table(mos=["", 2, 3]), ["row 1", "a.png", "missing"]),
        (table(mos=[2, 2, 2]), ["all 3 mos are 2"]),
        (table(mos_std=[1, -1, 1]), ["row 2", "mos_std", "-1"]),
        (table(mos_std=[1, "wide", 1]), ["row 2", "mos_std", "'wide'"]),
        (table(image=["a.png", "b.png", " a.png"]), ["row 3", "a.png", "already in row 1"]),
        (table(image=["a.png", "", "c.png"]), ["row 2", "no name"]),
        (
            table(image=["a.png", "x/../../passwd", "c.png"]),
            ["row 2", "x/../../passwd", "outside of the folder"],
        ),
        (
            table(image=["a.png", "b.png", "/etc/passwd"]),
            ["row 3", "/etc/passwd", "outside of the folder"],
        ),
        (table(level=[1, 1, -2]), ["row 3", "level is -2"]),
        (table(level=[1, "strong", 2]), ["row 2", "level", "'strong'"]),
        (table(official=["train", "training", ""]), ["row 2", "'training'", "train, val, test"]),
    ],
)
def test_a_wrong_table_is_refused_with_the_place(given: pd.DataFrame, words: list[str]) -> None:
    with pytest.raises(ValueError, match="data set 'set', here") as error:
        check_table("set", "here", given)
    for word in words:
        assert word in str(error.value)


def test_range() -> None:
    checked = check_table("set", "here", table())
    check_range("set", "here", checked, (1, 3))
    with pytest.raises(ValueError, match=r"row 3 \('c.png'\): mos 3 is outside the range 1 to 2.5"):
        check_range("set", "here", checked, (1, 2.5))
