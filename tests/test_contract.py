"""The contract of all methods: each `conf/method/*.yaml` learns a stream, is broken off in every
phase, resumes to the same bytes, and has no state but its `state_dict`; two that do not are found
out.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from iqa_lightning.methods.base import ContinualMethod
from tests.contract import (
    ContractError,
    Watch,
    build,
    check_count,
    check_learns,
    check_resumes,
    check_state,
)
from tests.scoring.scored import check_scored
from tests.walks import IN_BATCH, ROOT, composed, each, stream_of_folders, suited, walk

IMAGES_SEEN = {  # 28 images to train on in each of two tasks, 3 epochs of batches of 8, 2 of them with replay
    "jl": 3 * 56 + 8,  # all at once, then one batch that changes nothing
    **dict.fromkeys(("jl_cl", "mh_jl"), 3 * 28 + 3 * 56),
    "gdumb": 3 * 28 + 3 * 56,  # the memory holds all
    "liqa": 2 * 3 * 28 + 2 * 4 * 28,  # with the phase of the generator
    **dict.fromkeys(
        ("sh_cl_replay", "mh_cl_replay", "icarl_v1", "icarl_v2", "der_pp", "agem"),
        2 * 3 * 28 + 2 * 4 * 8,
    ),
}
CLOSED_FORM = ("grepq", "grepq_zero_shot", "ridge", "ridge_pooled", "ridge_projected")
"""Methods that their task hooks alone teach: one batch a task, which changes nothing."""
IMAGES_SEEN |= dict.fromkeys(CLOSED_FORM, 2 * 8)
METHODS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))


FEWER_TERMS = {"liqe_quality", "liqe_quality_distortion", "liqe_quality_scene"}
"""LIQE with fewer terms of its loss."""
BY_VALUES = {
    f"{method}_{budget}": method
    for method in METHODS
    for budget in ("cpu", "demo")
    if f"{method}_{budget}" in METHODS
}
"""Methods that are another with values for another budget."""
ALIKE = BY_VALUES | dict.fromkeys(FEWER_TERMS, "liqe")
"""What takes long is shown by the other one."""

COLLAPSED = pytest.mark.filterwarnings("ignore:.*the replay of '.' has collapsed")
"""Too few steps to learn much."""


class Interrupted(Exception):  # noqa: N818  # what happens, not what is wrong
    """A run breaks off."""


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let the training break off in the middle of an epoch."""
    original, seen = ContinualMethod.on_train_batch_start, [0]

    def hook(self: ContinualMethod, batch: object, batch_idx: int) -> int | None:
        seen[0] += 1
        if seen[0] == steps:
            raise Interrupted
        return original(self, batch, batch_idx)

    monkeypatch.setattr(ContinualMethod, "on_train_batch_start", hook)


def words_of(method: str, folders: list[Path], *more: str) -> list[str]:
    """A small walk of a method, without weight decay, which moves weights by itself."""
    words = [f"method={method}", *suited(method), IN_BATCH, *stream_of_folders(folders), *more]
    decays = "weight_decay" in composed(*words).method.optimizer
    return [*words, *(["method.optimizer.weight_decay=0"] if decays else [])]


@COLLAPSED
@pytest.mark.slow
@pytest.mark.parametrize("select_best", [False, True])
@pytest.mark.parametrize("method", each(method for method in METHODS if method not in ALIKE))
def test_the_contract(method: str, select_best: bool, folders: list[Path], tmp_path: Path) -> None:
    words = words_of(method, folders, f"select_best={select_best}")
    watch = Watch(2, tmp_path / "snapshots")
    whole = check_resumes(words, tmp_path, watch)
    if select_best:
        check_records(whole, method)
        check_checkpoint(whole)
        check_scored(whole, folders, tmp_path)
        return
    check_learns(words, whole)
    check_count(words)
    if watch.step is not None:
        check_state(words, watch.step)
    else:
        assert method in ("jl", *CLOSED_FORM), "whose second task takes no step that trains"


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("method", sorted(FEWER_TERMS))
def test_a_method_with_fewer_terms_walks(method: str, folders: list[Path], tmp_path: Path) -> None:
    run = walk(tmp_path, *words_of(method, folders))
    check_records(run, method)
    check_checkpoint(run)
    check_scored(run, folders, tmp_path)


@pytest.mark.parametrize("method", BY_VALUES)
def test_a_method_by_other_values_is_of_the_same_class(method: str, folders: list[Path]) -> None:
    one, other = (
        build([f"method={name}", *suited(name), *stream_of_folders(folders)])[2]
        for name in (method, BY_VALUES[method])
    )
    assert type(one) is type(other)
    assert one.readouts == other.readouts


# --- two that must fail it


def breaking(kind: str, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A walk of a method that breaks the contract."""
    monkeypatch.setenv("IQA_ALLOW", "tests")
    return words_of("sh_cl", folders, "select_best=false", f"method._target_=tests.contract.{kind}")


@pytest.mark.slow
def test_a_loss_times_zero_is_found_out(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = breaking("LearnsNothing", folders, monkeypatch)
    with pytest.raises(ContractError, match="no weight of its head has moved"):
        check_learns(words, walk(tmp_path, *words))


@pytest.mark.slow
def test_state_outside_of_the_state_dict_is_found_out(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = breaking("KeepsItsCount", folders, monkeypatch)
    watch = Watch(2, tmp_path / "snapshots")
    with pytest.raises(ContractError, match=r"broken off in warmup of task 2 .* other bytes"):
        check_resumes(words, tmp_path, watch)
    with pytest.raises(ContractError, match="its next step differs, first in backbone"):
        check_state(words, watch.step)


@pytest.mark.parametrize("method", sorted(FEWER_TERMS))
def test_a_method_with_fewer_terms_is_liqe_but_for_its_labels(method: str) -> None:
    one, other = (composed(f"method={name}", *suited("liqe")).method for name in (method, "liqe"))
    assert {key for key in one.keys() | other.keys() if one[key] != other[key]} == {"labels"}
    assert set(one.labels) < set(other.labels)


def check_records(folder: Path, method: str) -> None:
    """The records that house.md names are there and say what they must."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] is True
    assert summary["method"] == method
    names = ["a", "b"]
    assert summary["order"] == names
    assert len(summary["split_hash"]) == 16
    assert summary["cost"]["images_seen"] == IMAGES_SEEN.get(method, 2 * 3 * 28)
    frame = pd.read_parquet(folder / "predictions" / f"after_{len(names)}_{names[-1]}.parquet")
    assert set(frame["dataset"]) == set(names)
    assert set(frame["split"]) == {"val", "test"}
    for readout in summary["readouts"]:
        matrix = pd.read_csv(folder / f"srcc_{readout}.csv")
        assert list(matrix.columns) == ["after", *names]
        assert list(matrix["after"]) == ["start", *names]
        test = frame[(frame["dataset"] == "a") & (frame["split"] == "test")]
        expected = test[readout].astype(float).rank().corr(test["mos"].rank())
        assert matrix["a"].iloc[-1] == pytest.approx(expected, abs=1e-12)


def check_checkpoint(folder: Path) -> None:
    """Checkpoints load without pickled code, and the weights keep their names over the tasks."""
    last = torch.load(folder / "last.ckpt", weights_only=True)
    tasks = [
        torch.load(path, weights_only=True) for path in sorted((folder / "tasks").glob("*.ckpt"))
    ]
    assert len(tasks) >= 2
    assert all(list(task) == list(last["state_dict"]) for task in tasks)
    config = OmegaConf.load(folder / "config.yaml")
    if (
        config.method.get("continue_from") != "latest"
    ):  # else the last holds what the walk goes on from
        assert all(torch.equal(last["state_dict"][key], tasks[-1][key]) for key in tasks[-1])
