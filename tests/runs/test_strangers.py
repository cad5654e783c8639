"""What leaves the machine, and what a run says of it: no connection, no path that need not be there."""

import json
import os
from pathlib import Path

import pytest

from iqa_lightning.configs import without_places
from tests.datasets.folders import write_csv
from tests.walks import IN_BATCH, TINY, call

GUARD = """
import os, socket
plain_connect, plain_lookup = socket.socket.connect, socket.getaddrinfo
HERE = ("localhost", "127.0.0.1", "::1", "", None)
def note(what):
    with open(os.environ["GUARD_LOG"], "a") as log:
        log.write(what + "\\n")
    raise OSError("no network")
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in HERE:
        note(f"connect {address}")
    return plain_connect(self, address)
def lookup(host, *words, **options):
    if host not in HERE:
        note(f"look up {host}")
    return plain_lookup(host, *words, **options)
socket.socket.connect, socket.getaddrinfo = connect, lookup
"""
"""Takes down every address that is not this machine's, and lets none be reached."""


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which processes of this test note where they wanted to connect to."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard/sitecustomize.py").write_text(GUARD)
    log = tmp_path / "connections"
    paths = [str(tmp_path / "guard"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("GUARD_LOG", str(log))
    return log


@pytest.mark.slow
def test_nothing_opens_a_connection(guarded: Path, tmp_path: Path) -> None:
    """A run with its offline tracking, its evaluation and a check."""
    root, output = write_csv(tmp_path / "set", 30), tmp_path / "out"
    stream = ["stream=folders", f"stream.folders=[{root}]", f"paths.output={output}"]
    tiny = [word for word in TINY if not word.startswith(("logger", "schedule.finetune.epochs"))]
    short = ["schedule.warmup.epochs=0", "schedule.finetune.epochs=1", IN_BATCH]
    call("method=mh_cl", *stream, *tiny, *short)
    call(*stream, module="check")
    (summary,) = output.rglob("summary.json")
    assert json.loads(summary.read_text())["finished"]
    assert not guarded.exists(), guarded.read_text()
    for file in (summary, summary.parent / "data.json", *summary.parent.glob("csv/*/hparams.yaml")):
        assert str(tmp_path) not in file.read_text(), file


@pytest.mark.slow
def test_the_guard_itself(guarded: Path) -> None:
    import subprocess
    import sys

    code = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode
    assert "192.0.2.1" in guarded.read_text()


def test_rays_usage_statistics_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Ray is started, in the process that starts it."""
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    from iqa_lightning.runs.sweep import Sweep

    Sweep()  # Hydra makes its callbacks before its launcher
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_a_config_without_places() -> None:
    config = {
        "paths": {"data": "/home/me/data", "output": "outputs"},
        "stream": {"folders": ["/home/me/照片", {"root": "~/b"}], "order": None},
        "method": {"lr": 0.1, "name": "a/b"},
    }
    assert without_places(config) == {
        "paths": {"data": ".../data", "output": "outputs"},
        "stream": {"folders": [".../照片", {"root": ".../b"}], "order": None},
        "method": {"lr": 0.1, "name": "a/b"},
    }
