"""Six tasks of the size of KonIQ-10k, simulated: does memory grow with the images, how long do records and tables take.

Random 16x16 images made on the fly go through a tiny network; each task trains two batches. Every size runs in a
process of its own, whose largest memory is read from the system. `python experiments/benchmarks/six_tasks.py`
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch
from measuring.noise import noise_stream
from measuring.sides import show, slope

from iqa_lightning.continual import callback
from iqa_lightning.continual.callback import ContinualLearning
from iqa_lightning.data.stream import Phase
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.gating import MeanFeatureGate
from iqa_lightning.records import RunFolder
from iqa_lightning.report.sweep import run_tables

SIZES, TASKS, LIMIT = (1_000, 3_200, 10_073), 6, 60.0


class Book:
    """Seconds spent on records, metrics and tables."""

    seconds = 0.0

    def timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same, its time written down."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self.seconds += perf_counter() - start

        return wrapped


def child(images: int) -> None:
    """A walk; prints its largest memory in megabytes and its seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    book, start = Book(), perf_counter()
    callback.derive = book.timed(callback.derive)  # type: ignore[attr-defined]
    for name in ("write_predictions", "write_derived", "write_summary", "predictions"):
        setattr(RunFolder, name, book.timed(getattr(RunFolder, name)))
    stream = noise_stream([images] * TASKS, 16, [Phase("finetune", 1, 8)], max_pixels=64 * 16 * 16)
    names = [task.name for task in stream.tasks]
    adam = partial(torch.optim.Adam, lr=1e-4)
    method = TSNIQA(backbone=Backbone("test_resnet"), tasks=names, optimizer=adam, gate=MeanFeatureGate)
    with TemporaryDirectory() as folder:
        walk = ContinualLearning(RunFolder(folder), {"synthetic": True})
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        loop = {"max_epochs": -1, "reload_dataloaders_every_n_epochs": 1, "num_sanity_val_steps": 0}
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, callbacks=[walk], enable_checkpointing=False, limit_train_batches=2,
            limit_val_batches=0, use_distributed_sampler=False, default_root_dir=folder, **quiet, **loop,
        )  # fmt: skip
        trainer.fit(method, datamodule=stream)
        cost = walk.records.read_summary()["cost"]
        book.timed(run_tables)(walk.records.predictions(), 0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak": peak, "books": book.seconds, "all": perf_counter() - start} | cost))


def main() -> None:
    """Measure, print, write results/six_tasks.csv."""
    rows, peaks, books = [["images a task", "peak MB", "records and tables s", "whole walk s", "image passes"]], [], []
    for images in SIZES:
        done = subprocess.run([sys.executable, __file__, str(images)], capture_output=True, text=True, check=True)  # noqa: S603
        found = json.loads(done.stdout.strip().splitlines()[-1])
        peaks.append(found["peak"])
        books.append(found["books"])
        cells = [f"{found['peak']:.0f}", f"{found['books']:.1f}", f"{found['all']:.0f}", str(found["forwards_eval"])]
        rows.append([str(images), *cells])
    rows.append(["slope over images", f"{slope(SIZES, peaks):.2f}", f"{slope(SIZES, books):.2f}", "", ""])
    rows.append(["promised", "slope <= 0.05", f"<= {LIMIT:.0f}", "", ""])
    show("six_tasks", rows)


if __name__ == "__main__":
    child(int(sys.argv[1])) if sys.argv[1:] else main()
