"""Names of runs: what was typed is part of them, places are not; names of a user's folders."""

from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from hypothesis import given
from hypothesis import strategies as st

from iqa_lightning.configs import config_changes, config_hash
from iqa_lightning.files import is_name
from iqa_lightning.runs.compose import to_dict
from iqa_lightning.runs.folder import (
    run_names,
    short_value,
    variant_of,
)
from iqa_lightning.stream.folders import named_folders, readable
from tests.walks import composed


def names(*words: str) -> tuple[str, ...]:
    """The names of a run as its command finds them."""
    cfg = composed(*words)
    hydra = HydraConfig.get()
    return run_names(to_dict(cfg), hydra.runtime.choices, list(hydra.overrides.task))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "lwf"),
        (["method.optimizer.lr=1e-3"], "lwf@lr=1e-3"),
        (["method.optimizer.lr=0.001"], "lwf@lr=1e-3"),
        (["method.optimizer.lr=0.01"], "lwf@lr=0.01"),
        (["method.optimizer.lr=0.1", "method.optimizer.lr=0.01"], "lwf@lr=0.01"),
        (["backbone=tiny", "trainer=bf16"], "lwf@backbone=tiny,trainer=bf16"),
        (["schedule.finetune.epochs=3"], "lwf@finetune.epochs=3"),
        (["method.optimizer.lr=0.1", "variant=mine"], "lwf@mine"),
        (["method.optimizer.lr=0.1", "variant=''"], "lwf"),
        (["trainer=cpu", "logger=none", "paths.output=x", "stream.cache=ram"], "lwf"),
        (["stream.num_workers=2", "trainer.log_every_n_steps=9", "allow_leakage=true"], "lwf"),
    ],
)
def test_what_was_typed_is_part_of_the_name(words: list[str], expected: str) -> None:
    assert names("experiment=demo", "method=lwf", *words)[:2] == ("demo", expected)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("schedule.finetune.epochs=3", "schedule.warmup.epochs=3"),
        ("method.optimizer.lr=0.1", "method.optimizer.lr=0.01"),
        ("trainer=bf16", "trainer=compile"),
        ("schedule=lwf_paper", "schedule=cpu"),
        ("backbone.weights=a/weights.safetensors", "backbone.weights=b/weights.safetensors"),
    ],
)
def test_two_values_of_a_sweep_never_share_a_folder(one: str, other: str) -> None:
    assert names("method=lwf", one) != names("method=lwf", other)


def test_without_an_experiment_the_stream_gives_its_name() -> None:
    assert names("method=lwf")[0] == "demo"


def test_a_long_name_ends_in_a_hash() -> None:
    words = [f"schedule.finetune.{key}" for key in ("epochs=3", "batch_size=7", "lr_factor=0.5")]
    words += ["view.crop=33", "view.resize=0", "pairs.min_images=77", "backbone=tiny"]
    long = names("method=lwf", *words)[1]
    assert len(long) <= len("lwf@") + 60
    assert long == names("method=lwf", *reversed(words))[1]
    assert long != names("method=lwf", *words, "view.resize=40")[1]


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_different_numbers_have_different_names(one: float, other: float) -> None:
    assert float(short_value(one)) == one
    assert (short_value(one) == short_value(other)) == (repr(one) == repr(other))


def test_what_is_said_of_a_folder_is_part_of_the_run_and_its_place_is_not(tmp_path: Path) -> None:
    config = {"stream": {"folders": ["p/a", "p/b"], "order": ["a", "b"]}}
    moved = {"stream": {"folders": [str(tmp_path / "a"), "q/b"], "order": ["a", "b"]}}
    named = {"stream": {"folders": {"a": "x", "b": "y"}, "order": ["a", "b"]}}
    turned = {
        "stream": {
            "folders": ["p/a", {"root": "p/b", "higher_is_better": False}],
            "order": ["a", "b"],
        }
    }
    assert config_changes(config, moved) == config_changes(config, named) == {}
    assert config_hash(config) == config_hash(moved) == config_hash(named)
    assert list(config_changes(config, turned)) == [
        "stream.folders.b",
        "stream.folders.b.higher_is_better",
    ]
    assert config_hash(config) != config_hash(turned)
    assert variant_of([], config, {}) is None
    assert str(variant_of([], turned, {})).startswith("folders=")


def test_folders_are_called_as_on_the_disk() -> None:
    assert list(named_folders(["照片", "图片"])) == ["照片", "图片"]
    assert list(named_folders(["x/मेरी तस्वीरें"])) == ["मेरी_तस्वीरें"]
    assert list(named_folders(["p/day", "q/day", "night"])) == ["day_p", "day_q", "night"]
    assert list(named_folders(["r/p/day", "s/p/day"])) == ["day_p_r", "day_p_s"]
    assert list(named_folders(["cafe\u0301"])) == ["caf\u00e9"]


@pytest.mark.parametrize(
    "pair",
    [
        ("\U0001f4f7", "\U0001f681"),
        ("x/a b", "x/a+b"),
        ("day.1", "day_1"),
        ("(a)", "[a]"),
        ("p/\U0001f4f7", "p/\U0001f681"),
    ],
)
def test_folders_whose_signs_alone_differ(pair: tuple[str, str], tmp_path: Path) -> None:
    """Both are sound; their names do not depend on their order, nor on where they lie."""
    one, other = named_folders(list(pair))
    assert one != other
    assert is_name(one)
    assert is_name(other)
    assert [*named_folders([*reversed(pair)])] == [other, one]
    assert [*named_folders([str(tmp_path / place) for place in pair])] == [one, other]
    assert [*named_folders(dict(zip(pair, "uv", strict=True)))] == [one, other] or "/" in pair[0]
    assert one.count("_") <= 3, "a hash, not the whole path"


def test_folders_by_name_and_with_more() -> None:
    given = {"phones": "p", "drones": {"root": "d", "higher_is_better": False}}
    assert named_folders(given) == {
        "phones": {"root": "p"},
        "drones": {"root": "d", "higher_is_better": False},
    }
    assert named_folders({"root": "d", "higher_is_better": False}) == {
        "d": {"root": "d", "higher_is_better": False}
    }


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ([], "stream.folders is"),
        ("???", "missing"),
        (["a", "./a"], "twice"),
        ([{"x": 1}], "no folder"),
    ],
)
def test_folders_that_are_none_are_named(folders, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        named_folders(folders)


@given(st.text(min_size=1))
def test_every_name_becomes_one_that_records_take(text: str) -> None:
    assert is_name(readable(text))


@pytest.mark.parametrize("bad", ["", "a/b", "..", "a b", "cafe\u0301", "a+b"])
def test_names_that_records_do_not_take(bad: str) -> None:
    assert not is_name(bad)
