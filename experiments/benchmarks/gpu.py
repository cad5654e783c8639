"""A GPU against a processor: one command, under eight minutes on one GPU; writes `results/gpu.csv`.

    python experiments/benchmarks/gpu.py                 all, on the GPU
    python experiments/benchmarks/gpu.py --device cpu --small     the same code against itself, as the tests run it

For each method a step of its second task (so that teachers, importances and memories take part) and an evaluation are
made on both devices from the same weights: the loss and the scores in float32 must agree to 1e-4; in bfloat16 the
difference is stated. Steps run under `torch.use_deterministic_algorithms`, and what refuses is named. That all tensors
of a step are on the device is shown without one too, by a forward pass under fake tensors of a GPU. Then, for each
preset of a paper at its real size: images a second and peak memory plain, in bfloat16, with channels first and
compiled; and how many crops a core can hand over.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from iqa_lightning.images.transforms import View, random_view
from iqa_lightning.runs.compose import CONF, instantiate
from iqa_lightning.runs.forecast import Bench, moved, random_batch, timed

RESULTS = Path(__file__).parent / "results"
HEADER = ("device", "what", "subject", "value", "unit", "note")
TOLERANCE = 1e-4
SECONDS = 420

TINY = ("backbone=tiny", "view.crop=64", "pairs=paper", "pairs.count=8", "~pairs.counts")
TEXT = "{context_length: 24, vocab_size: 49408, width: 16, heads: 1, layers: 1}"
READER = ("backbone=clip_tiny", f"backbone.options.text_cfg={TEXT}", "view=liqe", "view.crop=64")
METHODS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("sh_cl", "mh_cl", "sl", "jl", "jl_cl", "lwf", "ema_teacher", "ewc", "si"), TINY
    ),
    **dict.fromkeys(("mas", "l2_anchor", "sh_cl_replay", "mh_cl_replay", "icarl_v1"), TINY),
    **dict.fromkeys(("icarl_v2", "agem", "der_pp", "gdumb", "tsn_iqa", "unique", "metaiqa"), TINY),
    **dict.fromkeys(("lpf_per_task",), TINY),
    **dict.fromkeys(("liqe", "liqe_lwf"), READER),
}
PRESETS = ("zhang2022/lwf", "zhang2022/tsn_iqa", "unique/paper", "liqe/joint", "metaiqa_finetune")
REAL = {"liqe/joint": ("backbone.pretrained=null",)}


def composed(*words: str) -> DictConfig:
    """The config of a training."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", [*words, "logger=none"])


def build(cfg: DictConfig) -> Any:
    """The method of a config, for two tasks, from the same random start each time."""
    torch.manual_seed(0)
    made = instantiate(cfg.method, _partial_=True, _convert_="all")
    return made(backbone=instantiate(cfg.backbone), tasks=["a", "b"], task_datasets=["a", "b"])


def batch_of(method: Any, cfg: DictConfig, images: int) -> dict[str, Any]:
    """A batch of the second task, with one of its memory where there is one."""
    pairs, view = instantiate(cfg.pairs), instantiate(cfg.view)
    batch = random_batch(pairs, view, images)
    learns = method.training_images
    if learns.replay_memory is not None and learns.images == "task":
        batch["replay"] = random_batch(pairs, view, images, seed=1)
    return batch


def on(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch and its memory on a device."""
    moved_batch = moved(batch, device)
    if "replay" in batch:
        moved_batch["replay"] = moved(batch["replay"], device)
    return moved_batch


# --- the same on both


@contextmanager
def deterministic() -> Iterator[None]:
    """Within it an operation without a deterministic form is refused."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def parity(name: str, device: torch.device, images: int = 8) -> Iterator[tuple[Any, ...]]:
    """Rows of a method: differences of loss and scores, what refused, where tensors are."""
    cfg = composed(f"method={name}", *METHODS[name])
    found: dict[str, tuple[float, dict[str, Tensor]]] = {}
    for key, where in (("cpu", torch.device("cpu")), ("other", device), ("bf16", device)):
        bench = Bench(build(cfg), where)
        batch = on(batch_of(bench.method, cfg, images), where)
        bench.begin("all", t=2, images=[batch])
        try:
            with deterministic(), torch.autocast(where.type, torch.bfloat16, key == "bf16"):
                loss = bench.step(batch)
        except RuntimeError as error:
            yield "refused", name, 1, "", " ".join(str(error).split())[:120]
            return
        found[key] = loss, {k: v.float().cpu() for k, v in bench.scores(batch).items()}
    for key, label in (("other", "float32"), ("bf16", "bfloat16")):
        yield f"loss {label}", name, abs(found[key][0] - found["cpu"][0]), "", ""
        gaps = [
            float((v - found["cpu"][1][k]).abs().nan_to_num().max())
            for k, v in found[key][1].items()
        ]
        yield f"scores {label}", name, max(gaps), "", ""


def placed(name: str, images: int = 4) -> str:
    """Whether all tensors of a step are on its device: `ok`, or what mixes; on no real device."""
    cfg = composed(f"method={name}", *METHODS[name], "method.bn_stats=frozen")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = build(cfg)
        batch = batch_of(method, cfg, images)
        with FakeTensorMode(allow_non_fake_inputs=True):  # a stray one of the processor then mixes
            cuda = torch.device("cuda")
            for module in method.modules():
                for key, value in module._parameters.items():
                    if value is not None:
                        empty = torch.empty(value.shape, dtype=value.dtype, device=cuda)
                        module._parameters[key] = torch.nn.Parameter(empty, requires_grad=False)
                for key, value in module._buffers.items():
                    if value is not None and key != "task":  # whose value decides what is run
                        module._buffers[key] = torch.empty(
                            value.shape, dtype=value.dtype, device=cuda
                        )
            faked = {
                k: torch.empty(v.shape, dtype=v.dtype, device=cuda) if isinstance(v, Tensor) else v
                for k, v in batch.items()
                if k != "replay"
            }
            try:
                method.eval().loss(faked)
            except (DataDependentOutputException, RuntimeError) as error:
                said = " ".join(str(error).split())[:120] or type(error).__name__
                return said if "device" in said else f"not shown, it reads values ({said})"
    return "ok"


# --- how fast


def speed(preset: str, device: torch.device, images: int, small: bool) -> Iterator[tuple[Any, ...]]:
    """Rows of a preset: images a second and peak memory, plain and with each switch."""
    words = list(REAL.get(preset, ("backbone.weights=null",)))
    cfg = composed(f"experiment={preset}", *words)
    if "scnn_weights" in cfg.backbone:
        words.append("backbone.scnn_weights=null")
    if small:
        words += ["backbone=clip_tiny"] if "liqe" in preset else []
        words += ["view.crop=64"] + (["view.squeeze=72"] if "squeeze" in cfg.view else [])
        words = [word for word in words if not (small and word == "backbone.pretrained=null")]
    cfg = composed(f"experiment={preset}", *words)
    switches = {"plain": (False, True, None), "bf16": (True, True, None)}
    switches |= {"channels_first": (False, False, None), "compile": (False, True, "inductor")}
    for switch, (half, last, compiler) in switches.items():
        if small and switch in ("channels_first", "compile"):
            continue
        bench = Bench(build(cfg), device)
        backbone = bench.method.backbone
        if hasattr(backbone, "lay_out"):
            backbone.lay_out(torch.channels_last if last else torch.contiguous_format)
            backbone.compiler = compiler
        batch = on(batch_of(bench.method, cfg, images), device)
        bench.begin("all")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            with torch.autocast(device.type, torch.bfloat16, half):
                seconds = timed(lambda b=bench, x=batch: b.step(x), bench.wait)
        except Exception as error:  # a compiler that is not there, memory that is not
            yield f"step {switch}", preset, "", "", " ".join(str(error).split())[:120]
            continue
        yield f"step {switch}", preset, images / seconds, "images/s", f"batch {images}"
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) / 1e9
            yield f"peak {switch}", preset, peak, "GB", f"batch {images}"


def loader(crops: int = 200) -> float:
    """Crops of 384 pixels a second that one core cuts from a picture in memory."""
    view, rng = View(768, 384), np.random.default_rng(0)
    image = torch.randint(0, 256, (3, 768, 1024), dtype=torch.uint8)
    start = perf_counter()
    for top, left, flip in rng.random((crops, 3)):
        random_view(image, view, top, left, flip)
    return crops / (perf_counter() - start)


def measured(
    device: torch.device, small: bool, methods: Iterable[str]
) -> Iterator[tuple[Any, ...]]:
    """All rows, as long as there is time."""
    start = perf_counter()
    for name in methods:
        yield from parity(name, device)
        yield "tensors placed", name, "", "", placed(name)
    presets = PRESETS[1:2] if small else PRESETS
    for preset in presets:
        if perf_counter() - start > SECONDS:
            yield "left out", preset, "", "", "time was up"
            continue
        yield from speed(preset, device, 4 if small else 32, small)
    yield "crops of one core", "384 pixels", loader(), "crops/s", "pictures decoded, in memory"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--output", default=str(RESULTS / "gpu.csv"))
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here: nothing measured (--device cpu --small tries the script)")
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    rows = []
    for row in measured(device, given.small, given.methods):
        what, subject, value, unit, note = row
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        rows.append((name, what, subject, text, unit, note))
        print("  ".join(map(str, rows[-1])), flush=True)
    with Path(given.output).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])
    strict = [r for r in rows if r[1] in ("loss float32", "scores float32")]
    wrong = [r for r in strict if not float(r[3]) <= TOLERANCE]
    wrong += [r for r in rows if r[1] == "refused"]
    if wrong:
        raise SystemExit(f"{len(wrong)} rows beyond {TOLERANCE:g} or refused, first {wrong[0]}")


if __name__ == "__main__":
    main()
