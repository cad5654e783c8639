"""How training runs on a machine: the layout of maps, whether it is compiled, and what becomes of
freed memory.
"""

import ctypes
import sys

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from iqa_lightning.models.backbones import Backbone
from iqa_lightning.stream.stream import TaskStream

TRIM, MMAP = (
    -1,
    -3,
)  # options of glibc's mallopt: free memory at the top, and blocks of a mapping of their own


LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the process keep what it frees; whether that could be set, which takes Linux with glibc.

    By default glibc gives large blocks back to the system at once. A training step on a processor
    frees its maps and asks for as many again, and the system hands out pages anew and zeroed. What
    that takes depends on the sizes: nothing in `experiments/benchmarks/presets.py`.
    https://man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(TRIM, LARGEST) and mallopt(MMAP, LARGEST))


class Network(Callback):
    """Sets the layout of every backbone, and the back end of `torch.compile` for its passes in
    training.

    `compiler`: a back end such as `inductor`, which needs a C++ compiler on a processor; null for
    none. Each task is compiled anew, since other norms or another mode of batch normalisation are
    another graph. Scores of an evaluation never go through it. `channels_last: false` keeps maps as
    PyTorch does by itself, (batch, channel, row, column); what is fastest is measured in
    `experiments/benchmarks/presets.py`. Names in checkpoints stay the same.
    """

    def __init__(self, compiler: str | None = None, channels_last: bool = True) -> None:
        self.compiler = compiler
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for module in pl_module.modules():
            if isinstance(module, Backbone):
                module.compiler = self.compiler
                module.lay_out(self.layout)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # past a number of graphs PyTorch compiles no more: those of earlier tasks are of no use any
        # longer
        stream = trainer.datamodule  # type: ignore[attr-defined]  # set by `fit`, not declared
        if self.compiler and isinstance(stream, TaskStream) and stream.position.starts_task:
            torch.compiler.reset()
