"""The commands as a person types them."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException

from iqa_lightning import cli, evaluate
from tests.walks import IN_BATCH, ROOT, TINY, call, stream_of_folders, walk


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"]])
@pytest.mark.parametrize("module", ["train", "evaluate", "check"])
def test_help_answers_without_torch(module: str, words: list[str]) -> None:
    block = "import sys; sys.modules['torch'] = None; sys.modules['pytorch_lightning'] = None; sys.argv[0] = 'x'; "
    code = f"{block}import runpy; runpy.run_module('iqa_lightning.{module}', run_name='__main__')"
    extra = {"train": [], "evaluate": ["run=somewhere"], "check": ["stream=open4"]}[module]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, *extra],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "seed: 0" in done.stdout or module != "train"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method.lerning_rate=1"], "lerning_rate"),
        (["stream.order=[a,zebra]"], "zebra"),
    ],
)
def test_mistakes_are_named(
    words: list[str], said: str, folders: list[Path], tmp_path: Path
) -> None:
    done = call(*TINY, *stream_of_folders(folders), *words, f"paths.output={tmp_path}", check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=nonsense"], "nonsense"),
        (["method=tsn_iqa", "method.init=random"], "random"),
        (["schedule.finetune.trains=norms"], "norms"),
        (["pairs.target=hard"], "hard"),
        (["stream.folders=[no/such/place]"], "no/such/place"),
    ],
)
def test_so_are_these_by_errors_that_the_command_prints(
    words: list[str], said: str, folders: list[Path], tmp_path: Path
) -> None:
    with pytest.raises((ValueError, HydraException), match=said):
        walk(tmp_path, *stream_of_folders(folders), *words)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.slow
def test_a_changed_config_in_an_existing_folder_is_refused(
    folders: list[Path], tmp_path: Path
) -> None:
    words = [
        *TINY,
        IN_BATCH,
        "schedule.warmup.epochs=0",
        "schedule.finetune.epochs=1",
        "method=sh_cl",
        *stream_of_folders(folders),
    ]
    words += [f"paths.output={tmp_path}", "stream.order=[a]"]
    call(*words)
    done = call(*words, "method.optimizer.lr=0.5", check=False)
    assert done.returncode != 0
    assert "method.optimizer.lr: 0.002 there, 0.5 now" in done.stderr
    call(*words, "stream.num_workers=1")


@pytest.mark.slow
def test_a_sweep_over_orders_makes_a_folder_each(folders: list[Path], tmp_path: Path) -> None:
    words = [
        *TINY,
        IN_BATCH,
        "schedule.warmup.epochs=0",
        "schedule.finetune.epochs=1",
        "method=sh_cl",
        *stream_of_folders(folders),
    ]
    call("-m", *words, "stream.order=williams,[[a,b]],[a,b,a]", f"paths.output={tmp_path}")
    found = sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.glob("folders/sh_cl/*/split1/seed0")
    )
    assert found == [
        f"folders/sh_cl/{order}/split1/seed0" for order in ("a+b", "a-b-a_2", "a-b", "b-a")
    ]
    assert all((tmp_path / path / "summary.json").is_file() for path in found)


def test_the_console_script_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    said = capsys.readouterr().out
    for name in ("train", "evaluate", "pretrain", "check", "reproduce"):
        assert f"\n  {name} " in said
    with pytest.raises(SystemExit) as left:
        cli.main(["trian"])
    assert left.value.code == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_the_console_script_becomes_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that ranks, which Lightning starts by the words of this process, are that command too."""
    called: list[list[str]] = []
    monkeypatch.setattr(cli.os, "execv", lambda file, words: called.append(words))
    cli.main(["train", "experiment=demo", "-m"])
    assert called == [[sys.executable, "-m", "iqa_lightning.train", "experiment=demo", "-m"]]


def test_a_folder_may_be_typed_as_it_is(tmp_path: Path) -> None:
    (folder := tmp_path / "lwf@lr=1e-3").mkdir()
    assert evaluate.overrides([str(folder), "run=x"]) == [f"run='{folder}'", "run=x"]
