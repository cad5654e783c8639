"""Does the order of the tasks matter? The spread over orders that were run, and over all of them
without running them.

Where what a task learns depends neither on the tasks before it nor on those after it, one set of
trainings holds every order: the model after the tasks a, b is a choice among columns of scores that
are already stored.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax

from iqa_lightning.metrics.correlation import srcc
from iqa_lightning.metrics.matrices import readouts_of, task_of_dataset
from iqa_lightning.metrics.transfer import readout_measures
from iqa_lightning.report.text.terminal import RUN_MEASURES

Array = NDArray[np.float64]


Predictions = Mapping[str, pd.DataFrame]


Scores = dict[str, Array]  # by task, (rows,)


Weights = Callable[
    [Sequence[str]], Array
]  # of some tasks: (tasks, rows), summing to 1 over the tasks


State = Callable[[tuple[str, ...]], tuple[Hashable, Callable[[], Array]]]


MOST_TASKS = 7  # 5,040 orders


CLOSE = 1e-4  # scores and weights are stored as float32


def order_sensitivity(values: pd.DataFrame) -> pd.DataFrame:
    """Spread of each measure over the orders.

    Args:
        values: columns `method`, `readout`, `order`, `measure`, `value`, as in `measures.csv`; runs
            of one order (splits, seeds) are averaged first.

    Returns:
        A row per method, readout and measure: `orders` (their number), `mean`, `std`, `lowest`,
        `highest`, `spread` (highest - lowest, of means over splits and seeds) and the orders
        `order_lowest` and `order_highest`.
    """
    keys, rows = ["method", "readout", "measure"], []
    # rounded, so that the same orders are lowest and highest on every machine
    means = (
        values.groupby([*keys, "order"], sort=False)["value"].mean().dropna().round(9).reset_index()
    )
    for key, part in means.groupby(keys, sort=False):
        x = part["value"].to_numpy(np.float64)
        least, most = int(x.argmin()), int(x.argmax())
        row: dict[str, Any] = dict(zip(keys, key, strict=True)) | {
            "orders": len(x),
            "mean": float(x.mean()),
        }
        row |= {"std": float(x.std(ddof=1)) if len(x) > 1 else float("nan")}
        row |= {"lowest": x[least], "highest": x[most], "spread": x[most] - x[least]}
        rows.append(
            row
            | {"order_lowest": part["order"].iloc[least], "order_highest": part["order"].iloc[most]}
        )
    columns = [
        *keys,
        "orders",
        "mean",
        "std",
        "lowest",
        "highest",
        "spread",
        "order_lowest",
        "order_highest",
    ]
    return pd.DataFrame(rows, columns=columns)


def all_orders(predictions: Predictions) -> pd.DataFrame:
    """Measures of every order of the tasks, from the records of one order.

    Only for a method whose tasks learn independently, which its records cannot show:
    `independent_tasks` in the summary of a run does. That the scores of each head stay the same
    from task to task is checked here.

    `single`, `latest` and `oracle` are exact. `gated` is there if the weights among some of the
    tasks follow from what is stored of all, see `weighings`; that is checked against the recorded
    weights after every task. Where it fails (a mixture of readouts; two levels or a hard gate in
    records that hold no `nearness<level>/<task>`, whose mean over the levels alone does not tell
    the levels apart) it is left out.

    Returns:
        A row per readout and order: `readout`, `order` (tasks joined with `>`), `recorded` (whether
        it is the order of the records) and the measures of a summary.

    Raises:
        ValueError: The scores of a head change or are not stored, or there are too many tasks.
    """
    tasks, first = list(predictions)[1:], next(iter(predictions.values()))
    if len(tasks) > MOST_TASKS:
        raise ValueError(
            f"{len(tasks)} tasks have too many orders to go through; {MOST_TASKS} at most"
        )
    test = (first["split"] == "test").to_numpy()
    heads = final_scores(predictions, test)
    found = [
        row
        for readout in readouts_of(first)
        if (state := state_of(readout, predictions, heads, test)) is not None
        for row in measures_of_orders(readout, first[test], tasks, state)
    ]
    return pd.DataFrame(found, columns=["readout", "order", "recorded", *RUN_MEASURES])


def final_scores(predictions: Predictions, test: NDArray[np.bool_]) -> Scores:
    """Scores of each task's model on all test images.

    Raises:
        ValueError: They are not stored, or change after the task, so that another order would give
            others.
    """
    tasks = list(predictions)[1:]
    if "single" in next(iter(predictions.values())):  # one model at a time, that of the last task
        return {task: column(predictions[task], "single", test) for task in tasks}
    if missing := [task for task in tasks if f"score/{task}" not in predictions[tasks[-1]]]:
        raise ValueError(
            f"the records hold no column score/{missing[0]}: other orders follow from the scores "
            "of heads"
        )
    last = {task: column(predictions[tasks[-1]], f"score/{task}", test) for task in tasks}
    for t, after in enumerate(tasks, 1):
        for task in tasks[:t]:
            then = column(predictions[after], f"score/{task}", test)
            if not np.allclose(then, last[task], rtol=CLOSE, atol=CLOSE * float(last[task].std())):
                raise ValueError(
                    f"the scores of the head of '{task}' change after '{after}' (by up to "
                    f"{np.abs(then - last[task]).max():.3g}): another order of the tasks has to "
                    "be run"
                )
    return last


def state_of(
    readout: str, predictions: Predictions, heads: Scores, test: NDArray[np.bool_]
) -> State | None:
    """What a readout says once some tasks are learnt, in their order: a key that names the state,
    and its scores.

    None where this does not follow from the records.
    """
    if readout in ("single", "latest"):
        return lambda seen: (seen[-1], lambda: heads[seen[-1]])
    if readout == "oracle":
        owner = owners(predictions, test, list(heads))
        return lambda seen: (
            frozenset(seen),
            lambda: np.select(
                [owner == task for task in seen], [heads[task] for task in seen], np.nan
            ),
        )
    weigh = gate_of(predictions, heads, test)
    return (
        None if weigh is None else lambda seen: (frozenset(seen), lambda: gated(heads, weigh, seen))
    )


def owners(predictions: Predictions, test: NDArray[np.bool_], tasks: Sequence[str]) -> NDArray[Any]:
    """The task that learns the data set of each test image."""
    names = next(iter(predictions.values()))["dataset"].to_numpy()[test]
    return np.select([np.isin(names, task.split("+")) for task in tasks], list(tasks), "")


def gate_of(predictions: Predictions, heads: Scores, test: NDArray[np.bool_]) -> Weights | None:
    """Gate weights among any of the tasks, if those among the first t are the recorded ones for
    every t; else None.
    """
    tasks = list(heads)
    for weigh in weighings(predictions[tasks[-1]], tasks, test):
        if all(
            as_recorded(predictions[after], weigh, heads, tasks[:t], test)
            for t, after in enumerate(tasks, 1)
        ):
            return weigh
    return None


def weighings(last: pd.DataFrame, tasks: list[str], test: NDArray[np.bool_]) -> Iterator[Weights]:
    """How weights among some of the tasks may follow from the records after the last one.

    From the nearness of each task at each level: a softmax over the tasks, averaged over the
    levels, or 1 for the task where that is largest. From weights alone: by dividing them by their
    sum, right for a softmax over one level.
    """
    names = sorted({str(name).split("/")[0] for name in last if str(name).startswith("nearness")})
    levels = [{task: column(last, f"{level}/{task}", test) for task in tasks} for level in names]
    if levels:

        def soft(seen: Sequence[str]) -> Array:
            shares = [softmax([level[task] for task in seen], axis=0) for level in levels]
            return np.asarray(np.mean(shares, axis=0), np.float64)

        def hard(seen: Sequence[str]) -> Array:
            weights = soft(seen)
            return np.asarray(np.arange(len(seen))[:, None] == weights.argmax(axis=0), np.float64)

        yield from (soft, hard)
    if all(f"gate/{task}" in last for task in tasks):
        gates = {task: column(last, f"gate/{task}", test) for task in tasks}

        def divided(seen: Sequence[str]) -> Array:
            weights = np.array([gates[task] for task in seen])
            total = weights.sum(axis=0)  # 0: none of them has any weight
            return np.asarray(weights / np.where(total > 0, total, np.nan), np.float64)

        yield divided


def as_recorded(
    frame: pd.DataFrame, weigh: Weights, heads: Scores, seen: list[str], test: NDArray[np.bool_]
) -> bool:
    """Whether the weights and the gated score of a state are those that were recorded in it."""
    if any(f"gate/{task}" not in frame for task in seen):
        return False
    stored = [column(frame, f"gate/{task}", test) for task in seen]
    scale = CLOSE * max(1.0, *(float(np.abs(heads[task]).max()) for task in seen))
    score = gated(heads, weigh, seen)
    return bool(
        np.allclose(weigh(seen), stored, rtol=0, atol=CLOSE)
        and np.allclose(score, column(frame, "gated", test), rtol=0, atol=scale)
    )


def gated(heads: Scores, weigh: Weights, seen: Sequence[str]) -> Array:
    """Scores of some heads, weighted by the gate; summed in one order, whatever the tasks'."""
    ordered = [task for task in heads if task in seen]
    return np.asarray((weigh(ordered) * np.array([heads[task] for task in ordered])).sum(axis=0))


def measures_of_orders(
    readout: str, images: pd.DataFrame, tasks: list[str], state: State
) -> list[dict[str, Any]]:
    """Measures of a readout for every order of `tasks`; `images` are the test images before any
    training.
    """
    names = [str(name) for name in dict.fromkeys(images["dataset"])]
    rows = [np.flatnonzero(images["dataset"] == name) for name in names]
    mos, start = images["mos"].to_numpy(np.float64), images[readout].to_numpy(np.float64)
    known: dict[Hashable, Array] = {}
    cells: dict[Hashable, float] = {}

    def agree(one: Hashable, other: Hashable, d: int) -> float:
        if (cell := (one, other, d)) not in cells:
            cells[cell] = srcc(known[one][rows[d]], known[other][rows[d]])
        return cells[cell]

    known["mos"], known["start"] = mos, start
    found = []
    for order in permutations(tasks):
        keys: list[Hashable] = ["start"]
        for t in range(1, len(order) + 1):
            key, scores = state(order[:t])
            keys.append(key := ("state", key))
            if key not in known:
                known[key] = scores()
        learnt, every = task_of_dataset(["start", *order], names), range(len(names))
        matrix = np.array([[agree(key, "mos", d) for d in every] for key in keys])
        stability = np.full(matrix.shape, np.nan)
        for d, task in enumerate(learnt):
            stability[task + 1 :, d] = [agree(key, keys[task], d) for key in keys[task + 1 :]]
        line = {"readout": readout, "order": ">".join(order), "recorded": list(order) == tasks}
        found.append(line | readout_measures(matrix, stability, learnt))
    return found


def column(frame: pd.DataFrame, name: str, rows: NDArray[np.bool_]) -> Array:
    """A column of predictions as float64, only `rows`."""
    return frame[name].to_numpy(np.float64)[rows]
