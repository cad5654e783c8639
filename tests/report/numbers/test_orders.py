"""Orders out of one training against the same world walked in each order; spreads by hand."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iqa_lightning.metrics.matrices import derive
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.order_effects import all_orders, order_sensitivity
from tests.walks import IN_BATCH, stream_of_folders, walk, write_folder

TASKS = ("a", "b", "c")


def world(
    order: tuple[str, ...],
    levels: int = 1,
    hard: bool = False,
    mix: float = 0.0,
    near: bool = False,
) -> dict[str, pd.DataFrame]:
    """What a method whose tasks learn independently records on its way: heads and distances are
    fixed beforehand.

    `near`: with the nearness of each task at each level.
    """
    rng = np.random.default_rng(7)
    names = [name for task in sorted(order) for name in task.split("+")]
    base = pd.DataFrame(
        {"dataset": np.repeat(names, 14), "split": ["val", *["test"] * 13] * len(names)}
    )
    base["image"], base["mos"] = [f"{i}" for i in range(len(base))], rng.uniform(0, 10, len(base))
    heads = {
        task: (base["mos"] + rng.normal(0, 4, len(base))).to_numpy(np.float32)
        for task in sorted(order)
    }
    distance = {task: rng.uniform(0, 0.2, (levels, len(base))) for task in sorted(order)}
    start = rng.normal(size=len(base))
    found = {"start": base.assign(latest=start, oracle=np.nan, gated=start)}
    for t, after in enumerate(order, 1):
        seen = order[:t]
        weights = np.exp(-32 * np.array([distance[task] for task in seen]))
        weights = (weights / weights.sum(axis=0)).mean(axis=1)
        if hard:
            weights = (weights == weights.max(axis=0)).astype(float)
        scores = np.array([heads[task] for task in seen])
        owner = [
            next((task for task in seen if name in task.split("+")), "") for name in base["dataset"]
        ]
        oracle = [heads[task][i] if task else np.nan for i, task in enumerate(owner)]
        gated = (1 - mix) * (weights * scores).sum(axis=0) + mix * scores[-1]
        columns = {f"score/{task}": heads[task] for task in seen}
        columns |= {
            f"gate/{task}": weight.astype(np.float32)
            for task, weight in zip(seen, weights, strict=True)
        }
        for level in range(levels) if near else ():
            columns |= {
                f"nearness{level + 1}/{t}": (-32 * distance[t][level]).astype(np.float32)
                for t in seen
            }
        found[after] = base.assign(latest=scores[-1], oracle=oracle, gated=gated, **columns)
    return found


TWO = {"levels": 2, "near": True}


@pytest.mark.parametrize(
    ("tasks", "options"),
    [
        (TASKS, {}),
        (("a+d", "b", "c"), {}),
        (TASKS, TWO),
        (("c", "a+d", "b"), TWO | {"hard": True}),
    ],
    ids=["sets", "joint", "two levels", "hard"],
)
def test_every_order_is_what_walking_it_gives(tasks: tuple[str, ...], options: dict) -> None:
    found = all_orders(world(tasks[::-1], **options)).set_index(["readout", "order"])
    assert len(found) == 3 * 6
    gated = [dict(found.loc[("gated", ">".join(order))]) for order in itertools.permutations(tasks)]
    assert len({row["mpi"] for row in gated}) > 1, "the order matters"
    for order in itertools.permutations(tasks):
        for readout, measures in derive(world(order, **options))["readouts"].items():
            row = found.loc[(readout, ">".join(order))]
            assert row["recorded"] == (order == tasks[::-1])
            exact = (
                1e-12 if readout != "gated" else 0.02
            )  # float32 weights may turn a pair of 13 images
            assert dict(row.drop("recorded")) == pytest.approx(measures, abs=exact, nan_ok=True)


@pytest.mark.parametrize(
    "options", [{"levels": 2}, {"hard": True}, {"mix": 0.5}], ids=["levels", "hard", "mixture"]
)
def test_a_gate_that_cannot_be_divided_is_left_out(options) -> None:
    """Without the nearness; a mixture in no case. And where what is stored is not what the weights
    were made of.
    """
    found = all_orders(world(TASKS, **options))
    assert set(found["readout"]) == {"latest", "oracle"}
    assert set(all_orders(world(TASKS, mix=0.5, near=True))["readout"]) == {"latest", "oracle"}
    wrong = world(TASKS, levels=2, near=True)
    wrong["c"]["nearness2/b"] += 1.0
    assert set(all_orders(wrong)["readout"]) == {"latest", "oracle"}


def test_one_model_at_a_time() -> None:
    """Separate learning: after a task its own model rates everything."""
    walked = {order: world(order) for order in itertools.permutations(TASKS)}
    single = {
        order: {after: frame.assign(single=frame["latest"])[["dataset", "split", "image", "mos", "single"]]
                for after, frame in frames.items()}
        for order, frames in walked.items()
    }  # fmt: skip
    found = all_orders(single["b", "c", "a"]).set_index("order")
    for order, frames in single.items():
        expected = derive(frames)["readouts"]["single"]
        assert dict(found.loc[">".join(order), list(expected)]) == pytest.approx(
            expected, abs=1e-12
        )


def test_heads_that_change_are_refused_and_so_are_many_tasks() -> None:
    frames = world(TASKS)
    frames["b"]["score/a"] += 0.01
    with pytest.raises(ValueError, match=r"head of 'a' change after 'b' .* has to be run"):
        all_orders(frames)
    with pytest.raises(ValueError, match="no column score/a"):
        all_orders(
            {
                after: frame.drop(columns="score/a", errors="ignore")
                for after, frame in frames.items()
            }
        )
    many = dict.fromkeys(["start", *"abcdefgh"], frames["start"])
    with pytest.raises(ValueError, match="8 tasks have too many orders"):
        all_orders(many)


def test_sensitivity_by_hand() -> None:
    rows = [
        ("x", "a>b", 0.5),
        ("x", "a>b", 0.7),
        ("x", "b>a", 0.9),
        ("y", "a>b", 0.4),
        ("y", "b>a", math.nan),
    ]
    table = pd.DataFrame(rows, columns=["method", "order", "value"]).assign(
        readout="single", measure="msrcc"
    )
    x, y = order_sensitivity(table).to_dict("records")
    assert (x["orders"], x["order_lowest"], x["order_highest"]) == (2, "a>b", "b>a")
    expected = (0.75, math.sqrt(2 * 0.15**2), 0.6, 0.9, 0.3)
    assert [x[key] for key in ("mean", "std", "lowest", "highest", "spread")] == pytest.approx(
        expected
    )
    assert (y["orders"], y["mean"], y["spread"]) == (1, 0.4, 0)
    assert math.isnan(y["std"])


@pytest.mark.slow
def test_the_records_of_a_real_run_hold_the_gate_of_another_order(tmp_path: Path) -> None:
    """TSN-IQA in both orders of two folders: gate weights of the one follow from the other, heads
    never change.
    """
    folders = [
        write_folder(tmp_path / name, seed, images=30) for seed, name in enumerate(("p", "q"))
    ]
    runs = {}
    for order in (("p", "q"), ("q", "p")):
        words = [*stream_of_folders(folders), IN_BATCH, "method=tsn_iqa"]
        words += [
            "schedule.warmup.epochs=0",
            "schedule.finetune.epochs=1",
            f"stream.order=[{','.join(order)}]",
        ]
        runs[order] = RunFolder(walk(tmp_path / "-".join(order), *words))
    forth, back = (run.predictions() for run in runs.values())
    assert all(run.read_summary()["independent_tasks"] for run in runs.values())
    keys = ["dataset", "split", "image"]
    pairs = forth["q"].merge(back["p"], on=keys, suffixes=("", "_back"))
    assert len(pairs) == len(forth["q"])
    for task in ("p", "q"):
        for kind in ("gate", "nearness1"):  # this network has one level
            np.testing.assert_allclose(
                pairs[f"{kind}/{task}"], pairs[f"{kind}/{task}_back"], atol=1e-4
            )
    assert pairs["gate/p"].std() > 0.02  # there is something to compare
    found = all_orders(forth).set_index(["readout", "order"])
    assert set(found.index) == set(itertools.product(("latest", "oracle", "gated"), ("p>q", "q>p")))
    for readout, measures in derive(forth)["readouts"].items():
        exact = 1e-12 if readout != "gated" else 0.05
        assert dict(found.loc[(readout, "p>q"), list(measures)]) == pytest.approx(
            measures, abs=exact, nan_ok=True
        )
    assert forth["q"]["mos_std"].eq(5).all()
