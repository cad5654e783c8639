"""Small walks for tests: data sets of noise that a small network can rate, runs in this process and
in their own.
"""

import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict
from PIL import Image

from iqa_lightning.train import run

ROOT = Path(__file__).resolve().parents[1]
EACH_KIND = (
    *(
        "sh_cl",
        "jl_cl",
        "lwf",
        "ewc",
        "mh_cl_replay",
        "icarl_v2",
        "agem",
        "der_pp",
        "tsn_iqa",
        "lora",
    ),
    *("liqa", "liqe", "unique", "metaiqa", "ridge", "tsn_ridge", "grepq_adapt", "lpf_per_task"),
    *("grmp_iqa_prompts", "dp_iqa"),
)
"""One method of each way to learn."""


def each(names: Iterable[str], kept: Collection[str] = EACH_KIND) -> list[Any]:
    """Parameters of a test that shows one promise for many: what is not `kept` is left to `make
    test-all`.
    """
    return [
        name if Path(name).stem in kept else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in names
    ]


TINY = (
    "backbone=tiny",
    "trainer=cpu",
    "view.crop=32",
    "view.resize=0",
    "schedule.warmup.batch_size=8",
    "logger=none",
)
TINY = (
    *TINY,
    "schedule.finetune.batch_size=8",
    "schedule.finetune.epochs=2",
    "method.optimizer.lr=0.002",
    "method.head_lr_factor=300",
    "method.bn_stats=frozen",
    "variant=''",  # folders by the plain name of the method
)
IN_BATCH = "pairs.min_images=0"  # so that a pass over a small data set is an epoch
SAMPLED = ("pairs=paper", "pairs.count=16")


def small_towers(method: str) -> list[str]:
    """Small random networks for methods that need a CLIP or a diffusion model, and images of their
    size.
    """
    if method.startswith("grmp_iqa"):
        few = ["method.visual=4", "method.last_blocks=1"]
        return ["backbone=clip_tiny", "view.evaluation=center", *few]
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra dp_iqa)")
    if method == "dp_iqa_teacher":
        return ["backbone=diffusion_tiny", "method.width=32"]
    return ["method/teacher=tiny", "method.side=64"]


def suited(method: str) -> list[str]:  # noqa: PLR0911  # one for each kind
    """What a method needs besides TINY: MetaIQA its rate, LIQE a network that reads, and windows of
    its size.
    """
    if method == "metaiqa":  # its sigmoid is flat where large steps lead
        rates = ["method.optimizer.lr=0.0001", "method.head_lr_factor=100"]
        return [*rates, "method.bn_stats=first_epoch"]
    if method.startswith(("grmp_iqa", "dp_iqa")):
        return [*small_towers(method), "method.head_lr_factor=1.0"]
    if method.startswith("ridge"):  # a wide projection takes its time; nothing is left on the disk
        small = ["method.projection=50"] if method == "ridge_projected" else []
        return ["method.cache=ram", *small]
    if method.startswith("lpf"):  # plain layers, not heads on unit-norm features
        return ["method.head_lr_factor=1.0"]
    if method == "grepq_adapt":  # FSIM of nine versions in each step takes a second each
        return ["method.contrast.kinds=[jpeg]", "method.contrast.grid=2", "method.scenes=2"]
    if not method.startswith("liqe"):
        return []
    text = "{context_length: 24, vocab_size: 49408, width: 16, heads: 1, layers: 1}"  # 495 sentences in each step
    words = ["backbone=clip_tiny", f"backbone.options.text_cfg={text}", "view.evaluation=windows"]
    return [
        *words,
        "method.optimizer.lr=0.0005",
    ]  # scores are in [1, 5]: a step moves them further than others


def write_folder(folder: Path, seed: int, images: int = 40, shuffled: bool = False) -> Path:
    """A folder data set whose images get more noise, and so a lower MOS, one by one."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    level = rng.permutation(images) / images
    for i in range(images):
        smooth = np.cumsum(rng.normal(0, 3, (36, 40 + 4 * (i % 2), 3)), axis=1) + 128
        pixels = smooth + rng.normal(0, 1 + 80 * level[i], smooth.shape)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            folder / "images" / f"{i:03d}.png"
        )
    mos = 100 * (1 - (rng.permutation(level) if shuffled else level))
    names = [f"images/{i:03d}.png" for i in range(images)]
    pd.DataFrame({"image": names, "mos": mos, "mos_std": 5.0}).to_csv(
        folder / "ratings.csv", index=False
    )
    return folder


def stream_of_folders(folders: list[Path]) -> list[str]:
    """Overrides that make a stream of folders."""
    return ["stream=folders", f"stream.folders=[{','.join(map(str, folders))}]"]


def composed(*overrides: str, config: str = "train") -> DictConfig:
    """The config of a command in this process, as the command line would make it."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(config, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def walk(output: Path, *overrides: str, draw: bool = False, base: Sequence[str] = TINY) -> Path:
    """A run in this process, on one thread, mostly without figures, a third of so short a run; its
    folder.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            nullcontext()
            if draw
            else patch("iqa_lightning.report.figures.heat_maps", return_value=b"no picture")
        ):
            run(composed(*base, f"paths.output={output}", *overrides))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    return next(output.glob("*/*/*/split*/seed*"))


def results(folder: Path) -> dict[str, bytes]:
    """The bytes of all records and weights of a run; of the summary all but the seconds."""
    names = [*folder.glob("*.csv"), *folder.glob("predictions/*"), *folder.glob("tasks/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(names)}


def command(*words: str, module: str = "train") -> list[str]:
    """A command of the package."""
    return [sys.executable, "-m", f"iqa_lightning.{module}", *words]


def environment() -> dict[str, str]:
    """One thread a process: the tests run side by side, and the same number of threads gives the
    same bits.
    """
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "WANDB_MODE": "offline"}


def call(
    *words: str, module: str = "train", check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a command of the package to its end."""
    done = subprocess.run(
        command(*words, module=module),
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        timeout=900,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
