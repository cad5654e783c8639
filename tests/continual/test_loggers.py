"""Tracking: what wandb's offline file and the CSV files hold after a walk, and that neither can
cost a run.
"""

import builtins
import json
import math
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import wandb
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from iqa_lightning.continual import loggers as tracking
from tests.test_contract import Interrupted, interrupt_after
from tests.walks import IN_BATCH, ROOT, results, stream_of_folders, walk

BLOCK = (
    32768  # bytes; a `.wandb` file is a LevelDB log of protobuf messages behind 7 bytes of header
)
TASKS = {1: "a", 2: "b"}
READOUTS = ("latest", "oracle")
WORDS = ["method=mh_cl", "schedule.finetune.epochs=1", "trainer.log_every_n_steps=1", IN_BATCH]


def messages(file: Path) -> Iterator[Record]:
    """All messages of a `.wandb` file."""
    data, at, message = file.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # too little for a header: padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(message)
            message = b""


class Tracked:
    """A run folder and what wandb wrote below it, in the order of time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
        self.found: dict[str, list[Any]] = defaultdict(list)
        for file in self.files:
            for record in messages(file):
                kind = str(record.WhichOneof("record_type"))
                self.found[kind].append(getattr(record, kind))

    def history(self) -> list[dict[str, Any]]:
        """Logged rows."""
        name = "/".join  # keys with slashes are not nested, keys of a table are
        rows = self.found["history"]
        return [
            {
                name(item.nested_key) or item.key: json.loads(item.value_json)
                for item in row.item
                if item.value_json
            }
            for row in rows
        ]

    def values(self, key: str) -> list[Any]:
        """What was logged under a key."""
        return [row[key] for row in self.history() if key in row]

    def config(self) -> dict[str, Any]:
        """The configuration of the wandb run."""
        updates = [item for config in self.found["config"] for item in config.update]
        return {
            item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates
        }

    def media(self, name: str) -> Path:
        """A file that a row names."""
        (path,) = self.folder.glob(f"wandb/offline-run-*/files/{name}")
        return path


@pytest.fixture(scope="module")
def overrides(folders: list[Path]) -> list[str]:
    """The walk of this file."""
    return [*WORDS, *stream_of_folders(folders)]


@pytest.fixture(scope="module")
def untracked(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The records of the walk without any logger."""
    return results(walk(tmp_path_factory.mktemp("untracked"), *overrides))


@pytest.fixture(scope="module")
def tracked(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """The walk with wandb and CSV, broken off in the third step of the second task and resumed."""
    output = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(patch, 2 * 4 + 3)
        with pytest.raises(Interrupted):
            walk(output, *overrides, "logger=wandb", draw=True)
    return Tracked(walk(output, *overrides, "logger=wandb", draw=True))


@pytest.mark.slow
def test_tracking_changes_no_record(tracked: Tracked, untracked: dict[str, bytes]) -> None:
    assert results(tracked.folder) == untracked


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_wandb_run(tracked: Tracked) -> None:
    runs = tracked.found["run"]
    assert len(tracked.files) == len(runs) == 2
    assert {run.run_id for run in runs} == {(tracked.folder / "wandb_id").read_text()}
    assert {run.display_name for run in runs} == {"mh_cl a-b split1 seed0"}
    assert all(run.resume for run in runs)


@pytest.mark.slow
def test_rows_are_numbered_on_over_a_resume(tracked: Tracked) -> None:
    steps = [row["_step"] for row in tracked.history()]
    assert len(steps) > 20
    assert steps == sorted(set(steps))


@pytest.mark.slow
def test_wandb_knows_what_the_run_is(tracked: Tracked) -> None:
    config, summary = tracked.config(), json.loads((tracked.folder / "summary.json").read_text())
    assert config["method"]["_target_"] == "iqa_lightning.methods.finetune.MultiHead"
    assert config["method"]["optimizer"]["lr"] == 0.002
    assert config["schedule"]["finetune"]["epochs"] == 1
    assert config["run"]["git"] == summary["git"]
    assert config["run"]["split_hash"] == summary["split_hash"]
    assert len(summary["split_hash"]) == 16


@pytest.mark.slow
def test_losses_and_validation_reach_wandb(tracked: Tracked) -> None:
    # 4 steps in each of 4 epochs; two of the last-but-one were taken twice, since it was broken off
    losses = tracked.values("train/loss")
    assert len(losses) == 4 * 4 + 2
    assert all(0 < loss < 1 for loss in losses)
    assert losses[8:10] == losses[10:12]
    epochs = [(row["epoch"], row["task"]) for row in tracked.history() if "val/srcc" in row]
    assert epochs == [(0, 1), (1, 1), (2, 2), (3, 2)]
    assert len(tracked.values("val/srcc/a")) == len(tracked.values("val/srcc/b")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("readout", READOUTS)
def test_measures_of_each_task_have_the_task_as_axis(tracked: Tracked, readout: str) -> None:
    summary = json.loads((tracked.folder / "summary.json").read_text())
    axes = {metric.name: metric.step_metric for metric in tracked.found["metric"]}
    for measure in ("msrcc", "mpi", "msi", "mpsi"):
        key = f"task/{measure}/{readout}"
        rows = [(row["task/t"], row[key]) for row in tracked.history() if key in row]
        assert [t for t, _ in rows] == [1, 2]
        assert rows[-1][1] == pytest.approx(summary["readouts"][readout][measure], abs=1e-12)
        assert axes[key] == "task/t", (
            "by its full name: of two globs that match, wandb takes either"
        )


@pytest.mark.slow
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("kind", ["srcc", "stability"])
@pytest.mark.parametrize("t", TASKS)
def test_matrices_are_tables_and_images_of_their_own(
    tracked: Tracked, kind: str, readout: str, t: int
) -> None:
    key = f"{readout}/after_{t}_{TASKS[t]}"
    paths = tracked.values(f"{kind}/{key}/path")
    if kind == "stability" and t == 1:
        assert paths == [], "no task has been left behind yet"
        return
    (path,) = paths
    table = json.loads(tracked.media(path).read_text())
    stored = pd.read_csv(tracked.folder / f"{kind}_{readout}.csv").iloc[: t + 1]
    assert table["columns"] == ["after", "a", "b"]
    assert [row[0] for row in table["data"]] == ["start", "a", "b"][: t + 1]
    for row, expected in zip(table["data"], stored.itertuples(index=False), strict=True):
        cells = [math.nan if cell is None else cell for cell in row[1:]]
        assert cells == pytest.approx(list(expected[1:]), abs=1e-12, nan_ok=True)
    ((picture,),) = tracked.values(f"{kind}_map/{key}/filenames")
    with Image.open(tracked.media(picture)) as image:
        assert min(image.size) > 300


@pytest.mark.slow
def test_a_resumed_run_keeps_the_earlier_csv(tracked: Tracked) -> None:
    parts = [pd.read_csv(path) for path in sorted(tracked.folder.glob("csv/*/metrics.csv"))]
    assert len(parts) == 2
    assert parts[0]["val/srcc/a"].notna().sum() == 2
    assert parts[0]["train/loss"].notna().sum() == 8 + 2
    assert parts[1]["val/srcc/b"].notna().sum() == 2
    assert pd.concat(parts)["task/t"].dropna().tolist() == [1, 2]


@pytest.fixture(scope="module")
def single(overrides: list[str]) -> list[str]:
    """A walk of one task and one epoch."""
    return [*overrides, "method=sh_cl", "stream.order=[a]", "schedule.warmup.epochs=0"]


@pytest.fixture(scope="module")
def alone(single: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Its records without any logger."""
    return results(walk(tmp_path_factory.mktemp("alone"), *single))


def without_wandb(patch: pytest.MonkeyPatch) -> None:
    """As if wandb were not installed."""
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "wandb":
            raise ModuleNotFoundError("No module named 'wandb'")
        return original(name, *args, **kwargs)

    patch.setattr(builtins, "__import__", refuse)


def broken(*names: str) -> Callable[[pytest.MonkeyPatch], None]:
    """As if wandb failed where these are called."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the service is gone")

    def apply(patch: pytest.MonkeyPatch) -> None:
        for name in names:
            patch.setattr(name, fail)

    return apply


def undrawable(patch: pytest.MonkeyPatch) -> None:
    """As if a picture could not be made."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("not a picture")

    patch.setattr(tracking, "Image", SimpleNamespace(open=fail))


RUN = "wandb.sdk.wandb_run.Run"


@pytest.mark.slow
def test_a_row_is_in_the_file_though_the_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; "
        "from iqa_lightning.continual import loggers; "
        "loggers.TIMEOUT = 200; "  # a busy machine starts wandb late, which is not shown here
        "(logger,) = loggers.make_loggers(Path(sys.argv[1]), 'n', 'g', csv=False); "
        "logger.log_metrics({'x': 7}, step=3); logger.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    # the service of this process, which does not end with the killed one, would hold the run
    alone = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            check=False,
            cwd=ROOT,
            env=alone,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr
    found = Tracked(tmp_path)
    assert len(found.files) == 2
    assert [(row["x"], row["_step"]) for row in found.history()] == [(7, 0), (7, 1)]
    assert {run.run_id for run in found.found["run"]} == {(tmp_path / "wandb_id").read_text()}


@pytest.mark.slow
def test_without_a_key_an_online_run_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    monkeypatch.setattr("wandb.api", SimpleNamespace(api_key=None))
    try:
        with pytest.warns(UserWarning, match=r"offline in this run .no API key"):
            (logger,) = tracking.make_loggers(tmp_path, "n", "g", csv=False, offline=False)
        logger.log_metrics({"x": 1}, step=0)
    finally:
        wandb.finish()
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1


def test_wandb_mode_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking.make_loggers(tmp_path, "n", "g", csv=False) == []
    monkeypatch.setenv("WANDB_MODE", "offline")
    started = []
    monkeypatch.setattr(
        tracking, "start_wandb", lambda counter, offline, **options: started.append(offline)
    )
    tracking.make_loggers(tmp_path, "n", "g", csv=False, offline=False)
    assert started == [True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (without_wandb, "no wandb in this run .No module named 'wandb'"),
        (broken("wandb.init"), "no wandb in this run .the service is gone"),
        (broken(f"{RUN}.log", "wandb.finish"), "without this entry: the service is gone"),
        (undrawable, "without this entry: not a picture"),
    ],
)
def test_wandb_missing_or_failing_loses_nothing(
    fault: Callable[[pytest.MonkeyPatch], None],
    said: str,
    single: list[str],
    alone: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        with monkeypatch.context() as patch:
            fault(patch)
            with pytest.warns(Warning, match=said):
                folder = walk(tmp_path, *single, "logger=wandb", draw=True)
    finally:
        wandb.finish()
    assert results(folder) == alone
    assert json.loads((folder / "summary.json").read_text())["finished"] is True
    assert (folder / "srcc.png").is_file()
    assert len(list(folder.glob("csv/*/metrics.csv"))) == 1


@pytest.mark.slow
def test_trackio_has_what_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from its database, after a resume too."""
    pytest.importorskip("trackio", reason="an extra: pip install 'iqa-lightning[trackio]'")
    script = (
        "import sys; from pathlib import Path\n"
        "from iqa_lightning.continual.loggers import make_loggers\n"
        "options = dict(wandb=False, csv=False, trackio=True, project='p')\n"
        "logger, = make_loggers(Path('.'), 'lwf a-b split1', 'demo', **options)\n"
        "step = int(sys.argv[1])\n"
        "logger.log_hyperparams({'seed': 3})\n"
        "logger.log_metrics({'loss': 1 / (step + 1)}, step=step)\n"
        "logger.finalize('success')\n"
    )
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    for step in ("1", "3"):
        subprocess.run([sys.executable, "-c", script, step], check=True, cwd=ROOT)
    with closing(sqlite3.connect(tmp_path / "p.db")) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics").fetchall()
        (config,) = database.execute("SELECT config FROM configs").fetchone()
    assert [(name, step, json.loads(row)) for name, step, row in rows] == [
        ("lwf a-b split1", 1, {"loss": 0.5}),
        ("lwf a-b split1", 3, {"loss": 0.25}),
    ]
    assert json.loads(config)["seed"] == 3
    assert json.loads(config)["_Group"] == "demo"


def test_trackio_missing_or_failing_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)  # `import trackio` fails
    with pytest.warns(UserWarning, match=r"no trackio in this run.*iqa-lightning\[trackio\]"):
        made = tracking.make_loggers(tmp_path, "a", "b", wandb=False, csv=True, trackio=True)
    assert [type(logger).__name__ for logger in made] == ["CSVLogger"]

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    failing = SimpleNamespace(log=fail, finish=fail, config=SimpleNamespace(update=fail))
    logger = tracking.TrackioLogger(failing)
    for entry in (
        lambda: logger.log_metrics({"loss": 1.0}, step=1),
        lambda: logger.log_hyperparams({"seed": 1}),
        lambda: logger.finalize("success"),
    ):
        with pytest.warns(RuntimeWarning, match="no space left"):
            entry()
