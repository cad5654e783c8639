"""`from=<finished run>`: what is refused and how, what is taken from where; broken off, twice in a row,
over kinds of streams. That it is the longer run for every method: `tests/test_longer_streams.py`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from iqa_lightning.configs import config_hash
from iqa_lightning.continual.callback import ContinualLearning
from iqa_lightning.evaluate import evaluate
from iqa_lightning.runs.compose import to_dict
from iqa_lightning.runs.extend import extended, is_of_stream, names_of
from tests.contract import stable
from tests.walks import IN_BATCH, TINY, call, composed, stream_of_folders, walk, write_folder

SHORT = ["method=sh_cl", IN_BATCH, "schedule.warmup.epochs=0", "schedule.finetune.epochs=1"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("sets")
    return [write_folder(root / name, seed, 20) for seed, name in enumerate("abcd")]


@pytest.fixture(scope="module")
def parent(sets: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over a and b."""
    return walk(tmp_path_factory.mktemp("parent"), *SHORT, *stream_of_folders(sets[:2]))


def config_of(*words: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Config and names of an extended run, as the command makes them."""
    cfg, found = extended(composed(*words), words)
    return to_dict(cfg), names_of(to_dict(cfg), found)


def copied(parent: Path, place: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(parent, place / "copy" / "sh_cl" / "a-b" / "split1" / "seed0"))


# --- what is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], r"which data sets are new\? Name them, as in stream=folders"),
        (["logger=none"], "which data sets are new"),
        (["stream=folders"], r"stream\.folders is missing"),
        (["stream=folders", "stream.folders=[{b}]"], r"'b' is learnt already by .*seed0"),
        (["stream=folders", "stream.folders={{x: {b}}}"], r"names .*/b twice"),
        (
            ["NEW", "method.optimizer.lr=0.1"],
            r"method\.optimizer\.lr is 0\.002 in .* and 0\.1 here",
        ),
        (["NEW", "method=mh_cl"], r"method\.\S+ is .* take method\.\S+ out"),
        (["NEW", "seed=1"], r"seed is 0 in .* and 1 here"),
        (["NEW", "split=2"], r"split is 1 in .* and 2 here"),
        (["NEW", "experiment=demo"], "take experiment= out"),
        (["NEW", "schedule.finetune.decay=constant"], r"schedule\.finetune\.decay is \w+ in"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_words_that_cannot_be(words: list[str], said: str, parent: Path, sets: list[Path]) -> None:
    new = stream_of_folders(sets[2:3])
    spelt = [w for word in words for w in (new if word == "NEW" else [word.format(b=sets[1])])]
    with pytest.raises(ValueError, match=said) as caught:
        config_of(f"from={parent}", *spelt)
    assert "\n" not in str(caught.value)


def unfinished(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"finished": False}))


def of_another_version(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seeds"]
    (folder / "summary.json").write_text(json.dumps(summary))


def looks_ahead(folder: Path) -> None:
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("finetune.SingleHead", "finetune.Joint"))


def cut(folder: Path) -> None:
    file = folder / "tasks" / "1_a.ckpt"
    file.write_bytes(file.read_bytes()[:-100])


DAMAGES: list[tuple[Callable[[Path], Any], str]] = [
    (shutil.rmtree, "there is no such folder"),
    (lambda folder: (folder / "summary.json").unlink(), "is not the folder of a training run"),
    (lambda folder: (folder / "config.yaml").unlink(), "is not the folder of a training run"),
    (unfinished, "is not finished: let the command that began it"),
    (of_another_version, "drew its random numbers in another way"),
    (looks_ahead, "sh_cl learns all data sets of its stream at once"),
    (lambda folder: (folder / "tasks" / "2_b.ckpt").unlink(), r"2_b\.ckpt is missing: without it"),
    (cut, r"1_a\.ckpt is not what was written .*: without it the run cannot be extended"),
    (lambda folder: (folder / "restart.json").unlink(), r"restart\.json does not know task 1"),
]


@pytest.mark.parametrize(
    ("damage", "said"), DAMAGES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_parents_that_cannot_be_extended(
    damage: Callable[[Path], Any], said: str, parent: Path, sets: list[Path], tmp_path: Path
) -> None:
    """And nothing is left behind."""
    folder = copied(parent, tmp_path)
    damage(folder)
    with pytest.raises(ValueError, match=said) as caught:
        walk(tmp_path / "new", f"from={folder}", *stream_of_folders(sets[2:3]), base=())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_data_that_changed_are_refused(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / name, seed, 20) for seed, name in enumerate("ab")]
    parent = walk(tmp_path / "old", *SHORT, *stream_of_folders(folders[:1]))
    Image.new("RGB", (40, 36)).save(folders[0] / "images" / "003.png")
    with pytest.raises(ValueError, match=r"images/003\.png is not what it was when the run in"):
        walk(tmp_path / "new", f"from={parent}", *stream_of_folders(folders[1:]), base=())
    assert not (tmp_path / "new").exists()


def test_the_command_says_it_in_one_line(parent: Path, sets: list[Path], tmp_path: Path) -> None:
    words = [f"from={parent}", *stream_of_folders(sets[1:2]), f"paths.output={tmp_path / 'new'}"]
    done = call(*words, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'b' is learnt already by")
    assert len(done.stderr.splitlines()) == 1


# --- what is taken from where


def test_values_are_the_parents_and_places_the_commands(parent: Path, sets: list[Path]) -> None:
    new = stream_of_folders(sets[2:3])
    words = [f"from={parent}", *new, "logger=csv", "stream.num_workers=3", "paths.output=there"]
    config, names = config_of(*words)
    old: Any = OmegaConf.to_container(OmegaConf.load(parent / "config.yaml"))
    assert names == ("folders", "sh_cl", "a-b-c", "split1", "seed0")
    assert {key for key in config if config[key] != old.get(key)} == {
        *("from", "logger", "paths", "stream")
    }
    assert config["paths"] == old["paths"] | {"output": "there"}
    assert config["stream"] == old["stream"] | {
        "order": ["a", "b", "c"],
        "num_workers": 3,
        "folders": {name: {"root": str(folder)} for name, folder in zip("abc", sets, strict=False)},
    }
    longer = to_dict(composed(*TINY, *SHORT, *stream_of_folders(sets[:3]), "stream.order=[a,b,c]"))
    assert config_hash(config) == config_hash(longer)


def test_values_of_the_new_sets_alone_may_be_given(parent: Path, sets: list[Path]) -> None:
    new = [f"from={parent}", *stream_of_folders(sets[2:3])]
    config, _ = config_of(*new, "+method.teacher_weights.c=file")
    assert config["method"]["teacher_weights"] == {"c": "file"}
    with pytest.raises(ValueError, match=r"method\.teacher_weights\.a is None"):
        config_of(*new, "+method.teacher_weights.a=file")


def test_a_data_set_of_the_configs_joins_a_stream_of_folders(parent: Path) -> None:
    config, names = config_of(
        f"from={parent}", "stream=sets", "+data@stream.tasks.spaq=spaq", "paths.data=/d"
    )
    stream = config["stream"]
    assert names[2] == "a-b-spaq"
    assert "folders" not in stream
    assert {
        name: task["_target_"].rpartition(".")[2] for name, task in stream["tasks"].items()
    } == {
        "a": "CSVData",
        "b": "CSVData",
        "spaq": "SPAQ",
    }
    assert stream["tasks"]["spaq"]["root"] == "/d/SPAQ"


def test_data_that_were_moved(parent: Path, sets: list[Path], tmp_path: Path) -> None:
    """Places below the folder of the data follow `paths.data`."""
    folder = copied(parent, tmp_path)
    text = (folder / "config.yaml").read_text().replace(str(sets[0].parent), "/gone/sets")
    (folder / "config.yaml").write_text(text.replace("\n  data: data\n", "\n  data: /gone\n"))
    new = stream_of_folders(sets[2:3])
    config, _ = config_of(f"from={folder}", *new)
    assert config["stream"]["folders"]["a"]["root"] == "/gone/sets/a"
    config, _ = config_of(f"from={folder}", *new, "paths.data=/here")
    assert config["stream"]["folders"]["a"]["root"] == "/here/sets/a"
    assert config["stream"]["folders"]["c"]["root"] == str(sets[2])


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stream=folders", True),
        ("stream.order=[a]", True),
        ("+data@stream.tasks.bid=bid", True),
        ("streams=1", False),
        ("trainer=cpu", False),
    ],
)
def test_words_of_the_stream(word: str, expected: bool) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([word])
    assert is_of_stream(override) is expected


# --- walks


class Broken(Exception):  # noqa: N818  # what happens, not what is wrong
    """A run breaks off."""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3, 4])
def test_broken_off_it_resumes(
    after: int, parent: Path, sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the new set is scored by the parent's weights, after that, and at the end of its task."""
    words = [f"from={parent}", *stream_of_folders(sets[2:3])]
    whole = walk(tmp_path / "whole", *words, base=())
    seen: list[Any] = []
    original = ContinualLearning.evaluate

    def counted(self: ContinualLearning, *given: Any) -> None:
        if len(seen) == after:
            raise Broken
        seen.append(given)
        original(self, *given)

    def broken(self: ContinualLearning, *given: Any) -> None:
        if len(seen) == after:
            raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(ContinualLearning, "evaluate", counted)
        if after == 4:
            patch.setattr(ContinualLearning, "on_fit_end", broken)
        with pytest.raises(Broken):
            walk(tmp_path / "broken", *words, base=())
    found = walk(tmp_path / "broken", *words, base=())
    assert stable(found) == stable(whole)
    assert json.loads((found / "summary.json").read_text())["finished"]


@pytest.mark.slow
def test_extended_twice_it_is_the_longest_run(
    parent: Path, sets: list[Path], tmp_path: Path
) -> None:
    once = walk(tmp_path / "new", f"from={parent}", *stream_of_folders(sets[2:3]), base=())
    walk(tmp_path / "new", f"from={once}", *stream_of_folders(sets[3:]), base=())
    twice = next((tmp_path / "new").glob("folders/sh_cl/a-b-c-d/*/*"))
    long = walk(tmp_path / "long", *SHORT, *stream_of_folders(sets))
    assert stable(twice) == stable(long)
    assert json.loads((twice / "summary.json").read_text())["parent"]["order"] == ["a", "b", "c"]
    derived = {path.name: path.read_bytes() for path in twice.glob("*.csv")}
    for path in twice.glob("*.csv"):
        path.unlink()
    evaluate(str(twice))
    again = {path.name: path.read_bytes() for path in twice.glob("*.csv")}
    assert again.keys() == derived.keys()
    assert again["srcc_single.csv"] == derived["srcc_single.csv"]


@pytest.mark.slow
def test_a_folder_after_data_sets_of_another_kind(sets: list[Path], tmp_path: Path) -> None:
    """The new set brings columns (contents) that the parent's records lack, and the other way round."""
    table = pd.read_csv(sets[3] / "ratings.csv")
    named = Path(shutil.copytree(sets[3], tmp_path / "named"))
    table.assign(scene=["animal", "plant"] * 10).to_csv(named / "ratings.csv", index=False)
    start = [*SHORT, "stream=demo", "stream.order=[blur]"]
    short = walk(tmp_path / "short", *start)
    found = walk(tmp_path / "new", f"from={short}", *stream_of_folders([named]), base=())
    where = f"{{_target_: iqa_lightning.datasets.csv.CSVData, _partial_: true, root: {named}}}"
    words = [f"+stream.tasks.named={where}", "stream.order=[blur,named]"]
    long = walk(tmp_path / "long", *start[:-1], *words)
    assert stable(found) == stable(long)
    hashes = {
        json.loads((run / "summary.json").read_text())["config_hash"] for run in (found, long)
    }
    assert len(hashes) == 1
    frame = pd.read_parquet(found / "predictions" / "after_1_blur.parquet")
    assert set(frame[frame["dataset"] == "named"]["image/scene"]) == {"animal", "plant"}
    assert set(frame[frame["dataset"] == "blur"]["image/scene"]) == {""}
