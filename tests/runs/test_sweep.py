"""Sweeps: under each launcher, resumed, with runs that fail, two at a time; several ranks in a run
of a sweep.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from iqa_lightning.runs.folder import BUSY, sole_owner
from iqa_lightning.runs.process import Outcome, train
from iqa_lightning.runs.sweep import Sweep, require_plugin, spell_out
from tests.walks import IN_BATCH, ROOT, TINY, call, command, environment, results, stream_of_folders

LAUNCHERS = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra.sweeper.max_batch_size=2"],
    "ray": ["hydra.launcher.ray.init.num_cpus=2"],
}


@pytest.fixture(scope="module")
def words(folders: list[Path]) -> list[str]:
    """A run of two tasks that takes seconds."""
    return [
        *TINY,
        IN_BATCH,
        "schedule.warmup.epochs=0",
        "method=sh_cl",
        *stream_of_folders(folders),
    ]


@pytest.fixture(scope="module")
def alone(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the run of split 1 and order a, b gives by itself."""
    output = tmp_path_factory.mktemp("alone")
    call(*words, f"paths.output={output}")
    return results(output / "folders/sh_cl/a-b/split1/seed0")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A word in the environment of every process that a test starts."""
    monkeypatch.setenv("STARTED_BY_TEST", str(tmp_path))
    return f"STARTED_BY_TEST={tmp_path}"


def processes(mark: str, word: str = "") -> list[int]:
    """Running processes that bear the mark and have a word in their command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = mark.encode() in (folder / "environ").read_bytes().split(b"\0")
            if marked and word.encode() in (folder / "cmdline").read_bytes().replace(b"\0", b" "):
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def wait_for(condition, seconds: float = 600):
    """What `condition` returns as soon as that is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
    return value


def states(output: Path) -> list[str]:
    """What the last sweep noted of its runs, in its order."""
    last = max((output / "sweeps").iterdir())
    notes = sorted(last.glob("*.json"), key=lambda file: int(file.stem))
    return [json.loads(note.read_text())["state"] for note in notes]


def start(*words: str) -> subprocess.Popen:
    """A sweep in the background."""
    return subprocess.Popen(
        command("-m", *words), env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_runs_under_a_launcher(
    launcher: str, words: list[str], alone, mark: str, tmp_path: Path
) -> None:
    """Each ends with the bytes of a run by itself; no process is left."""
    more = [
        f"hydra/launcher={launcher}",
        *LAUNCHERS[launcher],
        "split=1,2",
        f"paths.output={tmp_path}",
    ]
    done = call("-m", *words, *more)
    assert "2 runs: 2 finished" in done.stdout
    assert "ConfigStore" not in done.stderr
    first, second = (tmp_path / f"folders/sh_cl/a-b/split{split}/seed0" for split in (1, 2))
    assert results(first) == alone
    assert json.loads((second / "summary.json").read_text())["finished"]
    assert results(second).keys() == alone.keys()
    wait_for(lambda: not processes(mark), 120)


@pytest.mark.slow
def test_one_failed_run_ends_in_the_report_and_what_is_finished_is_skipped(
    words: list[str], tmp_path: Path
) -> None:
    output = f"paths.output={tmp_path}"
    done = call("-m", *words, "split=11,1", output, check=False)
    assert done.returncode == 1
    assert states(tmp_path) == ["failed", "finished"]
    assert "2 runs: 1 failed, 1 finished" in done.stdout
    assert "split is 11; it is a whole number from 1 to 10" in done.stdout.split("2 runs:")[1]
    assert "1 of the runs failed" in done.stderr
    finished = tmp_path / "folders/sh_cl/a-b/split1/seed0"
    files = [file for file in finished.rglob("*") if file.is_file()]
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}

    again = call("-m", *words, output)
    assert states(tmp_path) == ["skipped"]
    assert "1 runs: 1 skipped" in again.stdout
    assert {file for file in finished.rglob("*") if file.is_file()} == set(files)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files} == before

    changed = call("-m", *words, output, "method.optimizer.lr=0.5", check=False)
    assert changed.returncode == 1
    assert "method.optimizer.lr: 0.002 there, 0.5 now" in changed.stdout


@pytest.mark.slow
def test_a_killed_sweep_takes_its_run_along_and_goes_on_with_it(
    words, alone, mark: str, tmp_path: Path
) -> None:
    log = tmp_path / "folders/sh_cl/a-b/split1/seed0/train.log"
    with start(*words, f"paths.output={tmp_path}") as sweep:
        wait_for(lambda: log.is_file() and "1/2 a, finetune 2/2" in log.read_text())
        sweep.kill()
    wait_for(lambda: not processes(mark), 120)
    assert call("-m", *words, f"paths.output={tmp_path}").returncode == 0
    assert "resuming at epoch" in log.read_text()
    assert results(log.parent) == alone


@pytest.mark.slow
def test_a_preempted_job_is_handed_in_again_and_goes_on(
    words: list[str], alone, mark: str, tmp_path: Path
) -> None:
    """SIGUSR2 is how Slurm, as submitit asks it to, announces a preemption or the end of the time
    limit.
    """
    log = tmp_path / "folders/sh_cl/a-b/split1/seed0/train.log"
    with start("hydra/launcher=submitit_local", *words, f"paths.output={tmp_path}") as sweep:
        wait_for(lambda: log.is_file() and "1/2 a, finetune 2/2" in log.read_text())
        (job,) = processes(mark, "submitit.core._submit")
        os.kill(job, signal.SIGUSR2)
        said, _ = sweep.communicate(timeout=900)
    assert sweep.returncode == 0
    assert "1 runs: 1 finished" in said
    assert "resuming at epoch" in log.read_text()
    assert results(log.parent) == alone


@pytest.mark.slow
def test_two_sweeps_at_once_do_not_collide(words: list[str], alone, tmp_path: Path) -> None:
    words = [*words, "split=1,2", f"paths.output={tmp_path}"]
    sweeps = [start(*words), start(*words)]
    said = [sweep.communicate(timeout=900)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], said
    assert len(list((tmp_path / "sweeps").iterdir())) == 2
    assert results(tmp_path / "folders/sh_cl/a-b/split1/seed0") == alone
    assert json.loads((tmp_path / "folders/sh_cl/a-b/split2/seed0/summary.json").read_text())[
        "finished"
    ]


@pytest.mark.slow
def test_a_run_of_another_process_is_left_to_it(words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "folders/sh_cl/a-b/split1/seed0"
    with sole_owner(folder):
        done = call("-m", *words, f"paths.output={tmp_path}")
        assert call(*words, f"paths.output={tmp_path}", check=False).returncode == BUSY
    assert states(tmp_path) == ["busy"]
    assert "1 runs: 1 busy" in done.stdout
    assert "another process is at work" in done.stdout
    assert not (folder / "predictions").exists()


TWO_RANKS = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "stream.order=[a]")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", pytest.param("ray", marks=pytest.mark.exhaustive)])
def test_two_ranks_in_a_run_under_a_launcher(
    launcher: str, words: list[str], mark: str, tmp_path: Path
) -> None:
    done = call(
        "-m",
        f"hydra/launcher={launcher}",
        *LAUNCHERS[launcher],
        *words,
        *TWO_RANKS,
        f"paths.output={tmp_path}",
    )
    assert "1 runs: 1 finished" in done.stdout
    assert (
        "GLOBAL_RANK: 1, MEMBER: 2/2"
        in (tmp_path / "folders/sh_cl/a/split1/seed0/train.log").read_text()
    )
    assert len(list((tmp_path / "sweeps").iterdir())) == 1, (
        "the second rank started the sweep again"
    )
    wait_for(lambda: not processes(mark), 120)


SBATCH = """#!/bin/sh
cp "$1" "$STARTED_BY_TEST/job.sh"
export SLURM_JOB_ID=77 SLURM_JOB_NAME=iqa SLURM_NTASKS=1 SLURM_NTASKS_PER_NODE=1 SLURM_NNODES=1 SLURM_PROCID=0
export SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_JOB_NODELIST=localhost
sh "$STARTED_BY_TEST/job.sh" > "$STARTED_BY_TEST/job.log" 2>&1 &  # submitit moves its own away
echo "Submitted batch job 77"
"""
SRUN = """#!/bin/sh
while true; do case "$1" in --output|--error) shift 2;; --*) shift;; *) break;; esac; done
exec "$@"
"""


@pytest.mark.slow
def test_slurm_made_of_shell_scripts(
    words, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job asks for what the preset says, and its run starts its second rank itself, as one task
    of Slurm.
    """
    (tmp_path / "bin").mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN)):
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    done = call(
        "-m",
        "hydra/launcher=slurm",
        "hydra.launcher.partition=gpu",
        *words,
        *TWO_RANKS,
        f"paths.output={tmp_path}",
    )
    assert "1 runs: 1 finished" in done.stdout, (tmp_path / "job.log").read_text()
    asked = {
        line.removeprefix("#SBATCH --") for line in (tmp_path / "job.sh").read_text().splitlines()
    }
    expected = {
        "partition=gpu",
        "gpus-per-node=1",
        "cpus-per-task=8",
        "mem=32GB",
        "time=240",
        "ntasks-per-node=1",
    }
    assert expected | {"requeue", "signal=USR2@120", "nodes=1"} <= asked
    assert (
        "GLOBAL_RANK: 1, MEMBER: 2/2"
        in (tmp_path / "folders/sh_cl/a/split1/seed0/train.log").read_text()
    )


def spelt_out(*words: str, tasks: str = "abc") -> list[str]:
    config = OmegaConf.create(
        {"hydra": {"overrides": {"task": list(words)}}, "stream": {"tasks": dict.fromkeys(tasks)}}
    )
    spell_out(config)
    return list(config.hydra.overrides.task)


def test_designs_of_orders_are_spelt_out() -> None:
    six = "stream.order=" + ",".join(f"williams:{k}" for k in range(1, 7))
    assert spelt_out("split=1,2", "stream.order=williams") == ["split=1,2", six]
    assert spelt_out("stream.order='williams'") == [six]
    assert spelt_out("stream.order=choice(williams)") == [six]
    assert spelt_out("stream.order=reverse,all,[a,b]", tasks="ab") == [
        "stream.order=reverse,all:1,all:2,[a,b]"
    ]
    untouched = ["stream.order=[a,b],[[a,b],c],random:1", "method=lwf,sh_cl"]
    assert spelt_out(*untouched) == untouched


def test_orders_of_several_streams_have_no_one_name() -> None:
    with pytest.raises(ValueError, match="experiment is swept too"):
        spelt_out("experiment=demo,open4", "stream.order=williams")
    assert spelt_out("experiment=demo,open4", "stream.order=reverse,default")
    with pytest.raises(ValueError, match="5 tasks at most"):
        spelt_out("stream.order=all", tasks="abcdef")


@pytest.mark.parametrize(
    ("name", "needs"), [("joblib", "joblib"), ("ray", "ray"), ("slurm", "submitit")]
)
def test_a_missing_plugin_is_named(name: str, needs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = OmegaConf.load(ROOT / "conf/hydra/launcher" / f"{name}.yaml")
    require_plugin(preset)
    monkeypatch.setitem(sys.modules, needs, None)
    with pytest.raises(ValueError, match=rf"{needs}.*pip install 'iqa-lightning\[cluster\]'"):
        require_plugin(preset)
    monkeypatch.setitem(sys.modules, str(preset["_target_"]).rsplit(".", 2)[0], None)
    with pytest.raises(
        ValueError, match=r"hydra_plugins\.hydra_\w+_launcher, which is not installed"
    ):
        require_plugin(preset)


def test_a_run_that_did_not_come_back_counts_as_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = [
        Outcome("one", "finished", folder="x"),
        Outcome("two", "unfinished"),
        Outcome("three", "busy", "why"),
    ]
    for number, outcome in enumerate(outcomes):
        (tmp_path / f"{number}.json").write_text(json.dumps(vars(outcome)))
    sweep = Sweep()
    sweep.folder = tmp_path
    assert sweep.report() == 1
    assert "3 runs: 1 unfinished, 1 busy, 1 finished" in capsys.readouterr().out
    assert sweep.report() == 0, "it is printed once"


def test_no_rank_or_job_step_reaches_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts the sweep may be a rank, or a task of Slurm: the run is neither."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nenv\necho $@\necho 'error: two'\necho '  lines'\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    for name in ("LOCAL_RANK", "MASTER_PORT", "WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.setenv(name, "7")
    assert train(["a=b"], tmp_path / "run" / "train.log", {"OMP_NUM_THREADS": "3"}) == (
        3,
        "two lines",
    )
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    assert {"OMP_NUM_THREADS=3", "PYTHONUNBUFFERED=1", "-m iqa_lightning.train a=b"} <= set(lines)
    assert not [line for line in lines if line.endswith("=7")]


def test_a_run_that_is_killed_says_by_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -9 $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert train([], tmp_path / "train.log", {}) == (-9, "killed by SIGKILL")
