"""What reaches wandb, by a server that stands in for it: online, by `wandb sync` of a resumed run,
and by `push=`; and what a run does where there is no server.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import wandb

from iqa_lightning.continual import loggers as tracking
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.published import read_published
from iqa_lightning.report.numbers.results import collect
from iqa_lightning.report.numbers.verdicts import summarise
from iqa_lightning.report.wandb_views import push
from iqa_lightning.runs.folder import wandb_parts
from tests.test_contract import Interrupted, interrupt_after
from tests.test_reproduce import HEADER
from tests.walks import IN_BATCH, stream_of_folders, walk
from tests.wandb_server import KEY, Run, Server, wandb_server

STATES = ("after_1_a", "after_2_b")


@pytest.fixture(scope="module")
def words(folders: list[Path]) -> list[str]:
    """Two tasks of one epoch, tracked."""
    few = ["schedule.warmup.epochs=0", "schedule.finetune.epochs=1", "trainer.log_every_n_steps=1"]
    return ["method=sh_cl", "logger=wandb", *few, IN_BATCH, *stream_of_folders(folders)]


@pytest.fixture(autouse=True)
def own_service() -> Iterator[None]:
    """The service of wandb keeps the address that it began with: each test has one of its own."""
    wandb.teardown()
    yield
    wandb.finish()
    wandb.teardown()


@pytest.fixture
def server(own_service: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and the environment by which clients find it."""
    with wandb_server() as state:
        for name, value in state.environment().items():
            monkeypatch.setenv(name, value)
        yield state


def check_received(run: Run, folder: Path) -> None:
    """Every matrix, the config, and steps that grow."""
    for kind in ("srcc", "stability"):
        for t, state in enumerate(STATES, 1):
            key = f"{kind}/single/{state}"
            tables = [row[key] for row in run.rows() if key in row]
            if kind == "stability" and t == 1:  # no task has been left behind yet
                assert tables == []
                continue
            table = json.loads(run.files[tables[0]["path"]])
            stored = pd.read_csv(folder / f"{kind}_single.csv").iloc[: t + 1]
            assert table["columns"] == list(stored.columns)
            cells = [value for row in table["data"] for value in row[1:]]
            expected = stored.iloc[:, 1:].to_numpy().ravel().tolist()
            cells = [float("nan") if cell is None else cell for cell in cells]
            assert cells == pytest.approx(expected, abs=1e-12, nan_ok=True)
            assert any(f"{kind}_map/single/{state}" in row for row in run.rows())
    assert run.config["method"]["value"]["optimizer"]["lr"] == 0.002
    assert run.config["run"]["value"]["order"] == ["a", "b"]
    steps = [row["_step"] for row in run.rows()]
    assert steps == sorted(set(steps))
    assert [row["task/t"] for row in run.rows() if "task/msrcc/single" in row] == [1, 2]


@pytest.mark.slow
def test_a_resumed_run_is_sent_in_two_parts(
    words: list[str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the closing lines of the run say: `wandb sync <part>`, one after the other."""
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        with pytest.MonkeyPatch.context() as stop:
            interrupt_after(stop, 4 + 2)
            with pytest.raises(Interrupted):
                walk(tmp_path, *words, draw=True)
        folder = walk(tmp_path, *words, draw=True)
    parts = wandb_parts(folder)
    assert [offline for offline, _ in parts] == [True, True]
    for _, part in parts:
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", str(part)],
            env=os.environ | server.environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (run,) = server.runs.values()
    check_received(run, folder)


@pytest.mark.slow
def test_an_online_run_and_its_views(words: list[str], server: Server, tmp_path: Path) -> None:
    folder = walk(tmp_path / "out", *words, "logger.offline=false", draw=True)
    (run,) = server.runs.values()
    check_received(run, folder)
    assert not any(offline for offline, _ in wandb_parts(folder))

    (tmp_path / "published.csv").write_text(f"{HEADER}\n")
    results = collect([RunFolder(folder)], 20)
    summary = summarise(results, read_published(tmp_path / "published.csv"))
    said = push("me/iqa_lightning", "tiny", "folders", results, summary)
    assert said.count(f"{server.url}/me/iqa_lightning") == 2
    workspace, report = server.views
    assert workspace["type"] == "project-view"
    assert report["type"] == "runs"
    (runs,) = workspace["spec"]["section"]["runSets"]
    assert next(key["name"] for key in runs["grouping"]) == "run.value.method"
    assert "sh_cl" in json.dumps(report["spec"])


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.slow
@pytest.mark.parametrize("network", ["deaf", "refused", "lost"])
def test_without_a_network_a_run_is_offline(
    network: str, deaf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within ten seconds of waiting, besides what the start of the service itself takes; also where
    the network is lost after the first answer.
    """
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9" if network == "refused" else deaf)
    if network == "lost":
        monkeypatch.setattr(tracking, "reach", lambda server: None)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    begun = time.monotonic()
    with pytest.warns(UserWarning, match="wandb is offline in this run"):
        (logger,) = tracking.make_loggers(tmp_path, "n", "g", csv=False, offline=False)
    took = time.monotonic() - begun
    logger.log_metrics({"x": 1}, step=0)
    wandb.finish()
    print(f"{network}: offline after {took:.1f} s")
    assert took < 60, "on a machine with much else to do"
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1


@pytest.mark.parametrize(
    ("mode", "asked", "offline"),
    [("online", True, False), ("offline", False, True), ("dryrun", False, True), ("", True, True)],
)
def test_the_mode_of_the_environment_decides(
    mode: str, asked: bool, offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    started: list[SimpleNamespace] = []
    monkeypatch.setattr(
        tracking, "start_wandb", lambda counter, **given: started.append(SimpleNamespace(**given))
    )
    tracking.make_loggers(tmp_path, "n", "g", csv=False, offline=asked)
    assert [start.offline for start in started] == [offline]
