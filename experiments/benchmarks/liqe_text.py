"""Cost of a training step of LIQE when all sentences are read in each step, and when a frozen
encoder reads them once.

Both are steps of the same model on the same images (forward, backward, AdamW), taken in turn in one
process, so that other work on the machine slows both alike. Beside the seconds stand the megabytes
that a step keeps for its backward pass. Fails where the frozen encoder is less than three times as
fast for the small CLIP and its 495 sentences. Those take ViT-B/32, here at random, three minutes a
step on a CPU: it is shown with the 45 sentences without distortions. `python
experiments/benchmarks/liqe_text.py`
"""

import csv
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import torch

from iqa_lightning.methods.liqe import LIQE
from iqa_lightning.models.clip import CLIP

WANTED = 3.0
TINY: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
BOTH, SCENE = ("scene", "distortion"), ("scene",)
MODELS = {"tiny": (TINY, BOTH, 64, 16, 9), "ViT-B/32": ({}, SCENE, 224, 1, 3)}
"""Options, labels, pixels, images (of three windows each) and how often a step is timed."""


def build(options: dict[str, Any], labels: tuple[str, ...], freeze: str) -> LIQE:
    """LIQE with its optimiser."""
    torch.manual_seed(0)
    clip = CLIP("ViT-B-32-quickgelu", options=options)
    adamw = partial(torch.optim.AdamW, lr=5e-6)
    method = LIQE(backbone=clip, tasks=["a"], optimizer=adamw, labels=labels, freeze=freeze)
    method.trainer = SimpleNamespace(optimizers=[method.configure_optimizers()])  # type: ignore[assignment]
    return method


def batch_of(images: int, side: int) -> dict[str, Any]:
    """Noise with labels."""
    pairs = torch.combinations(torch.arange(images), 2)
    return {
        "image": torch.randint(0, 256, (images, 3, 3, side, side), dtype=torch.uint8),
        "pairs": pairs,
        "target": torch.ones(len(pairs)),
        "dataset_index": torch.zeros(images, dtype=torch.long),
        "scene": ["human"] * images,
        "distortion": ["blur"] * images,
    }


def seconds(method: LIQE, batch: dict[str, Any]) -> float:
    """One step."""
    (optimizer,) = method.trainer.optimizers
    start = perf_counter()
    optimizer.zero_grad()
    method.loss(batch).backward()
    optimizer.step()
    return perf_counter() - start


def megabytes(method: LIQE, batch: dict[str, Any]) -> float:
    """What the forward pass of a step keeps, weights aside."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in method.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = method.loss(batch)
    del loss
    return sum(kept.values()) / 1e6


def main() -> None:
    """Measure, print, write results/liqe_text.csv, fail where the promise is not kept."""
    torch.set_num_threads(1)
    rows = [
        [
            "model",
            "sentences",
            "windows",
            "each step (s)",
            "once (s)",
            "ratio",
            "each step (MB)",
            "once (MB)",
        ]
    ]
    ratios = {}
    for name, (options, labels, side, images, repeats) in MODELS.items():
        methods = [build(options, labels, freeze) for freeze in ("none", "text")]
        batch = batch_of(images, side)
        memory = [
            megabytes(method, batch) for method in methods
        ]  # and the frozen one has read its sentences
        times = [[seconds(method, batch) for method in methods] for _ in range(repeats)]
        every, once = (median(column) for column in zip(*times, strict=True))
        ratios[name] = every / once
        sentences = len(next(iter(methods[0].clip.tokens)))
        row = [
            name,
            str(sentences),
            str(3 * images),
            f"{every:.3f}",
            f"{once:.3f}",
            f"{every / once:.1f}",
        ]
        rows.append([*row, *(f"{value:.0f}" for value in memory)])
    for row in rows:
        print("  ".join(cell.rjust(14) for cell in row))
    file = Path(__file__).parent / "results" / "liqe_text.csv"
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as text:
        csv.writer(text, lineterminator="\n").writerows(rows)
    if ratios["tiny"] < WANTED:
        raise SystemExit(
            f"the frozen text encoder is {ratios['tiny']:.1f} times as fast, {WANTED} was promised"
        )


if __name__ == "__main__":
    main()
