"""What follows from predictions, against scipy cell by cell."""

import math
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from iqa_lightning.metrics.matrices import CELLS, derive, readouts_of, task_of_dataset

SIZES = {"a": 40, "b": 30, "c": 20}


def rows(sizes: dict[str, int]) -> pd.DataFrame:
    """Images of both parts; the ratings of validation images are far off, so that mixing them in
    would show.
    """
    random = np.random.default_rng(7)
    parts = []
    for name, n in sizes.items():
        for part, shift in (("val", 500.0), ("test", 50.0)):
            images = [f"{name}_{part}_{i}.png" for i in range(n)]
            parts.append(
                {
                    "dataset": name,
                    "split": part,
                    "image": images,
                    "mos": random.normal(shift, 10, n),
                }
            )
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)


def walk(tasks: list[str], sizes: dict[str, int]) -> dict[str, pd.DataFrame]:
    random, base = np.random.default_rng(1), rows(sizes)
    predictions, known = {}, set()
    for task in ["start", *tasks]:
        known |= set(task.split("+"))
        frame = base.copy()
        frame["latest"] = (frame["mos"] / 10 + random.normal(0, 1, len(frame))).astype(np.float32)
        frame["oracle"] = frame["latest"].where(frame["dataset"].isin(known))
        frame["score/a"] = frame["latest"]
        predictions[task] = frame
    return predictions


def scores(frame: pd.DataFrame, name: str, column: str) -> np.ndarray:
    return frame[(frame["dataset"] == name) & (frame["split"] == "test")][column].to_numpy()


def test_every_cell_equals_scipy_on_the_test_rows() -> None:
    predictions = walk(["a", "b", "c"], SIZES)
    derived = derive(predictions)
    assert (
        list(derived["srcc"])
        == list(derived["stability"])
        == list(derived["readouts"])
        == ["latest", "oracle"]
    )
    for readout, matrix in derived["srcc"].items():
        assert (matrix.index.name, list(matrix.index)) == ("after", ["start", "a", "b", "c"])
        assert list(matrix.columns) == ["a", "b", "c"]
        for t, task in enumerate(predictions):
            for d, name in enumerate(SIZES):
                pred, mos = (scores(predictions[task], name, column) for column in (readout, "mos"))
                expected = (
                    math.nan
                    if readout == "oracle" and t <= d
                    else stats.spearmanr(pred, mos).statistic
                )
                assert matrix.loc[task, name] == pytest.approx(expected, nan_ok=True)
                expected = math.nan
                if t > d + 1:  # the column was learnt by task d + 1
                    expected = stats.spearmanr(
                        pred, scores(predictions[name], name, readout)
                    ).statistic
                assert derived["stability"][readout].loc[task, name] == pytest.approx(
                    expected, nan_ok=True
                )


def test_measures_are_those_of_the_matrices() -> None:
    derived = derive(walk(["a", "b"], {"a": 40, "b": 30}))
    s, p = derived["srcc"]["latest"], derived["stability"]["latest"]
    measures = derived["readouts"]["latest"]
    assert measures["msrcc"] == pytest.approx((s.loc["b", "a"] + s.loc["b", "b"]) / 2)
    assert measures["mpi"] == pytest.approx((s.loc["a", "a"] + s.loc["b", "b"]) / 2)
    assert measures["msi"] == pytest.approx((1 + p.loc["b", "a"]) / 2)
    assert measures["bwt"] == pytest.approx(s.loc["b", "a"] - s.loc["a", "a"])
    assert measures["fwt"] == pytest.approx(s.loc["a", "b"])
    assert measures["fwt_gem"] == pytest.approx(s.loc["a", "b"] - s.loc["start", "b"])
    assert measures["area"] == pytest.approx((s.loc["a", "a"] + s.loc["b"].mean()) / 2)
    assert math.isnan(derived["readouts"]["oracle"]["fwt"])  # no head, no prediction, no transfer


def test_joint_task_learns_several_columns_at_once() -> None:
    derived = derive(walk(["a+b", "c"], SIZES))
    s, p = derived["srcc"]["latest"], derived["stability"]["latest"]
    assert list(s.index) == ["start", "a+b", "c"]
    assert p.loc["c", ["a", "b"]].notna().all()
    assert p["c"].isna().all()
    expected = ((s.loc["a+b", "a"] + s.loc["a+b", "b"]) / 2 + s.loc["c", "c"]) / 2
    assert derived["readouts"]["latest"]["mpi"] == pytest.approx(expected)


def test_a_run_that_is_not_finished_counts_what_is_learnt() -> None:
    derived = derive(walk(["a"], SIZES))
    assert derived["srcc"]["latest"].shape == (2, 3)
    measures = derived["readouts"]["latest"]
    assert measures["msrcc"] == measures["mpi"] == derived["srcc"]["latest"].loc["a", "a"]
    assert measures["msi"] == 1.0
    assert all(math.isnan(measures[name]) for name in ("bwt", "fwt", "forgetting"))
    only_start = derive(walk([], SIZES))
    assert all(math.isnan(value) for value in only_start["readouts"]["latest"].values())


def test_constant_predictions_are_nan_not_zero() -> None:
    predictions = walk(["a", "b"], {"a": 40, "b": 30})
    predictions["b"]["latest"] = np.float32(0.5)
    derived = derive(predictions)
    assert derived["srcc"]["latest"].loc["b"].isna().all()
    assert math.isnan(derived["readouts"]["latest"]["msrcc"])
    assert math.isnan(derived["readouts"]["latest"]["msi"])


def test_cells_hold_every_correlation_of_what_exists() -> None:
    predictions = walk(["a", "b", "c"], SIZES)
    cells = derive(predictions)["cells"]
    assert list(cells.columns) == CELLS
    assert len(cells) == 4 * 3 + 6  # every cell of latest, the lower triangle of oracle
    assert list(cells["after"].drop_duplicates()) == ["start", "a", "b", "c"]
    cell = cells[
        (cells["after"] == "b") & (cells["dataset"] == "c") & (cells["readout"] == "latest")
    ].iloc[0]
    pred, mos = (scores(predictions["b"], "c", column) for column in ("latest", "mos"))
    assert cell["n"] == 20
    assert cell["srcc"] == pytest.approx(stats.spearmanr(pred, mos).statistic)
    assert cell["plcc_raw"] == pytest.approx(stats.pearsonr(pred, mos).statistic)
    assert cell["krcc"] == pytest.approx(stats.kendalltau(pred, mos).statistic)
    assert cell["srcc_low"] < cell["srcc"] < cell["srcc_high"]
    assert cell["plcc_logistic4"] > cell["plcc_raw"] - 0.02
    assert 0 < cell["rmse_logistic4"] < mos.std()


def test_readouts_are_what_is_neither_identity_nor_of_one_head() -> None:
    frame = pd.DataFrame(
        columns=["dataset", "split", "image", "mos", "latest", "gated", "score/a", "gate/a"]
    )
    assert readouts_of(frame) == ["latest", "gated"]


def test_learnt_by() -> None:
    assert task_of_dataset(["start", "b", "a+d"], ["a", "b", "c", "d"]).tolist() == [2, 1, 3, 2]
    with pytest.raises(
        ValueError, match="task 'a\\+x' learns 'x', but the predictions hold only a, b"
    ):
        task_of_dataset(["start", "a+x"], ["a", "b"])


def test_fast_enough_to_follow_every_task() -> None:
    sizes = {"clive": 233, "mmp2k": 240, "ttl": 65, "avt_ai": 31}
    predictions = walk(list(sizes), sizes)
    for frame in predictions.values():
        frame["gated"] = frame["latest"]
    began = time.process_time()
    derive(predictions)
    assert time.process_time() - began < 8  # under 2 s on a free machine


def test_a_cell_has_one_interval_by_content() -> None:
    """Bonett and Wright's where images are their own contents, else the quantiles of resampled
    contents: by scipy, one resample at a time.
    """
    rng = np.random.default_rng(5)
    mos = rng.normal(size=60)
    frame = pd.DataFrame({"dataset": "a", "split": "test", "mos": mos})
    frame["image"] = [f"{i}.png" for i in range(60)]
    frame["latest"] = mos + np.repeat(rng.normal(size=12), 5)
    shared = frame.assign(**{"image/reference": np.repeat([f"r{i}" for i in range(12)], 5)})
    plain, grouped = (
        derive({"start": table, "a": table})["cells"].iloc[-1] for table in (frame, shared)
    )
    z, error = math.atanh(plain["srcc"]), math.sqrt((1 + plain["srcc"] ** 2 / 2) / 57)
    assert plain["srcc_low"] == pytest.approx(math.tanh(z - 1.96 * error), abs=1e-6)
    draws = []
    for _ in range(3000):
        drawn = np.concatenate([np.arange(5) + 5 * c for c in rng.integers(12, size=12)])
        draws.append(stats.spearmanr(frame["latest"][drawn], mos[drawn]).statistic)
    level = stats.norm.cdf(math.sqrt(12 / 11) * stats.t.ppf(0.025, 11))
    low, high = np.quantile(draws, [level, 1 - level])
    assert (grouped["srcc_low"], grouped["srcc_high"]) == pytest.approx((low, high), abs=0.04)
    assert grouped["srcc_low"] < plain["srcc_low"]
    few = derive({"start": shared[:20], "a": shared[:20]})["cells"].iloc[-1]
    assert math.isnan(few["srcc_low"])  # four contents
