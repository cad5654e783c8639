"""What a person sees of a walk, on a terminal and elsewhere."""

import re
from io import StringIO
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from rich.console import Console

from iqa_lightning.continual.callback import ContinualLearning
from iqa_lightning.continual.display import Display, clock
from iqa_lightning.records import RunFolder
from iqa_lightning.report.text.terminal import print_matrix
from iqa_lightning.runs.building import build_method, build_stream
from tests.test_contract import Interrupted, interrupt_after
from tests.walks import IN_BATCH, TINY, composed, stream_of_folders

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"
TERMINAL = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
EPOCHS = ("warmup 1/1", "finetune 1/2", "finetune 2/2")
TIME = r"\d+:\d\d"


def shown(folders: list[Path], folder: Path, terminal: bool) -> str:
    """The output of a walk of two tasks."""
    output = StringIO()
    play(
        folders, folder, Console(file=output, force_terminal=terminal, width=120, _environ=TERMINAL)
    )
    return output.getvalue()


def play(folders: list[Path], folder: Path, console: Console) -> None:
    """Walk two tasks and show it."""
    cfg = composed(*TINY, IN_BATCH, "method=mh_cl", *stream_of_folders(folders))
    stream, records = build_stream(cfg), RunFolder(folder)
    callbacks: list[pl.Callback] = [
        ContinualLearning(records, {}),
        Display(records, print_matrix, console),
    ]
    trainer = instantiate(
        cfg.trainer, callbacks=callbacks, logger=False, enable_checkpointing=False
    )
    try:
        trainer.fit(build_method(cfg, stream), datamodule=stream)
    finally:
        torch.use_deterministic_algorithms(False)


def test_elsewhere_than_on_a_terminal_each_epoch_is_a_line(
    folders: list[Path], tmp_path: Path
) -> None:
    text = shown(folders, tmp_path, terminal=False)
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    epochs = [f"task {t}/2 {name}, {epoch}" for t, name in ((1, "a"), (2, "b")) for epoch in EPOCHS]
    found = [line for line in lines if line.startswith("task ")]
    for line, epoch in zip(found, epochs, strict=True):
        number = r"-?\d\.\d{3}"
        tail = rf"  loss {number}  val SRCC {number}  {TIME} elapsed, about {TIME} left"
        assert re.fullmatch(re.escape(epoch) + tail, line), line
    assert found[-1].endswith("about 0:00 left")

    at = lines.index("after task 1/2, a:")
    assert lines.index(found[2]) < at < lines.index(found[3])
    matrix = lines[at + 1 : at + 5]
    assert matrix[0] == "SRCC, latest; zero-shot in parentheses"
    assert [line.split()[0] for line in matrix[1:]] == ["after", "start", "a"]
    stored = RunFolder(tmp_path).read_matrix("srcc_latest").loc["a", "a"]
    assert matrix[3].split()[1] == f"{stored:.3f}"
    assert "SRCC, oracle" in lines[at:]


def test_on_a_terminal_a_bar_names_the_place_and_the_time_left(
    folders: list[Path], tmp_path: Path
) -> None:
    raw = shown(folders, tmp_path, terminal=True)
    assert raw.rindex(SHOW_CURSOR) > raw.rindex(HIDE_CURSOR)
    text = ESCAPE.sub("", raw)
    # the bar is drawn some times a second: what stands there for sure is its last state and those
    # around a matrix
    assert re.search(rf"task 1/2 a, finetune 2/2  loss .*━.* {TIME}:\d\d \d?-?{TIME}", text)
    assert re.search(r"task 2/2 b, finetune 2/2  loss -?\d\.\d+  val SRCC -?\d\.\d+.*0:00:00", text)
    assert "after task 1/2, a:" in text
    assert "┃" in text[text.index("after task 1/2, a:") :], "the matrix is a table"
    assert "\x1b[1;4;38;2;" in raw, "the cell just learnt is bold, underlined and coloured"


def test_a_walk_that_breaks_off_gives_the_terminal_back(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=120, _environ=TERMINAL)
    interrupt_after(monkeypatch, 6)
    with pytest.raises(Interrupted):
        play(folders, tmp_path, console)
    text = output.getvalue()
    assert HIDE_CURSOR in text
    assert text.rindex(SHOW_CURSOR) > text.rindex(HIDE_CURSOR)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3725, "62:05")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
