"""A task learns the same whatever comes after it and, where tasks are independent, before it: byte
for byte.
"""

from pathlib import Path

import pandas as pd
import pytest
import torch

from iqa_lightning.metrics.matrices import derive
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.order_effects import all_orders
from tests.walks import (
    IN_BATCH,
    ROOT,
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
INDEPENDENT = ("grmp_iqa_prompts", "lpf_per_task", "ridge", "sl", "tsn_iqa", "tsn_ridge")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Small data sets of different sizes."""
    root = tmp_path_factory.mktemp("three")
    return [write_folder(root / name, seed, 20 + 4 * seed) for seed, name in enumerate("abc")]


def quick(method: str, folders: list[Path]) -> list[str]:
    """A walk of an epoch a phase."""
    words = [f"method={method}", *suited(method), IN_BATCH, *stream_of_folders(folders)]
    words += ["schedule.finetune.epochs=1", "schedule.warmup.epochs=1"]
    if method.startswith("liqa") and "gaussian" not in method:
        words += ["method.generator_phase.epochs=1", "method.feature_generator.steps=2"]
    return words


@pytest.mark.parametrize(
    "method", [name for name in METHODS if name not in {*SHOWN_BY_ANOTHER, LOOKS_AHEAD}]
)
def test_what_comes_later_changes_nothing(method: str, three: list[Path], tmp_path: Path) -> None:
    short = walk(tmp_path / "short", *quick(method, three[:2]))
    long = walk(tmp_path / "long", *quick(method, three))
    for t, name in enumerate("ab", start=1):
        few, many = (
            torch.load(run / "tasks" / f"{t}_{name}.ckpt", weights_only=True)
            for run in (short, long)
        )
        for key, tensor in few.items():
            part = many[key][tuple(map(slice, tensor.shape))]
            assert torch.equal(tensor, part), f"{key} after task {t}"
    for after in ("0_start", "1_a", "2_b"):
        few, many = (
            pd.read_parquet(run / "predictions" / f"after_{after}.parquet") for run in (short, long)
        )
        same = many[many["dataset"] != "c"]
        pd.testing.assert_frame_equal(few, same, check_exact=True)


@pytest.mark.parametrize("method", INDEPENDENT)
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
    heads = [name for name in one if name.startswith(("score/", "nearness"))]
    for name in ("mos", *heads, *(readout for readout in ("oracle", "gated") if readout in one)):
        assert one[name].to_numpy().tobytes() == other[name].to_numpy().tobytes(), name
    found = all_orders(forth).set_index(["readout", "order"])
    for readout, measures in derive(back)["readouts"].items():
        assert dict(found.loc[(readout, "b>a"), list(measures)]) == pytest.approx(
            measures, rel=0, abs=1e-15, nan_ok=True
        )
