"""Which code ran: the commit that a run notes."""

import subprocess
from pathlib import Path

import pytest

from iqa_lightning.runs import package


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_and_whether_files_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "HERE", tmp_path / "iqa_lightning")
    (tmp_path / "iqa_lightning").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert package.git_commit() is None
    git(tmp_path, "init", "-q")
    (tmp_path / "iqa_lightning" / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert package.git_commit() == commit
    (tmp_path / "iqa_lightning" / "code.py").write_text("2")
    assert package.git_commit() == f"{commit}+"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert package.git_commit() is None


def test_a_repository_around_an_installed_package_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "env" / "site-packages" / "iqa_lightning"
    installed.mkdir(parents=True)
    (installed / "code.py").write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    monkeypatch.setattr(package, "HERE", installed)
    assert package.git_commit() is None
    (installed / "built_from.txt").write_text("0123abcd\n")
    assert package.git_commit() == "0123abcd"
