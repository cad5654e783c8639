"""Two gloo ranks: weights in step, the results of one process, no image scored twice or left out."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.test_contract import METHODS
from tests.walks import SAMPLED, TINY, call, results, stream_of_folders

TWO_RANKS = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_agree_with_one_process(method: str, folders: list[Path], tmp_path: Path) -> None:
    """Normalisation by fixed statistics and a mean loss over equal shares: two ranks take the steps of one process."""
    words = [
        *TINY,
        f"method={method}",
        "method.bn_stats=frozen",
        *SAMPLED,
        *stream_of_folders(folders),
    ]
    call(*words, f"paths.output={tmp_path / 'one'}")
    call(*words, *TWO_RANKS, f"paths.output={tmp_path / 'two'}")
    one, two = (next((tmp_path / name).glob("none/*/*/*/*")) for name in ("one", "two"))

    assert results(one).keys() == results(two).keys()
    for name in ("after_0_start", "after_1_a", "after_2_b"):
        alone, shared = (pd.read_parquet(folder / "predictions" / f"{name}.parquet") for folder in (one, two))
        identity = ["dataset", "split", "image", "mos"]
        pd.testing.assert_frame_equal(alone[identity], shared[identity])
        assert not shared.duplicated(["dataset", "image"]).any()
        columns = alone.columns.drop(identity)
        np.testing.assert_allclose(shared[columns], alone[columns], rtol=0, atol=2e-4)
    costs = [json.loads((folder / "summary.json").read_text())["cost"] for folder in (one, two)]
    assert costs[0]["images_seen"] == costs[1]["images_seen"]
    assert costs[0]["forwards_eval"] == costs[1]["forwards_eval"]
    weights = [torch.load(folder / "tasks" / "2_b.ckpt", weights_only=True) for folder in (one, two)]
    for key, tensor in weights[0].items():
        torch.testing.assert_close(
            weights[1][key], tensor, rtol=0, atol=2e-3, msg=lambda text, key=key: f"{key}: {text}"
        )
