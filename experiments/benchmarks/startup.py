"""What a user waits for: the help, the imports, and a run that goes on after it was broken off.

Each number is of processes of their own, started five times; the resumed run holds ResNet-18 with
four norm sets. From the start of the fit to the first batch, less the reading of the data. `python
experiments/benchmarks/startup.py`
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from measuring.sides import show

REPEATS = 5
LIMITS = {"train --help": 3.0, "evaluate --help": 3.0, "resume": 5.0}


def command(*words: str) -> float:
    """Seconds of a command of this Python."""
    start = perf_counter()
    environment = os.environ | {"WANDB_MODE": "offline"}
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)  # noqa: S603
    return perf_counter() - start


def child(folder: str) -> None:
    """Start, or go on with, a walk that breaks off in the third epoch; prints seconds from fit to
    batch, less data.
    """
    import pytorch_lightning as pl  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from measuring.noise import noise_stream  # noqa: PLC0415
    from pytorch_lightning.callbacks import ModelCheckpoint  # noqa: PLC0415

    from iqa_lightning.continual.callback import ContinualLearning  # noqa: PLC0415
    from iqa_lightning.continual.checkpoints import AtomicCheckpointIO  # noqa: PLC0415
    from iqa_lightning.methods.tsn_iqa import TSNIQA  # noqa: PLC0415
    from iqa_lightning.models.backbones import Backbone  # noqa: PLC0415
    from iqa_lightning.models.gating import UniformGate  # noqa: PLC0415
    from iqa_lightning.records import RunFolder  # noqa: PLC0415
    from iqa_lightning.stream.schedule import Phase  # noqa: PLC0415

    class Clock(pl.Callback):
        """When the first batch comes; the run ends with the second epoch."""

        first = 0.0

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            self.first = self.first or perf_counter()
            if trainer.current_epoch == 2:
                raise SystemExit(0)

    stream = noise_stream([40] * 4, 48, [Phase("finetune", 4, 8)])
    adam, names = partial(torch.optim.Adam, lr=1e-4), [task.name for task in stream.tasks]
    method = TSNIQA(backbone=Backbone("resnet18"), tasks=names, optimizer=adam, gate=UniformGate)
    last, clock, reading = os.path.join(folder, "last.ckpt"), Clock(), [0.0]  # noqa: PTH118

    def read(stage: str | None = None, work: Any = stream.setup) -> None:
        start = perf_counter()
        work(stage)
        reading[0] += perf_counter() - start

    stream.setup = read  # type: ignore[method-assign]
    saves = ModelCheckpoint(
        folder, "last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, callbacks=[ContinualLearning(RunFolder(folder), {}), clock, saves],
        plugins=[AtomicCheckpointIO()], limit_val_batches=0, use_distributed_sampler=False, max_epochs=-1,
        reload_dataloaders_every_n_epochs=1, default_root_dir=folder, **quiet,
    )  # fmt: skip
    start = perf_counter()
    try:
        trainer.fit(
            method,
            datamodule=stream,
            ckpt_path=last if Path(last).is_file() else None,
            weights_only=True,
        )
    finally:
        if clock.first:
            print(f"seconds {clock.first - start - reading[0]:.3f}", flush=True)


def resume() -> float:
    """Seconds from fit to batch of a run that goes on, less the reading of the data."""
    with TemporaryDirectory() as folder:
        for _ in range(2):  # broken off, and gone on with
            done = subprocess.run(  # noqa: S603  # ours
                [sys.executable, __file__, folder], capture_output=True, text=True, check=False
            )
            lines = [line for line in done.stdout.splitlines() if line.startswith("seconds")]
            assert lines, done.stderr[-2000:]
        return float(lines[-1].split()[1])


def main() -> None:
    """Measure, print, write results/startup.csv."""
    ways = {
        "train --help": partial(command, "-m", "iqa_lightning.train", "--help"),
        "evaluate --help": partial(command, "-m", "iqa_lightning.evaluate", "--help"),
        "import of a method": partial(command, "-c", "import iqa_lightning.methods.tsn_iqa"),
        "import of torch and Lightning": partial(command, "-c", "import torch, pytorch_lightning"),
        "resume": resume,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            seconds[name].append(way())
    rows = [["measure", "median s", "least s", "most s", "promised", "kept"]]
    for name, found in seconds.items():
        limit = LIMITS.get(name)
        cells = (
            ["", ""]
            if limit is None
            else [f"<= {limit:g}", "yes" if median(found) <= limit else "no"]
        )
        rows.append(
            [name, f"{median(found):.2f}", f"{min(found):.2f}", f"{max(found):.2f}", *cells]
        )
    show("startup", rows)


if __name__ == "__main__":
    child(sys.argv[1]) if sys.argv[1:] else main()
