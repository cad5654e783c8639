"""The contract of all methods: each `conf/method/*.yaml` learns a stream, is interrupted, resumes
to the same bytes.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from iqa_lightning.methods.base import ContinualMethod
from tests.walks import IN_BATCH, ROOT, composed, results, stream_of_folders, suited, walk

IMAGES_SEEN = {  # 28 images to train on in each of two tasks, 3 epochs of batches of 8, 2 of them with replay
    "jl": 3 * 56 + 8,  # all at once, then one batch that changes nothing
    "jl_cl": 3 * 28 + 3 * 56,
    "gdumb": 3 * 28 + 3 * 56,  # the memory holds all
    "liqa": 2 * 3 * 28 + 4 * 28,  # and the phase of the generator after the first task
    **dict.fromkeys(
        ("sh_cl_replay", "mh_cl_replay", "icarl_v1", "icarl_v2", "der_pp", "agem"),
        2 * 3 * 28 + 2 * 4 * 8,
    ),
}
ALIKE = dict.fromkeys(("liqe_quality", "liqe_quality_distortion", "liqe_quality_scene"), "liqe")
"""Methods that are another with fewer terms of its loss: what takes long is shown by that one."""
METHODS = sorted(
    path.stem
    for path in (ROOT / "conf" / "method").glob("*.yaml")
    if not path.stem.endswith(("_cpu", "_demo"))  # other rates of the same method
)


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


@pytest.mark.filterwarnings(
    "ignore:.*the replay of 'a' has collapsed"
)  # too few steps to learn much
@pytest.mark.parametrize("method", METHODS)
def test_learns_is_interrupted_and_resumes_to_the_same_bytes(
    method: str, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [f"method={method}", *suited(method), IN_BATCH, *stream_of_folders(folders)]
    whole = walk(tmp_path / "whole", *overrides)
    check_records(whole, method)
    check_checkpoint(whole)
    if method in ALIKE:
        return

    # in the middle of epochs 1 and, from there, 3: where there is one, in the phase that trains the
    # replay
    for steps in (6, 11):
        with monkeypatch.context() as patch:
            interrupt_after(patch, steps)
            with pytest.raises(Interrupted):
                walk(tmp_path / "broken", *overrides)
    resumed = walk(tmp_path / "broken", *overrides)

    assert results(whole) == results(resumed)


def test_methods_that_are_alike_have_one_class() -> None:
    for method, other in ALIKE.items():
        configs = [composed(f"method={name}").method for name in (method, other)]
        assert {key for key in configs[1] if configs[0][key] != configs[1][key]} == {"labels"}
        assert configs[0].keys() == configs[1].keys()
        assert set(configs[0]["labels"]) < set(configs[1]["labels"])


def check_records(folder: Path, method: str) -> None:
    """The records that house.md names are there and say what they must."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] is True
    assert summary["method"] == method
    assert summary["order"] == ["a", "b"]
    assert len(summary["split_hash"]) == 16
    assert summary["cost"]["images_seen"] == IMAGES_SEEN.get(method, 2 * 3 * 28)
    frame = pd.read_parquet(folder / "predictions" / "after_2_b.parquet")
    assert set(frame["dataset"]) == {"a", "b"}
    assert set(frame["split"]) == {"val", "test"}
    for readout in summary["readouts"]:
        matrix = pd.read_csv(folder / f"srcc_{readout}.csv")
        assert list(matrix.columns) == ["after", "a", "b"]
        assert list(matrix["after"]) == ["start", "a", "b"]
        test = frame[(frame["dataset"] == "a") & (frame["split"] == "test")]
        expected = test[readout].astype(float).rank().corr(test["mos"].rank())
        assert matrix["a"].iloc[-1] == pytest.approx(expected, abs=1e-12)


def check_checkpoint(folder: Path) -> None:
    """Checkpoints load without pickled code, and the weights keep their names over the tasks."""
    last = torch.load(folder / "last.ckpt", weights_only=True)
    tasks = [
        torch.load(path, weights_only=True) for path in sorted((folder / "tasks").glob("*.ckpt"))
    ]
    assert len(tasks) == 2
    assert list(tasks[0]) == list(tasks[1]) == list(last["state_dict"])
    assert all(torch.equal(last["state_dict"][key], tasks[1][key]) for key in tasks[1])
