"""Two gloo ranks: weights in step, the results of one process, no image scored twice or left out."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.datasets.base import unlocked_test_set
from iqa_lightning.runs.building import build_method, build_stream
from tests.continual.ranks import TWO_RANKS, Ranks
from tests.test_contract import ALIKE, METHODS
from tests.walks import (
    IN_BATCH,
    SAMPLED,
    TINY,
    call,
    composed,
    each,
    results,
    stream_of_folders,
    suited,
    walk,
    write_folder,
)

IDENTITY = (
    "dataset",
    "split",
    "image",
    "mos",
    "mos_std",
    "image/reference",
    "image/distortion",
    "image/scene",
)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    """Two processes for all walks on two ranks."""
    pair = Ranks()
    yield pair
    pair.stop()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Data sets whose parts two ranks cannot share evenly: 5 images to validate, 9 to test by."""
    root = tmp_path_factory.mktemp("odd")
    return [write_folder(root / name, seed, images=47) for seed, name in enumerate("ab")]


DRIFTING = ("unique", "unique_lwf")
"""Their head has a bias that no difference of two scores sees: rounding alone moves it, and all
scores alike.
"""

GENTLY = {"liqa": ("method.feature_generator.lr=1.0e-5", "method.feature_generator.steps=2")}
"""Two networks that learn against each other blow rounding up: few and small steps, so that it
stays rounding.
"""


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*the replay of '.' has collapsed"
)  # too few steps to learn much
@pytest.mark.parametrize("method", each(method for method in METHODS if method not in ALIKE))
def test_two_ranks_agree_with_one_process(
    method: str, odd: list[Path], ranks: Ranks, tmp_path: Path
) -> None:
    """Normalisation by fixed statistics and a mean loss over equal shares: two ranks take the steps
    of one process.
    """
    words = [
        f"method={method}",
        *suited(method),
        "method.bn_stats=frozen",
        *SAMPLED,
        *stream_of_folders(odd),
        *GENTLY.get(method, ()),
    ]
    if method.startswith(("metaiqa", "lpf", "grmp_iqa")):  # each rank drops something else
        words += ["method.dropout=0.0"]
    if method.startswith("dp_iqa"):  # and samples another latent
        network = "backbone" if method == "dp_iqa_teacher" else "method.teacher.network"
        words += [f"{network}.posterior=mode"]
    one, two = walk(tmp_path / "one", *words), ranks.walk(tmp_path / "two", *words)

    assert results(one).keys() == results(two).keys()
    for name in ("after_0_start", "after_1_a", "after_2_b"):
        alone, shared = (
            pd.read_parquet(folder / "predictions" / f"{name}.parquet") for folder in (one, two)
        )
        identity = [name for name in alone.columns if name in IDENTITY]
        pd.testing.assert_frame_equal(alone[identity], shared[identity])
        assert not shared.duplicated(["dataset", "image"]).any()
        sizes = shared.groupby(["dataset", "split"]).size().unstack()
        assert sizes.to_dict("list") == {"test": [9, 9], "val": [5, 5]}
        columns = alone.columns.drop(identity)
        drift = (
            (shared[columns] - alone[columns]).mean()
            if method in DRIFTING and name != "after_0_start"
            else 0.0
        )
        np.testing.assert_allclose(shared[columns] - drift, alone[columns], rtol=0, atol=2e-3)
    costs = [json.loads((folder / "summary.json").read_text())["cost"] for folder in (one, two)]
    assert costs[0]["images_seen"] == costs[1]["images_seen"]
    assert costs[0]["forwards_eval"] == costs[1]["forwards_eval"]
    weights = [
        torch.load(folder / "tasks" / "2_b.ckpt", weights_only=True) for folder in (one, two)
    ]
    for key, tensor in weights[0].items():
        if method in DRIFTING and key.endswith("head.bias"):
            continue
        # less than a step on average: where a gradient is nearly nothing, rounding gives the step
        # of Adam its sign
        assert (weights[1][key].double() - tensor.double()).abs().mean() < 4e-3, key


NOT_SYNCHRONISED = (
    "++trainer.strategy={_target_: tests.continual.apart.Apart, find_unused_parameters: true}"
)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mh_cl", "icarl_v2"])
def test_ranks_that_keep_their_gradients_to_themselves_are_found_out(
    method: str, odd: list[Path], ranks: Ranks, tmp_path: Path
) -> None:
    """The tolerance of the test above is far below what a forgotten synchronisation does."""
    words = [f"method={method}", "method.bn_stats=frozen", *SAMPLED, *stream_of_folders(odd)]
    one, two = (
        walk(tmp_path / "one", *words),
        ranks.walk(tmp_path / "two", *words, NOT_SYNCHRONISED, "allow=[tests]"),
    )
    alone, apart = (
        pd.read_parquet(folder / "predictions" / "after_2_b.parquet") for folder in (one, two)
    )
    columns = [name for name in alone.columns if name in ("latest", "oracle")]
    assert (apart[columns] - alone[columns]).abs().max().min() > 10 * 2e-3


@pytest.mark.slow
def test_ranks_have_the_same_normalisation_statistics(odd: list[Path], tmp_path: Path) -> None:
    """Each rank gathers statistics from its own share; what the other one scores tells which it
    scores by.

    These two ranks are started by Lightning, as those of a user are.
    """
    words = [
        *TINY,
        IN_BATCH,
        "method=sh_cl",
        "method.bn_stats=always",
        "stream.order=[a]",
        *stream_of_folders(odd),
    ]
    words += ["schedule.warmup.epochs=0", "schedule.finetune.epochs=1"]
    call(*words, *TWO_RANKS, f"paths.output={tmp_path}")
    (folder,) = tmp_path.glob("folders/*/*/*/*")
    frame = pd.read_parquet(folder / "predictions" / "after_1_a.parquet")

    cfg = composed(*words)
    stream = build_stream(cfg)
    method = build_method(cfg, stream)
    method.load_state_dict(torch.load(folder / "tasks" / "1_a.ckpt", weights_only=True))
    stream.setup()
    with unlocked_test_set(), evaluation_mode(method), torch.no_grad():
        parts = [stream.data["a"].part(name) for name in ("val", "test")]
        scores = [
            float(method.score(part[i]["image"][None])) for part in parts for i in range(len(part))
        ]
    np.testing.assert_allclose(frame["single"], scores, rtol=0, atol=2e-3)
