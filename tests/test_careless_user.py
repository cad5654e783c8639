"""The mistakes that `docs/reliability.md` lists, typed: each ends in the line that stands there,
with status 2, and leaves nothing behind.
"""

import re
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest

from iqa_lightning import cli
from iqa_lightning.runs.mistakes import FULL, run_command
from iqa_lightning.scoring.words import run_words
from tests.datasets.folders import noise
from tests.walks import IN_BATCH, ROOT, stream_of_folders, walk

RIDGE = ("method=ridge", "method.cache=ram", "method.gate.features=last", IN_BATCH)
PAGE = ROOT / "docs" / "reliability.md"
ROW = re.compile(r"\| `(iqa-lightning .+?)` \| `(.+?)` \|")
MISTAKES = ROW.findall(PAGE.read_text())


COMMANDS = ("check", "score", "watch", "export", "tune", "reproduce", "evaluate", "pretrain")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are typed: folders of photos, most of them with something wrong; a
    finished run, and a table.
    """
    place = tmp_path_factory.mktemp("place")
    furnish(place)
    walked = walk(tmp_path_factory.mktemp("walked"), *RIDGE, *stream_of_folders([place / "photos"]))
    shutil.move(walked, place / "run")
    return place


def furnish(place: Path) -> None:
    """Folders and a table."""
    (place / "empty").mkdir()
    for name in ("photos", "lost", "text", "broken"):
        (place / name).mkdir()
        rows = ["image,mos", *(f"{i}.png,{i}" for i in range(20))]
        rows[5] = "4.png,good" if name == "text" else rows[5]
        (place / name / "ratings.csv").write_text("\n".join(rows))
        for i in range(20):
            noise(i, 40, 48).save(place / name / f"{i}.png")
    (place / "lost" / "7.png").unlink()
    (place / "broken" / "3.png").write_text("this is no picture")
    (place / "experiments" / "mine").mkdir(parents=True)
    table = "experiment: demo\nmethods: [sh_cl_cpu]\n"
    tune = "tune: {trials: 2, order: [tone], split: 1}\n"
    (place / "experiments" / "mine" / "runs.yaml").write_text(table + tune)


@pytest.mark.parametrize("command", ["train", *COMMANDS])
def test_there_are_enough(command: str) -> None:
    of_command = {typed for typed, _ in MISTAKES if typed.split()[1] == command}
    assert len(of_command) >= (30 if command == "train" else 10)


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "line"), MISTAKES)
def test_a_mistake_is_one_line(
    typed: str,
    line: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv(FULL, raising=False)
    before = sorted(place.rglob("*"))
    _, command, *words = shlex.split(typed)
    with pytest.raises(SystemExit) as end:
        if command not in cli.commands():
            cli.main([command, *words])
        module = import_module(f"iqa_lightning.{command}")
        words = module.overrides(words) if hasattr(module, "overrides") else words
        monkeypatch.setattr(sys, "argv", [command, *words])
        starts = run_words if command in ("score", "watch", "export") else run_command
        starts(module.main, command)
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {line}"]
    assert sorted(place.rglob("*")) == before
