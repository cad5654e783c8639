"""Six tasks of the size of KonIQ-10k, simulated: does memory grow with the images, how long do
records and tables take?

Random 16x16 images made on the fly go through a tiny network; each task trains two batches. Every
size runs in a process of its own, whose largest memory is read from the system. `python
experiments/benchmarks/six_tasks.py`
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
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.gating import MeanFeatureGate
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.results import run_tables
from iqa_lightning.stream.schedule import Phase

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
    method = TSNIQA(
        backbone=Backbone("test_resnet"), tasks=names, optimizer=adam, gate=MeanFeatureGate
    )
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
        found = {"peak": largest_memory(), "records": book.seconds, "walk": perf_counter() - start}
        start = perf_counter()
        run_tables(walk.records.predictions(), 1000)
    print(
        json.dumps(
            found | {"tables": perf_counter() - start, "tables_peak": largest_memory()} | cost
        )
    )


def largest_memory() -> float:
    """Megabytes that this process has held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure, print, write results/six_tasks.csv."""
    names = ["peak", "tables_peak", "records", "tables", "walk"]
    head = [
        "images a task",
        "walk: peak MB",
        "tables: peak MB",
        "records and metrics s",
        "tables s",
        "whole walk s",
    ]
    rows, found = [[*head, "image passes"]], []
    for images in SIZES:
        done = subprocess.run(  # noqa: S603  # ours
            [sys.executable, __file__, str(images)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads(done.stdout.strip().splitlines()[-1]))
        rows.append(
            [
                str(images),
                *(f"{found[-1][name]:.1f}" for name in names),
                str(found[-1]["forwards_eval"]),
            ]
        )
    slopes = {name: slope(SIZES, [one[name] for one in found]) for name in names}
    rows.append(["slope over images", *(f"{value:.2f}" for value in slopes.values()), ""])
    books = found[-1]["records"] + found[-1]["tables"]
    rows.append(["promised", "slope <= 0.05", "", f"together <= {LIMIT:.0f}", "", "", ""])
    rows.append(
        [
            "kept",
            "yes" if slopes["peak"] <= 0.05 else "no",
            "",
            "yes" if books <= LIMIT else "no",
            "",
            "",
            "",
        ]
    )
    show("six_tasks", rows)


if __name__ == "__main__":
    child(int(sys.argv[1])) if sys.argv[1:] else main()
