"""A task learns the same whatever comes after it, so that an extended run is the longer one, and,
where tasks are independent, before it: byte for byte.
"""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from iqa_lightning.metrics.matrices import derive
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.order_effects import all_orders
from tests.contract import stable
from tests.walks import (
    IN_BATCH,
    ROOT,
    each,
    stream_of_folders,
    suited,
    walk,
    write_folder,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*the replay of '.' has collapsed"),
]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
LOOKS_AHEAD = "jl"
SHOWN_BY_ANOTHER = {"liqe_quality", "liqe_quality_distortion", "liqe_quality_scene"} | {
    name
    for name in METHODS
    for end in ("_cpu", "_demo")
    if name.removesuffix(end) in set(METHODS) - {name}
}
"""The same class with other values, see `tests/test_contract.py`."""
SHOWN_FIRST = ("sh_cl", "ewc", "mh_cl_replay", "tsn_iqa", "liqa", "ridge_pooled", "lora")
FROM_TWO = ("icarl_v2", "liqa", "mh_cl_replay", "ridge_pooled", "tsn_iqa")
"""Extended from two tasks to three, which takes half as long again; others from one to two."""
INDEPENDENT = ("grmp_iqa_prompts", "lpf_per_task", "ridge", "sl", "tsn_iqa", "tsn_ridge")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small data sets of different sizes."""
    root = tmp_path_factory.mktemp("three")
    return [write_folder(root / name, seed, 20 + 4 * seed) for seed, name in enumerate("abc")]


def quick(method: str, folders: list[Path]) -> list[str]:
    """A walk of an epoch a task."""
    words = [f"method={method}", *suited(method), IN_BATCH, *stream_of_folders(folders)]
    words += ["schedule.finetune.epochs=1", f"schedule.warmup.epochs={int(method == 'lwf')}"]
    if method.startswith("liqa") and "gaussian" not in method:
        words += ["method.generator_phase.epochs=1", "method.feature_generator.steps=2"]
    return words


def extended(parent: Path, output: Path, *words: str) -> Path:
    """The run that goes on where a parent ended."""
    return walk(output, f"from={parent}", *words, base=())


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "method",
    each((name for name in METHODS if name not in {*SHOWN_BY_ANOTHER, LOOKS_AHEAD}), SHOWN_FIRST),
)
def test_extended_is_the_longer_run(method: str, three: list[Path], tmp_path: Path) -> None:
    """And what comes later changed nothing in the shorter one, weights of each task included."""
    count = 2 if method in FROM_TWO else 1
    old, names = three[:count], "abc"[:count]
    short = walk(tmp_path / "short", *quick(method, old))
    before = content(short)
    long = walk(tmp_path / "long", *quick(method, three[: count + 1]))
    for t, name in enumerate(names, start=1):
        few, many = (
            torch.load(run / "tasks" / f"{t}_{name}.ckpt", weights_only=True)
            for run in (short, long)
        )
        for key, tensor in few.items():
            part = many[key][tuple(map(slice, tensor.shape))]
            assert torch.equal(tensor, part), f"{key} after task {t}"
    for path in sorted(short.glob("predictions/*.parquet")):
        few, many = (pd.read_parquet(run / "predictions" / path.name) for run in (short, long))
        seen = many[many["dataset"].isin(list(names))]
        pd.testing.assert_frame_equal(few, seen, check_exact=True)
    new = stream_of_folders(three[count : count + 1])
    found = extended(short, tmp_path / "extended", *new)
    assert content(short) == before, "the parent is only read"
    assert stable(found) == stable(long)
    assert found.parts[-4:] == long.parts[-4:]
    summary, wanted = (json.loads((run / "summary.json").read_text()) for run in (found, long))
    same = {"method", "order", "split", "split_hash", "seed", "seeds", "config_hash", "readouts"}
    for key in {*same, "finished", "images"}:
        assert summary[key] == wanted[key], key
    assert summary["parent"]["folder"] == str(short.resolve())
    assert summary["cost"]["images_seen"] == wanted["cost"]["images_seen"]


@pytest.mark.parametrize("method", each(INDEPENDENT, SHOWN_FIRST))
def test_another_order_is_what_the_records_of_one_say(
    method: str, three: list[Path], tmp_path: Path
) -> None:
    runs = [
        RunFolder(walk(tmp_path / order[0], *quick(method, three[:2]), f"stream.order=[{order}]"))
        for order in ("a,b", "b,a")
    ]
    assert all(run.read_summary()["independent_tasks"] for run in runs)
    forth, back = (run.predictions() for run in runs)
    keys = ["dataset", "split", "image"]
    one, other = (frame.sort_values(keys) for frame in (forth["b"], back["a"]))
    heads = [name for name in map(str, one) if name.startswith(("score/", "nearness"))]
    for name in ("mos", *heads, *(readout for readout in ("oracle", "gated") if readout in one)):
        assert one[name].to_numpy().tobytes() == other[name].to_numpy().tobytes(), name
    found = all_orders(forth).set_index(["readout", "order"])
    for readout, measures in derive(back)["readouts"].items():
        assert dict(found.loc[(readout, "b>a"), list(measures)]) == pytest.approx(
            measures, rel=0, abs=1e-15, nan_ok=True
        )
