"""A training step: the walk against a bare PyTorch loop, TSN-IQA against full fine-tuning, and what
they keep.

ResNet-18 from a random start, 16 images of 128x128 pixels, all pairs of the batch. `python
.../training.py`
"""

import copy
from functools import partial
from tempfile import TemporaryDirectory
from time import process_time
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from measuring.noise import noise_stream
from measuring.sides import HEADER, compared, in_turns, show, slope
from torch import nn

from iqa_lightning.continual.callback import ContinualLearning
from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.methods.finetune import SingleHead
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.gating import UniformGate
from iqa_lightning.records import RunFolder
from iqa_lightning.stream.schedule import Phase, Position, Task
from iqa_lightning.stream.stream import TaskStream

BATCH, SIDE, STEPS, REPEATS = 16, 128, 24, 5
ADAM = partial(torch.optim.Adam, lr=2e-4, weight_decay=5e-4)


class Bare(pl.Callback):
    """After each step of the walk, one of a bare loop over the same batch, with a model and an
    optimiser of its own.
    """

    def __init__(self, method: SingleHead) -> None:
        self.backbone, self.heads = copy.deepcopy(method.backbone), copy.deepcopy(method.heads)
        self.optimizer = ADAM([*self.backbone.parameters(), *self.heads.parameters()])
        self.bare: list[float] = []
        self.walk: list[float] = []
        self.mark: float | None = None

    def on_train_batch_end(self, *hook: Any) -> None:
        """The walk's step began when the bare one ended."""
        batch = hook[3]
        now = process_time()
        if self.mark is not None:
            self.walk.append(now - self.mark)
        start = process_time()
        self.optimizer.zero_grad()
        score = self.heads(self.backbone(batch["image"]), 0)
        pair_loss(score, batch["pairs"], batch["target"], "phi").backward()
        self.optimizer.step()
        self.mark = process_time()
        self.bare.append(self.mark - start)


def train(method: ContinualMethod, stream: TaskStream, *callbacks: pl.Callback) -> None:
    """A walk without evaluations."""
    with TemporaryDirectory() as folder:
        walk = ContinualLearning(RunFolder(folder), {})
        walk.evaluate = lambda *_: None  # type: ignore[method-assign]  # steps are what is looked at
        walk.validate = lambda *_: walk.best.offer(0.0, method)  # type: ignore[method-assign]
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        loop = {"max_epochs": -1, "reload_dataloaders_every_n_epochs": 1, "num_sanity_val_steps": 0}
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, callbacks=[walk, *callbacks], enable_checkpointing=False,
            limit_val_batches=0, use_distributed_sampler=False, default_root_dir=folder, **quiet, **loop,
        )  # fmt: skip
        trainer.fit(method, datamodule=stream)


def overhead() -> list[list[str]]:
    """A walk over random images, step by step beside a bare loop; loading is inside the walk's
    steps only.
    """
    torch.manual_seed(0)
    stream = noise_stream([BATCH * STEPS * 10 // 7 + 16], SIDE, [Phase("finetune", 1, BATCH)])
    method = SingleHead(
        backbone=Backbone("resnet18"), tasks=["t1"], optimizer=ADAM, bn_stats="always"
    )
    bare = Bare(method)
    train(method, stream, bare)
    pairs = list(zip(bare.walk[2:], bare.bare[3:], strict=False))
    ours, other = ([pair[i] for pair in pairs] for i in (0, 1))
    return [compared("step of the walk / of a bare loop", ours, other, 1.05)]


def at(trains: str) -> Position:
    """The second epoch of a phase."""
    return Position(
        Task(1, "t1", ("t1",)),
        Phase("x", 2, BATCH, trains),
        1,
        1 if trains == "all" else -1,
        False,
        False,
    )


def ready(
    kind: type[ContinualMethod], name: str, trains: str, **options: Any
) -> tuple[ContinualMethod, Any]:
    """A method in a phase of its first task, and its optimiser."""
    torch.manual_seed(0)
    method = kind(backbone=Backbone(name), tasks=["t1"], optimizer=ADAM, **options)
    method.task.fill_(1)
    optimizer = method.configure_optimizers()
    method.trainer = SimpleNamespace(optimizers=[optimizer])  # type: ignore[assignment]
    method.on_phase_start(at(trains))
    return method, optimizer


def batch(side: int = SIDE) -> dict[str, torch.Tensor]:
    """A batch of noise."""
    pairs = torch.combinations(torch.arange(BATCH), 2)
    image = torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8)
    return {"image": image, "pairs": pairs, "target": torch.randint(0, 2, (len(pairs),)).float()}


def step(method: ContinualMethod, optimizer: Any, data: dict[str, torch.Tensor]) -> None:
    """One optimiser step."""
    optimizer.zero_grad()
    method.loss(data).backward()
    optimizer.step()


def kept(method: ContinualMethod, data: dict[str, torch.Tensor]) -> int:
    """Bytes of activations that a step keeps for the way back."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        method.loss(data)
    return sum(storages.values())


def norms_alone() -> list[list[str]]:
    """TSN-IQA, its warm-up, and full fine-tuning of the same network."""
    rows = []
    for name in ("resnet18", "tf_efficientnet_lite0"):
        data = batch()
        tsn, full = ready(TSNIQA, name, "all", gate=UniformGate), ready(SingleHead, name, "all")
        warm = ready(TSNIQA, name, "heads", gate=UniformGate)
        ways = {"tsn": tsn, "full": full, "warm-up": warm}
        seconds = in_turns({key: partial(step, *way, data) for key, way in ways.items()}, REPEATS)
        limit = 0.7 if name == "resnet18" else None
        rows.append(
            compared(f"{name}: TSN-IQA / full step", seconds["tsn"], seconds["full"], limit)
        )
        rows.append(compared(f"{name}: warm-up / full step", seconds["warm-up"], seconds["full"]))
        bytes_kept = [kept(way[0], data) / 1e6 for way in (tsn, full)]
        share = bytes_kept[0] / bytes_kept[1]
        what = f"{name}: activations kept, MB (not ms)"
        rows.append([what, *(f"{value:.1f}" for value in bytes_kept), f"{share:.3f}", "", "", ""])
    return rows


def growth() -> list[list[str]]:
    """How a step of TSN-IQA grows with the images of a batch: its slope over their pixels."""
    way, sides = ready(TSNIQA, "resnet18", "all", gate=UniformGate), (64, 128, 256)
    ways = {str(side): partial(step, *way, batch(side)) for side in sides}
    seconds = [sorted(times)[1] for times in in_turns(ways, 3, 1).values()]
    cells = " ".join(f"{1000 * value:.0f}" for value in seconds)
    found = slope([side**2 for side in sides], seconds)
    return [
        [
            "TSN-IQA step: slope over pixels (64, 128, 256 a side)",
            "",
            "",
            f"{found:.2f}",
            cells,
            "",
            "",
        ]
    ]


def main() -> None:
    """Measure, print, write results/training.csv."""
    torch.set_num_threads(1)
    show("training", [HEADER, *overhead(), *norms_alone(), *growth()])


if __name__ == "__main__":
    main()
