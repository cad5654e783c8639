"""`new` writes three files that pass at once, and never over others."""

import subprocess
import sys
from pathlib import Path

import pytest

from iqa_lightning.new import FILES, main, new, title_of
from tests.walks import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The places of a checkout that files are written to."""
    for place in ("conf/method", "conf/data", "iqa_lightning/methods", "iqa_lightning/datasets"):
        (tmp_path / place).mkdir(parents=True)
    for place in ("tests/methods", "tests/datasets"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


@pytest.mark.parametrize("kind", FILES)
def test_three_files_and_never_twice(kind: str, checkout: Path) -> None:
    files = new(kind, "low_rank", checkout)
    assert [file.is_file() for file in files] == [True] * 3
    before = [file.read_text() for file in files]
    assert "class LowRank(" in before[0]
    assert "_target_: iqa_lightning." in before[1]
    with pytest.raises(ValueError, match=r"low_rank.*is there already"):
        new(kind, "low_rank", checkout)
    files[0].unlink()
    with pytest.raises(ValueError, match="is there already"):
        new(kind, "low_rank", checkout)
    assert not files[0].exists(), "all or nothing"


@pytest.mark.parametrize("name", ["LowRank", "low-rank", "2nd", "class", "a/b", "../x", ""])
def test_names_that_no_module_can_have(name: str, checkout: Path) -> None:
    with pytest.raises(ValueError, match="cannot name a module"):
        new("method", name, checkout)
    assert not list(checkout.rglob("*.py"))


def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["method"], ["network", "x"], ["method", "x"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_titles() -> None:
    assert [title_of(name) for name in ("low_rank", "x2", "tsn_iqa")] == ["LowRank", "X2", "TsnIqa"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "contract"), [("method", "test_contract"), ("dataset", "")])
def test_what_is_written_passes_at_once(kind: str, contract: str, tmp_path: Path) -> None:
    """In a copy of the checkout: its own test, the contract, the linter and the formatter."""
    copied = ["iqa_lightning", "conf", "tests", "pyproject.toml", "README.md"]
    ignored = "--exclude=__pycache__"
    subprocess.run(["tar", "cf", tmp_path / "x.tar", ignored, *copied], cwd=ROOT, check=True)
    subprocess.run(["tar", "xf", tmp_path / "x.tar"], cwd=tmp_path, check=True)
    files = [str(file.relative_to(tmp_path)) for file in new(kind, "low_rank", tmp_path)]
    words = [files[-1], *([f"tests/{contract}.py", "-k", "low_rank"] if contract else [])]
    python = [sys.executable, "-m"]
    for command in (
        ["pytest", "-q", *words, "-p", "no:cacheprovider"],
        ["ruff", "check", files[0], files[2]],
        ["ruff", "format", "--check", files[0], files[2]],
    ):
        done = subprocess.run(
            [*python, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
