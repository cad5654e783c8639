"""Makes the stored numbers: `OMP_NUM_THREADS=1 python -m tests.stored.record [name ...]`, all or those that begin so.

A name is that of a file here: `matrices/cpu/lwf.csv`, `pretraining/qpt`, `configs`. What is written is text, which
`tests/test_numbers.py` finds again; no number depends on what ran before it.

What says which numbers these are stands in two kinds of tables. WORDS are the choices whose values are shown to stay:
none of their rates, gates, weights and the like is set here. SIZE, NETWORK, READER and SMALLER only make a run short.
"""

import csv
import hashlib
import io
import json
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file

from iqa_lightning.pretrain import pretrain, probe
from iqa_lightning.runs.compose import to_dict
from iqa_lightning.runs.grid import planned_runs, read_grid
from tests.walks import ROOT, composed, stream_of_folders, walk, write_folder

HERE = Path(__file__).resolve().parent
METHODS = sorted(path.stem for path in (HERE / "matrices" / "paper").glob("*.csv"))

# (a) the words that make a budget: a method with the values that it has there

PAPER = {  # by how the name of a method begins
    "tsn_iqa": ("schedule=tsn_paper", "pairs=paper", "view=paper"),
    "unique": ("schedule=unique_paper", "pairs=unique_paper", "view=unique"),
    "liqe": ("schedule=liqe_paper", "pairs=liqe_paper", "view=liqe"),
    "": ("schedule=lwf_paper", "pairs=paper", "view=paper"),
}


def setting(method: str) -> tuple[str, ...]:
    """The paper's schedule, pairs and view."""
    return next(words for start, words in PAPER.items() if method.startswith(start))


WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {method: (f"method={method}_cpu", "schedule=cpu") for method in METHODS},
    "paper": {method: (f"method={method}", *setting(method)) for method in METHODS},
}

# (b) what makes a run short, whatever its method

SIZE = (
    "stream=demo",
    "stream.order=[blur,noise,tone]",
    "trainer=cpu",
    "logger=none",
    "view.crop=32",
    "view.resize=0",
)
SIZE = (*SIZE, "select_best=false")  # so that every epoch leaves its trace
NETWORK = ("backbone=tiny", "view.evaluation=center")
TEXT = "{context_length: 24, vocab_size: 49408, width: 16, heads: 1, layers: 1}"  # 495 sentences in each step
READER = (
    "backbone=clip_tiny",
    f"backbone.options.text_cfg={TEXT}",
    "view.evaluation=windows",
)  # for liqe*
SMALLER = {  # where a config has the key
    "pairs.min_images": 0,
    "pairs.count": 32,
    "pairs.steps": 8,
    "view.windows": 2,
    "method.replay_memory.capacity": 60,
}
SMALLER_IN = {"cpu": {}, "paper": {"method.generator_phase.epochs": 1}}
EPOCHS = {"constant": 1}  # by decay; else 2, so that the decay shows
BATCHES = {256: 16, 64: 4}  # others stay


def sized(budget: str, method: str) -> list[str]:
    """The overrides that make the run of a method short."""
    words, smaller = WORDS[budget][method], SMALLER | SMALLER_IN[budget]
    fixed = [*SIZE, *(READER if method.startswith("liqe") else NETWORK)]
    cfg = composed(*words, *fixed)
    fixed += [
        f"{key}={value}" for key, value in smaller.items() if OmegaConf.select(cfg, key) is not None
    ]
    for name, phase in cfg.schedule.items():
        if phase.epochs:
            epochs, batch = EPOCHS.get(phase.get("decay", "constant"), 2), phase.batch_size
            fixed += [
                f"schedule.{name}.epochs={epochs}",
                f"schedule.{name}.batch_size={BATCHES.get(batch, batch)}",
            ]
    return fixed


# matrices


def matrices(folder: Path) -> str:
    """All SRCC matrices of a run below one another as the run wrote them, the readout in front."""
    lines: list[str] = []
    for path in sorted(folder.glob("srcc_*.csv")):
        head, *rows = path.read_text().splitlines()
        lines = lines or [f"readout,{head}"]
        lines += [f"{path.stem[5:]},{row}" for row in rows]
    return "\n".join([*lines, ""])


def rounded(text: str) -> str:
    """A table with twelve decimals: a swap of two images shows in the fifth, the last digits are the processor's."""
    return "\n".join(",".join(map(decimals, line.split(","))) for line in text.splitlines())


def decimals(cell: str) -> str:
    """A cell, shortened where it is a number."""
    try:
        return f"{float(cell) + 0.0:.12f}"
    except ValueError:
        return cell


def matrix(budget: str, method: str) -> str:
    """The matrices of a method in a budget."""
    with TemporaryDirectory() as folder:
        return matrices(walk(Path(folder), *WORDS[budget][method], *sized(budget, method), base=()))


# pre-trainings

SHORT = ("backbone=tiny", "trainer=cpu")
PATCHES = (
    *SHORT,
    "trainer.precision=32-true",
    "data.embedded=false",
    "data.batch_size=8",
    "data.num_workers=0",
)
PRETRAINING = {
    "qpt": (
        *PATCHES,
        "epochs=2",
        "method.patch=24",
        "method.width=8",
        "method.queue=16",
        "data.resize=0",
    ),
    "arniqa": (*PATCHES, "epochs=2", "method.patch=24"),
    "reiqa": (*PATCHES, "epochs=2", "method.patch=24", "method.width=8", "method.queue=176"),
    "metaiqa": (
        *SHORT,
        "epochs=2",
        "data.visits=2",
        "data.resize=36",
        "data.crop=32",
        "view.crop=32",
    ),
    "probe": ("backbone=tiny", "~probe.starts.imagenet", "probe.splits=[1,2]", "view.resize=0"),
}
PRETRAINING["metaiqa"] += ("data.support_batch=8", "data.query_batch=4", "data.tasks=2")


def pretraining(name: str) -> str:
    """Hash and mean of every tensor that a small pre-training writes; of the probe its two tables."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with TemporaryDirectory() as place:
            folders = [write_folder(Path(place) / key, seed) for seed, key in enumerate("ab")]
            words = (
                f"pretraining={name}",
                *PRETRAINING[name],
                *stream_of_folders(folders),
                f"paths.output={place}/runs",
            )
            if name == "probe":
                probe(composed(*words, f"probe.output={place}/probe", config="pretrain"))
                files = sorted(Path(place, "probe", "results").glob("*.csv"))
                return as_json(
                    {
                        path.stem: list(csv.DictReader(path.read_text().splitlines()))
                        for path in files
                    }
                )
            pretrain(composed(*words, config="pretrain"))
            (file,) = Path(place, "runs").rglob("weights.safetensors")
            return as_json({key: described(tensor) for key, tensor in load_file(file).items()})
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)


def described(tensor: torch.Tensor) -> dict[str, Any]:
    """What a tensor is, to a person and to the bit."""
    digest = hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
    shape = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
    return shape | {"mean": float(f"{tensor.double().mean().item():.6g}"), "sha256": digest}


# configs

PLACES = ("paths.data=data", "paths.output=outputs")
TABLES = sorted(
    path.stem
    for path in (HERE / "configs").glob("*.json")
    if path.stem not in ("experiments", "methods")
)
STORED_EXPERIMENTS = json.loads((HERE / "configs" / "experiments.json").read_text()).keys()
EXPERIMENTS = {
    str(path.relative_to(ROOT / "conf" / group).with_suffix("")): (group, command)
    for group, command in (("experiment", "train"), ("pretraining", "pretrain"))
    for path in sorted((ROOT / "conf" / group).rglob("*.yaml"))
    if str(path.relative_to(ROOT / "conf" / group).with_suffix("")) in STORED_EXPERIMENTS
}


def table_configs(table: str) -> str:
    """What each method and variant of a table runs with: of its runs the first."""
    grid = read_grid(ROOT / "experiments" / table / "runs.yaml")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        runs = planned_runs(grid, list(PLACES))
    return as_json({run.method: run.config for run in reversed(runs)})


def experiment_configs() -> str:
    """What each experiment and pre-training composes to with its own method."""
    return as_json(
        {
            name: composed_here(f"{group}={name}", config=command)
            for name, (group, command) in EXPERIMENTS.items()
        }
    )


def method_configs() -> str:
    """The values of each method and its schedule in each budget, the sizes that a recording leaves out among them."""
    configs: dict[str, dict[str, Any]] = {}
    for budget, methods in WORDS.items():
        for method, words in methods.items():
            cfg = composed_here(*words)
            configs[f"{budget}/{method}"] = {
                key: cfg[key] for key in ("method", "schedule", "pairs", "view")
            }
    return as_json(configs)


def composed_here(*words: str, config: str = "train") -> dict[str, Any]:
    """A config with its references resolved, on any machine the same."""
    cfg: DictConfig = composed(*words, *PLACES, config=config)
    return to_dict(cfg)


def as_json(content: Any) -> str:
    """Content as stored: one order, one way to write."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


# the demo's table


def demo() -> str:
    """The SRCC matrices of the demo's table as committed: method, readout, after, data set."""
    content: dict[str, Any] = {}
    with (ROOT / "experiments" / "demo" / "results" / "cells.csv").open() as file:
        for row in csv.DictReader(file):
            readout = content.setdefault(row["method"], {}).setdefault(row["readout"], {})
            readout.setdefault(row["after"], {})[row["dataset"]] = row["srcc"]
    return as_json(content)


RECORDS: dict[str, Callable[[], str]] = {
    **{f"configs/{table}.json": partial(table_configs, table) for table in TABLES},
    "configs/experiments.json": experiment_configs,
    "configs/methods.json": method_configs,
    "demo.json": demo,
    **{f"pretraining/{name}.json": partial(pretraining, name) for name in PRETRAINING},
    **{
        f"matrices/{budget}/{m}.csv": partial(matrix, budget, m)
        for budget, methods in WORDS.items()
        for m in methods
    },
}
"""Every stored file, and what makes its text now."""


def processor() -> dict[str, str]:
    """What the processor is, as far as rounding can follow from it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    facts = dict(line.partition(":")[::2] for line in reversed(lines) if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    keys = ("vendor_id", "cpu family", "model", "cache size")
    return {key: facts.get(key, "unknown") for key in keys}


def main(names: list[str]) -> None:
    """Write the files whose names start with one of the given ones, or all."""
    begin = perf_counter()
    for file, make in RECORDS.items():
        if names and not file.startswith(tuple(names)):
            continue
        start, path = perf_counter(), HERE / file
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        state = "same" if path.is_file() and path.read_text() == text else "written"
        path.write_text(text)
        print(f"{perf_counter() - start:6.1f} s  {state:7}  {file}", flush=True)
    print(f"{perf_counter() - begin:6.1f} s in all")


if __name__ == "__main__":
    main(sys.argv[1:])
    if any(name.startswith(("matrices", "pretraining")) for name in sys.argv[1:]):
        (HERE / "processor.json").write_text(as_json(processor()))
