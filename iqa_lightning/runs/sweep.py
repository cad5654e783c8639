"""A sweep, `python -m iqa_lightning.train -m ...`: all orders of a design by one word, and a report
at the end.

Hydra's launcher starts jobs, one per combination; a job only starts the process of its run and
notes what became of it in the folder of the sweep, so that this holds under every launcher. The
same command skips what is finished and goes on with what was interrupted.

Slurm: of the two who could requeue a job, Lightning and submitit, it is submitit, since its job is
the one that Slurm signals on preemption and `hydra.launcher.signal_delay_s` before its end: the job
ends its run, which loses at most the epoch under way, and hands itself in again. This is tested
with submitit's local executor, signal included, and the submission and the ranks of a run with a
Slurm made of shell scripts; a real Slurm has not seen it.
"""

import atexit
import json
import os
import warnings
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from iqa_lightning import signals
from iqa_lightning.files import write_bytes
from iqa_lightning.runs.folder import task_names
from iqa_lightning.runs.process import Outcome, run_subprocess, title_of
from iqa_lightning.stream.orders import single_names

STATES = ("failed", "unfinished", "busy", "skipped", "finished")


PLUGINS = {
    "hydra_joblib_launcher": "joblib",
    "hydra_ray_launcher": "ray",
    "hydra_submitit_launcher": "submitit",
}
"""Launcher plugins and what each stands on."""


# conf/hydra/launcher: presets by the names of the plugins, whose own configs check and complete
# them
warnings.filterwarnings(
    "ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema with the same name"
)


def run_job(cfg: DictConfig) -> None:
    """One job of a sweep: train its run and note what became of it in the folder of the sweep; it
    raises nothing.
    """
    hydra = HydraConfig.get()
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]  # it is a dict
    words = list(hydra.overrides.task)
    more = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath")]
    for source in hydra.runtime.config_sources:
        more += ["--config-dir", source.path] if source.provider == "command-line" else []
    note = Path(hydra.sweep.dir) / f"{hydra.job.num}.json"
    title = title_of(config, hydra.runtime.choices)
    write_note(note, Outcome(title, "unfinished", "it was started and did not come back"))
    try:
        outcome = run_subprocess(config, hydra.runtime.choices, words, more=more)
    except signals.Interrupted as interrupt:
        write_note(note, Outcome(title, "unfinished", str(interrupt)))
        signals.say(str(interrupt))
        raise SystemExit(interrupt.status) from None
    except KeyboardInterrupt:  # in a worker of joblib, which hears Ctrl-C as we do
        raise SystemExit(130) from None
    write_note(note, outcome)
    print(outcome, flush=True)


def write_note(file: Path, outcome: Outcome) -> None:
    """Store an outcome as JSON."""
    write_bytes(file, f"{json.dumps(asdict(outcome), indent=2)}\n".encode())


class Sweep(Callback):
    """What happens around a sweep, in the process that the user started; `hydra.callbacks.sweep` of
    conf/train.yaml.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        # before the launcher starts Ray, which sends statistics home unless it is told not to
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # Hydra's signature
        """Check the launcher, spell out designs of orders, and fix where jobs note what became of
        their runs.

        Raises:
            SystemExit: A plugin is not installed, or a design cannot be spelt out. (Hydra turns
                other errors of a callback into warnings.)
        """
        try:
            require_plugin(config.hydra.launcher)
            spell_out(config)
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        signals.move_to(signals.RAISE)  # the report is printed in any case
        self.folder = Path(config.hydra.sweep.dir).absolute()
        place = str(self.folder).replace("'", r"\'")
        config.hydra.overrides.hydra.append(
            f"hydra.sweep.dir='{place}'"
        )  # jobs resolve their own config
        atexit.register(
            self.report
        )  # Hydra does not call back after an interrupt or a launcher's own error

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # Hydra's signature
        """Print the report.

        Raises:
            SystemExit: A run failed or is unfinished.
        """
        if broken := self.report():
            raise SystemExit(
                f"{broken} of the runs failed or are unfinished: the same command tries these "
                "again and skips the others"
            )

    def report(self) -> int:
        """Print what became of each run, once; how many failed or did not come back."""
        if self.folder is None:
            return 0
        files = sorted(self.folder.glob("*.json"), key=lambda file: int(file.stem))
        outcomes = [Outcome(**json.loads(file.read_bytes())) for file in files]
        counts = {state: sum(outcome.state == state for outcome in outcomes) for state in STATES}
        said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        print(f"\n{len(outcomes)} runs: {said or 'none was started'}")
        width = max((len(outcome.run) for outcome in outcomes), default=0)
        for outcome in outcomes:
            print(f"  {outcome.state:10}  {outcome.run:{width}}  {outcome.folder}")
            print(f"  {'':10}  {outcome.reason}") if outcome.reason else None
        self.folder = None
        return counts["failed"] + counts["unfinished"]


def require_plugin(launcher: DictConfig) -> None:
    """Refuse a launcher whose plugin is not installed.

    Raises:
        ValueError: naming what is missing and how to get it.
    """
    module = str(launcher.get("_target_", "")).split(".")[:2]
    needed = [".".join(module), PLUGINS[module[1]]] if module[-1] in PLUGINS else []
    for name in needed:
        try:
            there = find_spec(name) is not None
        except ModuleNotFoundError:  # not even the package that would hold it
            there = False
        if not there:
            raise ValueError(
                f"this launcher needs {name}, which is not installed: pip install "
                "'iqa-lightning[cluster]'"
            )


def spell_out(config: DictConfig) -> None:
    """Put the orders that `williams` and `all` stand for in the place of these words among the task
    overrides.

    Raises:
        ValueError: There are too many, or the stream is swept as well, so that its tasks have no
            one name.
    """
    parser, words = OverridesParser.create(), config.hydra.overrides.task
    parsed = [parser.parse_override(word) for word in words]
    swept = [str(override.key_or_group) for override in parsed if override.is_sweep_override()]
    for number, override in enumerate(parsed):
        if override.key_or_group != "stream.order" or override.is_delete():
            continue
        values = (
            override.sweep_string_iterator()
            if override.is_discrete_sweep()
            else [override.get_value_element_as_str()]
        )
        values = [str(value) for value in values]
        bare = [value.strip("'\"") for value in values]
        if not {"williams", "all"} & set(bare):
            continue
        if both := [key for key in swept if key in ("experiment", "stream")]:
            raise ValueError(
                f"stream.order={','.join(bare)} is a list of orders of one stream, and {both[0]} "
                "is swept too: sweep "
                "one stream at a time"
            )
        tasks = task_names(config.stream)
        designs = {name: single_names(name, tasks) for name in {"williams", "all"} & set(bare)}
        names = [
            name
            for value, word in zip(values, bare, strict=True)
            for name in designs.get(word, [value])
        ]
        words[number] = f"stream.order={','.join(dict.fromkeys(names))}"
