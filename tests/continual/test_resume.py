"""A run killed with SIGKILL at several instants ends with the bytes of one that was left alone."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.walks import ROOT, SAMPLED, TINY, call, command, environment, results, stream_of_folders


def run_until(line: str, words: list[str]) -> bool:
    """Start a run and kill it once a line of its output contains `line`; whether it came to that."""
    process = subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT
    )
    assert process.stdout is not None
    with process:
        for text in process.stdout:
            if line in text:
                process.send_signal(signal.SIGKILL)
                break
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "lines"),
    [
        (0, ("1/2 a, warmup 1/1", "1/2 a, finetune 2/2", "2/2 b, finetune 1/2")),
        (2, ("1/2 a, finetune 1/2",)),
    ],
)
def test_killed_and_resumed_gives_the_same_bytes(
    workers: int, lines: tuple[str, ...], folders: list[Path], tmp_path: Path
) -> None:
    """Killed in the warm-up, right after a task's end and in the middle of a task; with loader
    workers only there.
    """
    words = [*TINY, "method=tsn_iqa", f"stream.num_workers={workers}", *stream_of_folders(folders)]
    words += ["method.init=nearest", *SAMPLED]
    call(*words, f"paths.output={tmp_path / 'whole'}")

    broken = [*words, f"paths.output={tmp_path / 'broken'}"]
    for line in lines:
        assert run_until(line, broken), f"the run ended before it said {line!r}"
    assert "resuming at epoch" in call(*broken).stdout

    whole, resumed = (
        next((tmp_path / name).glob("folders/tsn_iqa/*/*/*")) for name in ("whole", "broken")
    )
    assert results(whole) == results(resumed)
    assert len(list((resumed / "predictions").iterdir())) == 3
    left = [path.name for path in resumed.rglob("*") if path.name.endswith(".part")]
    assert left == []
    if workers:
        return

    again = call(*broken).stdout
    assert "resuming" not in again
    assert "mSRCC" in again, "a finished run shows its results and trains nothing"
