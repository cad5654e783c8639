"""What a person types wrongly is said in one line."""

import shlex
import sys

import pytest

from iqa_lightning.check import main as check
from iqa_lightning.pretrain import main as pretrain
from iqa_lightning.reproduce import main as reproduce
from iqa_lightning.runs.mistakes import FULL, run_command
from iqa_lightning.train import main as train

COMMANDS = {"train": train, "pretrain": pretrain, "check": check, "reproduce": reproduce}


def said(
    command: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """What a command says of its words; `--cfg job` composes and runs nothing."""
    monkeypatch.delenv(FULL, raising=False)
    monkeypatch.setattr(sys, "argv", [command, "--cfg", "job", *words])
    with pytest.raises(SystemExit) as end:
        run_command(COMMANDS[command], command)
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("train", ["method.optimizer.lrr=2"], "did you mean method.optimizer.lr?"),
        ("train", ["optimizer.lr=2"], "did you mean method.optimizer.lr?"),
        ("train", ["method/gat=expert"], "did you mean method/gate?"),
        ("train", ["experimnt=open4"], "did you mean experiment?"),
        ("train", ["~method.gat"], "did you mean method.gate?"),
        ("train", ["experiment=open4", "stream.tasks.clve.labels=x"], "stream.tasks.clive"),
        ("train", ["method.lerning_rate=1"], "method has "),
        ("train", ["method=tsn_iqua"], "did you mean method=tsn_iqa "),
        ("train", ["method=nonsense"], "see conf/method"),
        ("train", ["method/gate=expret"], "did you mean method/gate=expert?"),
        ("train", ["view=papr"], "there are: cpu, dp_iqa, grmp_iqa, liqe, metaiqa, paper, unique"),
        ("train", ["experiment=qpt"], "python -m iqa_lightning.pretrain pretraining=qpt"),
        ("pretrain", ["experiment=qpt"], "pretraining=qpt"),
        ("check", ["data=clyve"], "data=clive"),
        ("reproduce", ["tabel=demo"], "did you mean table?"),
        ("train", ["split"], "key=value"),
    ],
)
def test_the_nearest_is_named(
    command: str,
    words: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert expected in said(command, words, monkeypatch, capsys)


@pytest.mark.parametrize(
    "word",
    [
        "variant=lr=1e-3",
        "stream.folders=[照片]",
        "stream.folders=[照片,a b]",
        "paths.data=a(b",
        "paths.data=größe",
    ],
)
def test_the_quoting_that_is_named_works(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [] if word.startswith("stream") else ["stream.folders=[x]"]
    text = said("train", ["stream=folders", *folders, word], monkeypatch, capsys)
    assert word in text
    (typed,) = shlex.split(text.split("for the shell: ")[1])
    monkeypatch.setattr(sys, "argv", ["train", "--cfg", "job", "stream=folders", *folders, typed])
    run_command(train)
    shown = capsys.readouterr().out
    assert all(sign in shown for sign in word.partition("=")[2].strip("[]").split(","))


def test_the_rest_is_shown_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FULL, "1")
    monkeypatch.setattr(sys, "argv", ["train", "--cfg", "job", "view.corp=3"])
    with pytest.raises(SystemExit):
        run_command(train)
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.splitlines()[-1].startswith("error: view.corp")
