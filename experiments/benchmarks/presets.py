"""The presets of conf/trainer on a processor: a training step of each against the plain one
(float32, channels last).

ResNet-18 from a random start, 16 images of 128x128 pixels, one core. A GPU preset is not measured
here. `torch.compile` needs a C++ compiler; where there is none the table says so. Its first step,
which compiles, is given in seconds of the clock. That freed memory stays with the process cannot be
taken back, so those steps come last, without turns. `python experiments/benchmarks/presets.py`
"""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter
from typing import Any

import torch
from measuring.sides import HEADER, compared, in_turns, show
from training import batch, ready, step

from iqa_lightning.continual.runtime import Network, keep_freed_memory
from iqa_lightning.methods.finetune import SingleHead
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.gating import UniformGate

METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "full": (SingleHead, {}),
    "TSN-IQA": (TSNIQA, {"gate": UniformGate}),
}
PRESETS = {
    "channels_first": Network(channels_last=False),
    "bf16": Network(),
    "compile": Network(compiler="inductor"),
}
REPEATS = 3


def way(kind: Any, options: dict[str, Any], name: str, preset: str) -> Callable[[], None]:
    """One step of a method under a preset."""
    method, optimizer = ready(kind, name, "all", **options)
    PRESETS.get(preset, Network()).setup(None, method, "fit")  # type: ignore[arg-type]  # reads the method only
    data = batch()

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16) if preset == "bf16" else nullcontext():
            loss = method.loss(data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return partial(step, method, optimizer, data) if preset == "plain" else run


def measure(name: str) -> list[list[str]]:
    """Rows of one network."""
    rows = []
    for label, (kind, options) in METHODS.items():
        ways = {
            preset: way(kind, options, name, preset)
            for preset in ("plain", "channels_first", "bf16")
        }
        first = 0.0
        if shutil.which("g++") or shutil.which("clang++"):
            ways["compile"] = way(kind, options, name, "compile")
            start = perf_counter()
            ways["compile"]()
            first = perf_counter() - start
        seconds = in_turns(ways, REPEATS, 1)
        for preset in ("channels_first", "bf16", "compile"):
            what = f"{name}, {label}: {preset} / plain"
            if preset not in ways:
                rows.append([f"{what}: no C++ compiler here", *[""] * 6])
                continue
            rows.append(compared(what, seconds[preset], seconds["plain"]))
        if first:
            rows[-1][0] += f" (first step {first:.0f} s)"
    return rows


def memory(*names: str) -> list[list[str]]:
    """Rows of freed memory; from here on it is kept."""
    ways = {name: way(SingleHead, {}, name, "plain") for name in names}
    before = in_turns(ways, 2 * REPEATS, 1)
    assert keep_freed_memory(), "this C library cannot be told to keep memory"
    after = in_turns(ways, 2 * REPEATS, 1)
    return [
        compared(f"{name}, full: freed memory kept / given back", after[name], before[name])
        for name in names
    ]


def main() -> None:
    """Measure, print, write results/presets.csv."""
    torch.set_num_threads(1)
    rows = [*measure("resnet18"), *memory("resnet18", "tf_efficientnet_lite0")]
    gpu = "measure it there" if torch.cuda.is_available() else "unmeasured: no GPU here"
    show("presets", [HEADER, *rows, [f"gpu: {gpu}", *[""] * 6]])


if __name__ == "__main__":
    main()
