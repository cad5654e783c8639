"""The walk: what happens when, what is carried over, what it costs, what a resumed run repeats."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from iqa_lightning import train
from iqa_lightning.continual import callback
from iqa_lightning.continual.callback import ContinualLearning, image_columns
from iqa_lightning.continual.checkpoints import AtomicCheckpointIO, BestWeights
from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.datasets import base
from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.records import RunFolder
from iqa_lightning.runs.building import build_method, build_stream
from iqa_lightning.stream.stream import TaskStream
from tests.test_contract import Interrupted, interrupt_after
from tests.walks import IN_BATCH, TINY, composed, results, stream_of_folders, walk, write_folder

IMAGES = 4 + 8  # of 40: those of the validation and of the test part


def fit(
    folder: Path, *words: str, callbacks: tuple[list[Any], list[Any]] = ([], [])
) -> SimpleNamespace:
    """A walk with callbacks that stand before and after `ContinualLearning`; all its parts."""
    cfg = composed(*TINY, IN_BATCH, *words)
    pl.seed_everything(0, verbose=False)
    stream = build_stream(cfg)
    method, records = build_method(cfg, stream), RunFolder(folder)
    first, last = callbacks
    listed = [*first, ContinualLearning(records, {}, cfg.select_best), *last]
    trainer = instantiate(cfg.trainer, callbacks=listed, logger=False, enable_checkpointing=False)
    try:
        trainer.fit(method, datamodule=stream)
    finally:
        torch.use_deterministic_algorithms(False)
    return SimpleNamespace(stream=stream, method=method, records=records, trainer=trainer)


@contextmanager
def listening(events: list[str]) -> Iterator[None]:
    """Write down what a walk does, in its order."""

    def listen(patch: pytest.MonkeyPatch, owner: type, name: str, say: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
            events.append(say(*args))
            return original(self, *args, **kwargs)

        patch.setattr(owner, name, hook)

    with pytest.MonkeyPatch.context() as patch:
        listen(patch, ContinualMethod, "on_task_start", lambda task, images: f"start {task.name}")
        listen(
            patch, ContinualMethod, "on_task_end", lambda task, images, batches: f"end {task.name}"
        )
        listen(patch, ContinualMethod, "on_phase_start", lambda position: position.phase.name)
        listen(patch, ContinualMethod, "configure_optimizers", lambda: "optimiser")
        listen(patch, BestWeights, "restore", lambda method: "best weights")
        listen(
            patch, RunFolder, "write_predictions", lambda t, task, frame: f"predictions {t} {task}"
        )
        listen(patch, AtomicCheckpointIO, "save_checkpoint", lambda content, path, *_: "checkpoint")
        yield


TASK = ["warmup", "checkpoint", "finetune", "checkpoint", "finetune", "best weights"]
WALK = [
    "optimiser",
    "predictions 0 start",
    "start a",
    "optimiser",
    *TASK,
    "end a",
    "predictions 1 a",
    "checkpoint",
]
WALK += ["start b", "optimiser", *TASK, "end b", "predictions 2 b", "checkpoint"]


def test_order_of_events(folders: list[Path], tmp_path: Path) -> None:
    events: list[str] = []
    with listening(events):
        walk(tmp_path, "method=mh_cl", IN_BATCH, *stream_of_folders(folders))
    assert events == WALK


def test_a_resumed_run_does_not_repeat_what_is_done(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off in the second epoch of the second task: the rest is that epoch and the next."""
    words = ["method=mh_cl", IN_BATCH, *stream_of_folders(folders)]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 4 * 4 + 2)
        with pytest.raises(Interrupted):
            walk(tmp_path, *words)
    events: list[str] = []
    with listening(events):
        folder = walk(tmp_path, *words)
    assert events == ["optimiser", *WALK[WALK.index("start b") + 4 :]]
    cost = json.loads((folder / "summary.json").read_text())["cost"]
    assert cost["forwards_eval"] == 4 * 2 * IMAGES  # the start, two tasks, the features of the gate
    assert cost["images_seen"] == 2 * 3 * 28

    monkeypatch.setattr(train, "train", None)  # a finished run must not come to it
    walk(tmp_path, *words)


def test_a_kill_between_records_and_checkpoint_repeats_the_end_of_the_task(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["method=tsn_iqa", IN_BATCH, *stream_of_folders(folders)]
    whole = walk(tmp_path / "whole", *words)

    def kill(*args: Any) -> None:
        raise Interrupted

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(
                callback, "save_atomic", kill
            )  # which is called when the records are written
            with pytest.raises(Interrupted):
                walk(tmp_path / "broken", *words)
    (folder,) = (tmp_path / "broken").glob("*/*/*/*/*")
    assert [path.name for path in sorted((folder / "predictions").iterdir())] == [
        "after_0_start.parquet",
        "after_1_a.parquet",
    ]
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 1
    assert results(walk(tmp_path / "broken", *words)) == results(whole)


class Optimisers(pl.Callback):
    """Notes learning rates at the start of each epoch and how many steps the optimiser remembers at
    its ends.
    """

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.steps: list[tuple[int, int]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])
        self.before = self.most(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps.append((self.before, self.most(trainer)))

    @staticmethod
    def most(trainer: pl.Trainer) -> int:
        (optimizer,) = trainer.optimizers
        return max((int(state["step"]) for state in optimizer.state.values()), default=0)


@pytest.mark.parametrize("method", ["tsn_iqa", "sh_cl"])
def test_the_optimiser_restarts_with_each_task(
    method: str, folders: list[Path], tmp_path: Path
) -> None:
    note = Optimisers()
    words = [f"method={method}", "method.head_lr_factor=10", "schedule.warmup.lr_factor=0.5"]
    walked = fit(tmp_path, *words, *stream_of_folders(folders), callbacks=([], [note]))
    # 28 images in batches of 8, half the rate in the warm-up, then a half cosine of two epochs
    assert note.steps == [(0, 4), (4, 8), (8, 12)] * 2
    np.testing.assert_allclose(note.rates, [[0.001, 0.01], [0.002, 0.02], [0.001, 0.01]] * 2)
    assert walked.trainer.global_step == 24


class Snapshots(pl.Callback):
    """Copies the weights at the start and, before any are put back, at the end of each epoch."""

    def __init__(self) -> None:
        self.starts: list[dict[str, torch.Tensor]] = []
        self.ends: list[dict[str, torch.Tensor]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.starts.append({key: value.clone() for key, value in pl_module.state_dict().items()})

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends.append({key: value.clone() for key, value in pl_module.state_dict().items()})


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two states are the same, bit for bit."""
    return all(torch.equal(first[key], second[key]) for key in first | second)


@pytest.mark.parametrize(
    ("select_best", "chosen"),
    [(True, (1, 3)), (False, (2, 5))],
)
def test_a_task_ends_with_its_best_weights_and_the_next_starts_from_them(
    select_best: bool,
    chosen: tuple[int, int],
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = iter(
        [0.1, 0.9, 0.3, 0.5, 0.2, 0.5]
    )  # one an epoch; the best of a task counts within the task only
    monkeypatch.setattr(callback, "srcc", lambda pred, mos: next(values))
    note = Snapshots()
    words = ["method=sh_cl", "method.continue_from=best", f"select_best={select_best}"]
    walked = fit(tmp_path, *words, *stream_of_folders(folders), callbacks=([note], []))
    kept = [
        torch.load(tmp_path / "tasks" / name, weights_only=True)
        for name in ("1_a.ckpt", "2_b.ckpt")
    ]
    for state, epoch in zip(kept, chosen, strict=True):
        assert [equal(state, end) for end in note.ends] == [epoch == i for i in range(6)]
    assert equal(note.starts[3], kept[0])

    method, stream = walked.method, walked.stream
    method.load_state_dict(kept[0])
    with evaluation_mode(method), torch.no_grad():
        part = stream.data["a"].part("val")
        expected = [float(method.score(part[i]["image"][None])) for i in range(len(part))]
    frame = pd.read_parquet(tmp_path / "predictions" / "after_1_a.parquet")
    scores = frame[(frame["dataset"] == "a") & (frame["split"] == "val")]["single"]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("order", "expected"), [("[a,b]", [["a"]] * 3 + [["b"]] * 3), ("[[a,b]]", [["a", "b"]] * 3)]
)
def test_an_epoch_is_judged_by_the_validation_part_of_its_own_task(
    order: str,
    expected: list[list[str]],
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, str, str]] = []
    original = TaskStream.evaluation_dataloader

    def ask(self: TaskStream, name: str, part: str) -> Any:
        if not base._test_is_open.get():
            asked.append((self.trainer.current_epoch, name, part))
        return original(self, name, part)

    monkeypatch.setattr(TaskStream, "evaluation_dataloader", ask)
    fit(tmp_path, "method=sh_cl", *stream_of_folders(folders), f"stream.order={order}")
    judged = [(epoch, name, "val") for epoch, names in enumerate(expected) for name in names]
    assert asked[: len(judged)] == judged
    kept = {(len(expected) - 1, name, "val") for name in "ab"}  # features of the last task's end
    assert set(asked[len(judged) :]) == kept


class Start(pl.Callback):
    """Notes what is recorded when the first step is taken."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 0:
            folder = Path(trainer.callbacks[0].records.path) / "predictions"
            self.files = [path.name for path in folder.iterdir()]


def test_zero_shot_scores_are_recorded_before_any_training(
    folders: list[Path], tmp_path: Path
) -> None:
    note = Start()
    fit(
        tmp_path,
        "method=sh_cl",
        "stream.order=[a]",
        *stream_of_folders(folders),
        callbacks=([], [note]),
    )
    assert note.files == ["after_0_start.parquet"]


def test_records_say_what_the_data_sets_know_of_an_image(tmp_path: Path) -> None:
    """Labels of one data set leave empty cells in the others; what none knows has no column."""
    folders = [write_folder(tmp_path / name, seed) for seed, name in enumerate("pq")]
    ratings = pd.read_csv(folders[0] / "ratings.csv", dtype={"image": str})
    kinds = {image: f"kind{i % 3}" for i, image in enumerate(ratings["image"])}
    ratings.assign(distortion=ratings["image"].map(kinds)).to_csv(
        folders[0] / "ratings.csv", index=False
    )
    ratings.drop(columns="mos_std").to_csv(folders[1] / "ratings.csv", index=False)
    stream = build_stream(composed(*TINY, *stream_of_folders(folders)))
    stream.setup("fit")
    first, second = (image_columns(stream, name, "val") for name in "pq")
    assert list(first) == [
        "dataset",
        "split",
        "image",
        "mos",
        "image/reference",
        "image/distortion",
        "mos_std",
    ]
    assert list(second) == list(first)
    assert list(first["image/distortion"]) == [kinds[image] for image in first["image"]]
    assert (first["mos_std"] == 5).all()
    assert (list(set(second["image/distortion"])), np.isnan(second["mos_std"]).all()) == (
        [""],
        True,
    )
    without = build_stream(composed(*TINY, *stream_of_folders(folders[1:])))
    without.setup("fit")
    assert list(image_columns(without, "q", "val")) == [
        "dataset",
        "split",
        "image",
        "mos",
        "image/reference",
    ]


@pytest.mark.parametrize(
    ("method", "tasks", "passes"),
    [
        ("tsn_iqa", 1, 2),  # start and one head
        ("tsn_iqa", 4, 5),  # start, which also gives what the gate reads, and each head once
        ("tsn_iqa", 6, 7),
        ("sh_cl", 3, 4),  # start and each task, however many
        ("mh_cl", 4, 5),  # heads and readouts there are
        ("mh_cl", 6, 7),
    ],
)
def test_forward_passes_of_evaluations(
    method: str, tasks: int, passes: int, folders: list[Path], tmp_path: Path
) -> None:
    order = (["a", "b"] * 3)[:tasks]
    words = [
        "schedule.warmup.epochs=0",
        "schedule.finetune.epochs=1",
        f"stream.order=[{','.join(order)}]",
    ]
    fit(tmp_path, f"method={method}", *stream_of_folders(folders), *words)
    cost = RunFolder(tmp_path).read_summary()["cost"]
    assert cost["forwards_eval"] == passes * tasks * IMAGES
    assert cost["images_seen"] == 28 * tasks
    assert cost["train_seconds"] > 0
