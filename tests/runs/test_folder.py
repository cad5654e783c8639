"""A run seen from outside: the config of a folder, its one owner, names, the process that trains
it.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from iqa_lightning.runs import folder as runs
from iqa_lightning.runs.folder import flat
from tests.walks import ROOT

BASE = {
    "seed": 0,
    "method": {"lr": 0.1, "gate": {"clusters": 8}},
    "stream": {"order": ["a", "b"], "num_workers": 0},
}
BASE |= {"paths": {"data": "x"}, "trainer": {"devices": 1}}


def config(**changed: object) -> dict:
    cfg = OmegaConf.create(BASE)
    for key, value in changed.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return OmegaConf.to_container(cfg, resolve=True)


def begin(folder: Path) -> Path:
    """A folder in which something is recorded."""
    (folder / "predictions").mkdir(parents=True)
    (folder / "predictions" / "after_0_start.parquet").touch()
    return folder


def test_the_config_of_a_new_folder_is_kept(tmp_path: Path) -> None:
    runs.keep_config(tmp_path / "run", config())
    assert OmegaConf.load(tmp_path / "run" / "config.yaml") == BASE
    runs.keep_config(tmp_path / "run", config())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 1}, "seed: 0 there, 1 now"),
        ({"method__gate__clusters": 9}, "method.gate.clusters: 8 there, 9 now"),
        ({"stream__order": ["b", "a"]}, r"stream.order: \['a', 'b'\] there, \['b', 'a'\] now"),
        ({"method__momentum": 0.9}, "method.momentum: None there, 0.9 now"),
    ],
)
def test_a_changed_key_is_refused_and_named(changed: dict, said: str, tmp_path: Path) -> None:
    runs.keep_config(begin(tmp_path), config())
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=said) as error:
        runs.keep_config(tmp_path, config(**changed, paths__data="y"))
    assert "paths" not in str(error.value).split("take these back")[0]
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_a_removed_key_is_refused(tmp_path: Path) -> None:
    runs.keep_config(begin(tmp_path), config(method__momentum=0.9))
    with pytest.raises(ValueError, match=r"method\.momentum: 0\.9 there, None now"):
        runs.keep_config(tmp_path, config())


@pytest.mark.parametrize(
    "key",
    [
        *("paths__data", "paths__output", "stream__tasks__a__root", "logger", "logger__wandb"),
        *(
            "variant",
            "allow_leakage",
            "stream__cache",
            "stream__cache_dir",
            "stream__num_workers",
            "stream__max_megapixels",
        ),
        *("stream__max_pixels", "trainer__accelerator", "trainer__log_every_n_steps"),
        *("trainer__enable_progress_bar", "trainer__enable_model_summary"),
    ],
)
def test_what_changes_no_result_may_change(key: str, tmp_path: Path) -> None:
    runs.keep_config(begin(tmp_path), config())
    runs.keep_config(tmp_path, config(**{key: "another"}))


def test_references_are_compared_by_their_value(tmp_path: Path) -> None:
    runs.keep_config(begin(tmp_path), config(method__gate__clusters="${seed}"))
    assert "clusters: 0" in (tmp_path / "config.yaml").read_text()
    runs.keep_config(tmp_path, config(method__gate__clusters=0))
    with pytest.raises(ValueError, match="seed"):
        runs.keep_config(tmp_path, config(method__gate__clusters=0, seed=1))


def test_leaves_by_dotted_key() -> None:
    assert flat({"a": {"b": 1, "c": {"d": [1, {"e": 2}]}}, "f": None}) == {
        "a.b": 1,
        "a.c.d": [1, {"e": 2}],
        "f": None,
    }


@pytest.mark.slow
def test_a_killed_owner_leaves_no_lock_though_its_workers_live_on(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys, time; from iqa_lightning.runs.folder import sole_owner; "
        "sole_owner(pathlib.Path(sys.argv[1])).__enter__(); "
        "time.sleep(20) if os.fork() == 0 else os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    with runs.sole_owner(tmp_path):
        pass


@pytest.mark.slow
def test_a_second_process_is_refused(tmp_path: Path) -> None:
    code = "import sys, pathlib; from iqa_lightning.runs.folder import sole_owner; "
    words = [
        sys.executable,
        "-c",
        f"{code}sole_owner(pathlib.Path(sys.argv[1])).__enter__()",
        str(tmp_path),
    ]
    with runs.sole_owner(tmp_path):
        refused = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert refused.returncode != 0
    assert f"another process is at work in {tmp_path}" in refused.stderr
    assert subprocess.run(words, check=False, cwd=ROOT).returncode == 0


def test_a_process_for_another_device_needs_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with runs.sole_owner(tmp_path):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with runs.sole_owner(tmp_path):
            pass


@pytest.mark.parametrize(
    ("ranks", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),
    ],
)
def test_the_first_process(
    ranks: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ranks.items():
        monkeypatch.setenv(name, value)
    assert runs.is_first_process() is first


def test_names_of_long_orders_fit_a_file_system() -> None:
    assert runs.shortened("a-b") == "a-b"
    assert runs.shortened("x" * 120) == "x" * 120
    first, second = (runs.shortened("x" * 300 + end) for end in "ab")
    assert first != second
    assert first == runs.shortened("x" * 300 + "a")
    assert len(first) == len(second) <= 120
    assert set(first) <= set("x-0123456789abcdef")
