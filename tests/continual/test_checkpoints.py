"""Starting again: best weights, a fresh optimiser, checkpoints that a failure leaves whole."""

import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from iqa_lightning.continual.checkpoints import (
    AtomicCheckpointIO,
    BestWeights,
    restart_optimizers,
    save_atomic,
)


class Line(pl.LightningModule):
    """A model of one weight."""

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        self.set(weight)

    def set(self, weight: float) -> None:
        self.layer.weight.data.fill_(weight)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.layer(batch) - 5).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


def offered(*epochs: tuple[float, float]) -> tuple[BestWeights, Line]:
    """The best of epochs of a validation SRCC and a weight, and the model after the last of them."""
    best, model = BestWeights(), Line()
    for srcc, weight in epochs:
        model.set(weight)
        best.offer(srcc, model)
    return best, model


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ([(0.1, 1), (0.5, 2), (0.3, 3)], 2),
        ([(0.5, 1), (0.5, 2)], 1),  # the first of equals
        ([(math.nan, 1), (-0.9, 2), (math.nan, 3)], 2),
        ([(math.nan, 1), (math.nan, 2)], 1),
        ([(-0.2, 1)], 1),
    ],
)
def test_the_best_weights_come_back(epochs: list[tuple[float, float]], expected: float) -> None:
    best, model = offered(*epochs)
    best.restore(model)
    assert model.layer.weight.item() == expected


def test_best_weights_go_through_a_checkpoint(tmp_path: Path) -> None:
    best, model = offered((0.4, 1), (0.2, 2))
    save_atomic(best.state_dict(), tmp_path / "best.ckpt")
    resumed = BestWeights()
    resumed.load_state_dict(torch.load(tmp_path / "best.ckpt", weights_only=True))
    resumed.offer(0.3, model)
    resumed.restore(model)
    assert model.layer.weight.item() == 1


class Restart(pl.Callback):
    """Restarts the optimiser at the third epoch, and notes the steps its state has seen and the
    learning rate.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            restart_optimizers(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        state = optimizer.state[pl_module.layer.weight]
        self.seen.append((int(state["step"]), optimizer.param_groups[0]["lr"]))
        optimizer.param_groups[0]["lr"] /= 10


def test_an_optimiser_starts_afresh() -> None:
    restart = Restart()
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = pl.Trainer(accelerator="cpu", devices=1, max_epochs=4, callbacks=[restart], **quiet)
    model = Line()
    trainer.fit(model, torch.utils.data.DataLoader(torch.ones(6, 1), batch_size=2))
    assert restart.seen == [(3, 0.1), (6, pytest.approx(0.01)), (3, 0.1), (6, pytest.approx(0.01))]
    assert trainer.global_step == 12


class Unwritable:
    """What breaks off the writing of a checkpoint."""

    def __reduce__(self) -> tuple:
        raise OSError("no space left on device")


@pytest.mark.parametrize("write", [save_atomic, AtomicCheckpointIO().save_checkpoint])
def test_a_failure_half_way_leaves_the_old_file(tmp_path: Path, write) -> None:
    file = tmp_path / "deep" / "last.ckpt"
    write({"weights": torch.arange(3)}, file)
    with pytest.raises(OSError, match="no space left"):
        write({"weights": torch.zeros(100_000), "then": Unwritable()}, file)
    assert sorted(path.name for path in file.parent.iterdir()) == ["checksums.json", "last.ckpt"]
    assert torch.load(file, weights_only=True)["weights"].tolist() == [0, 1, 2]


def test_a_failure_of_the_first_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"):
        save_atomic({"then": Unwritable()}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_new_file_replaces_the_old_one_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "last.ckpt"
    save_atomic({"epoch": 1}, file)
    original, before = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name == "last.ckpt":
            pair = (torch.load(file, weights_only=True) for file in (target, self))
            before.append(tuple(pair))
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    save_atomic({"epoch": 2}, file)
    assert before == [
        ({"epoch": 1}, {"epoch": 2})
    ]  # until the rename the old one is whole, and so is the new one
    assert torch.load(file, weights_only=True) == {"epoch": 2}


def test_a_trainer_resumes_from_such_a_checkpoint(tmp_path: Path) -> None:
    io = AtomicCheckpointIO()
    io.save_checkpoint({"state_dict": Line(3.0).state_dict(), "epoch": 4}, tmp_path / "last.ckpt")
    content = io.load_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert content["epoch"] == 4
    assert content["state_dict"]["layer.weight"].item() == 3
