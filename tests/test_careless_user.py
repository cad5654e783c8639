"""The mistakes that `docs/reliability.md` lists, typed: each ends in the line that stands there,
with status 2, and leaves nothing behind.
"""

import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest

from iqa_lightning import cli
from iqa_lightning.runs.mistakes import FULL, run_command
from tests.datasets.folders import noise
from tests.walks import ROOT

PAGE = ROOT / "docs" / "reliability.md"
ROW = re.compile(r"\| `(iqa-lightning .+?)` \| `(.+?)` \|")
MISTAKES = ROW.findall(PAGE.read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are typed: folders of photos, most of them with something wrong."""
    place = tmp_path_factory.mktemp("place")
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
    return place


def test_there_are_thirty() -> None:
    assert len({typed for typed, _ in MISTAKES}) >= 30


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
        words = module.overrides(words) if command == "evaluate" else words
        monkeypatch.setattr(sys, "argv", [command, *words])
        run_command(module.main, command)
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {line}"]
    assert sorted(place.rglob("*")) == before
