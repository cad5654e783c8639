"""What a walk computes: features of fixed crops once, evaluations that grow linearly, no table
while it trains.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from iqa_lightning.continual.callback import ContinualLearning
from iqa_lightning.continual.warm_up import WarmUpFeatures
from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.methods.finetune import SingleHead
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.stream.pairs import PairCollate
from iqa_lightning.stream.schedule import Position
from tests.continual.test_callback import IMAGES, fit
from tests.test_contract import Interrupted, interrupt_after
from tests.walks import SAMPLED, results, stream_of_folders, walk

CROPS, TRAIN = 2, 28
BANK = (
    "schedule.warmup.epochs=3",
    f"schedule.warmup.fixed_crops={CROPS}",
    "schedule.finetune.epochs=1",
)
KINDS = {"tsn_iqa": TSNIQA, "mh_cl": SingleHead, "lwf": SingleHead}


def warm_heads(monkeypatch: pytest.MonkeyPatch) -> tuple[list[torch.Tensor], list[int]]:
    """Where heads and passes of the network at the end of each epoch of warm-up will be written
    down.
    """
    heads: list[torch.Tensor] = []
    passes: list[int] = []
    start, end = ContinualLearning.on_train_epoch_start, ContinualLearning.on_train_epoch_end

    def begin(self: Any, trainer: Any, method: Any) -> None:
        passes.append(method.images_forwarded)
        start(self, trainer, method)

    def note(self: Any, trainer: Any, method: Any) -> None:
        if trainer.datamodule.position.phase.trains == "heads":
            passes[-1] = method.images_forwarded - passes[-1]
            heads.append(method.head_parameters()[-1].detach().clone())
        end(self, trainer, method)

    monkeypatch.setattr(ContinualLearning, "on_train_epoch_start", begin)
    monkeypatch.setattr(ContinualLearning, "on_train_epoch_end", note)
    return heads, passes


@pytest.mark.parametrize("method", KINDS)
def test_heads_learn_the_same_from_kept_features(
    method: str, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same crops: once computed anew in each step, once from features that are computed once."""
    words = [f"method={method}", *BANK, *stream_of_folders(folders), "stream.order=[a,b]"]
    found = []
    for keeps in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(KINDS[method], "heads_read_features", keeps)
            heads, passes = warm_heads(patch)
            fit(tmp_path / str(keeps), *words)
            found.append((heads, [passes[k] for k in (1, 2)]))
    (kept, few), (plain, many) = found
    assert (len(kept), few, many) == (6, [0, 0], [TRAIN, TRAIN])
    for one, other in zip(kept, plain, strict=True):
        # rounding, which Adam's first steps make larger: single weights differ by 1.4e-4, of .6
        torch.testing.assert_close(one, other, rtol=0, atol=5e-4)
    assert not torch.equal(kept[0], kept[1])


def test_features_of_a_bank_are_computed_once_a_task(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    prepare = WarmUpFeatures.prepare

    def counting(
        self: WarmUpFeatures, trainer: Any, stream: Any, method: ContinualMethod, position: Position
    ) -> None:
        before = method.images_forwarded
        prepare(self, trainer, stream, method, position)
        if method.images_forwarded > before:
            counts.append(method.images_forwarded - before)

    monkeypatch.setattr(WarmUpFeatures, "prepare", counting)
    fit(tmp_path, "method=tsn_iqa", *BANK, *stream_of_folders(folders))
    assert counts == [CROPS * TRAIN] * 2


def test_features_that_do_not_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, folders: list[Path], tmp_path: Path
) -> None:
    monkeypatch.setattr("iqa_lightning.continual.warm_up.ram_budget", lambda: 1000)
    with pytest.raises(
        ValueError,
        match=f"features of {CROPS * TRAIN} fixed crops .* lower the phase's `fixed_crops`",
    ):
        fit(tmp_path, "method=tsn_iqa", *BANK, *stream_of_folders(folders))


@pytest.mark.slow
def test_a_resumed_warm_up_goes_on_with_the_same_features(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["method=tsn_iqa", *BANK, *SAMPLED, *stream_of_folders(folders)]
    whole = walk(tmp_path / "whole", *words)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 6)  # in the second epoch of four batches each
        with pytest.raises(Interrupted):
            walk(tmp_path / "broken", *words)
    assert results(walk(tmp_path / "broken", *words)) == results(whole)


def test_work_of_an_evaluation_grows_linearly_with_the_tasks(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TSN-IQA: after each of T tasks one pass over each of T data sets, and no more after the last
    than the first.
    """
    found: dict[int, list[int]] = {}
    evaluate = ContinualLearning.evaluate

    def noting(
        self: ContinualLearning, trainer: Any, method: ContinualMethod, t: int, task: str
    ) -> None:
        before = method.images_forwarded
        evaluate(self, trainer, method, t, task)
        found.setdefault(len(method.tasks), []).append(method.images_forwarded - before)

    monkeypatch.setattr(ContinualLearning, "evaluate", noting)
    words = ["method=tsn_iqa", "backbone.name=test_resnet", "schedule.warmup.epochs=0"]
    words += ["schedule.finetune.epochs=1", *stream_of_folders(folders)]
    for tasks in (1, 2, 4):
        fit(tmp_path / str(tasks), *words, f"stream.order=[{','.join('abab'[:tasks])}]")
    assert found == {tasks: [tasks * IMAGES] * (tasks + 1) for tasks in (1, 2, 4)}


def test_no_table_is_read_while_batches_are_made(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an epoch's first batch on: rows of a table are slow, and a thousand times an epoch too
    slow.
    """
    stream = fit(
        tmp_path, "method=sh_cl", "backbone.name=test_resnet", *stream_of_folders(folders)
    ).stream
    loader = stream.train_dataloader()

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("a table is read")

    for kind in (pd.DataFrame, pd.Series):
        for name in (
            "__getitem__",
            "iloc",
            "loc",
            "iat",
            "at",
            "to_dict",
            "to_numpy",
            "values",
            "iterrows",
        ):
            if hasattr(kind, name):
                monkeypatch.setattr(
                    kind, name, property(forbidden) if name[0] != "_" else forbidden
                )
    with pytest.raises(AssertionError, match="a table is read"):
        _ = stream.data["a"].samples.table["mos"]
    assert isinstance(loader.collate_fn, PairCollate)
    assert len(list(loader)) == 4
    assert len(list(stream.train_dataloader())) == 4, "parts are made once"
