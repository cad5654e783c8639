"""One whole table, made again from the predictions with pandas and scipy alone.

Nothing of the package is used for the expected numbers: two methods, two orders, five splits of one
set of images; one data set has a small test part, one has contents that images share.
"""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.results import collect, write_results
from iqa_lightning.report.table_files import write_table

ORDERS = (["a", "b", "c"], ["c", "b", "a"])
SIZES = {"a": (200, 200), "b": (360, 60), "c": (100, 100)}  # images and contents of each data set
TRAIN = 0.7
RHO = 2 / 7
SPLITS = range(1, 6)


def make_run(home: Path, method: str, order: list[str], split: int) -> Path:
    """A run on a split of the data sets: scores are ratings with noise, old sets get noisier."""
    path = home / method / "-".join(order) / f"split{split}" / "seed0"
    truth, rng = (
        np.random.default_rng(0),
        np.random.default_rng([split, len(method), *map(ord, order)]),
    )
    parts = []
    for name, (images, contents) in SIZES.items():
        mos = truth.normal(size=images)
        chosen = np.random.default_rng([split, images]).permutation(contents)[: contents // 5]
        code = np.arange(images) % contents
        rows = pd.DataFrame(
            {"dataset": name, "split": "test", "image": [f"{i}" for i in range(images)]}
        )
        rows = rows.assign(mos=mos, **{"image/reference": [f"{name}{c}" for c in code]})
        parts.append(rows[np.isin(code, chosen)])
    table = pd.concat([part for name in order for part in parts if (part["dataset"] == name).all()])
    table = table.reset_index(drop=True)
    folder = RunFolder(path)
    for t, task in enumerate(["start", *order]):
        age = np.array([abs(order.index(name) + 1 - t) for name in table["dataset"]])
        noise = (0.4 if method == "steady" else 0.8) * (1 + 0.5 * age)
        score = table["mos"] + noise * rng.normal(size=len(table))
        folder.write_predictions(t, task, table.assign(single=score))
    images = {n: {"train": 7, "val": 1, "test": 2} for n in SIZES}
    cost = {
        "train_seconds": 10.0 * split,
        "images_seen": 1,
        "forwards_eval": 2,
        "parameters_added": 3,
    }
    folder.write_summary({
        "method": method, "order": order, "split": split, "split_hash": f"h{split}", "seed": 0,
        "finished": True, "images": images, "cost": cost | {"bytes_stored": 4},
    })  # fmt: skip
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs, and the table that the package makes of them."""
    home = tmp_path_factory.mktemp("recomputed")
    paths = [
        make_run(home / "runs", method, order, split)
        for method, order, split in itertools.product(("steady", "shaky1"), ORDERS, SPLITS)
    ]
    folder = home / "table"
    folder.mkdir()
    (folder / "published.csv").write_text(
        "method,readout,dataset,metric,value,protocol,source,certainty\n"
    )
    write_results(folder / "results", collect([RunFolder(path) for path in paths], 200))
    write_table(folder, [], figures=False)
    return home


def recomputed(home: Path) -> pd.DataFrame:
    """Measures of every run by scipy: columns method, split, measure, value."""
    rows = []
    for path in sorted((home / "runs").glob("*/*/*/*")):
        method, order, split = path.parts[-4], path.parts[-3].split("-"), int(path.parts[-2][5:])
        frames = {
            task: pd.read_parquet(path / "predictions" / f"after_{t}_{task}.parquet")
            for t, task in enumerate(["start", *order])
        }

        def srcc(task: str, name: str, other: str | None = None, frames: dict = frames) -> float:
            part = frames[task][frames[task]["dataset"] == name]
            against = part["mos"]
            if other is not None:
                against = frames[other][frames[other]["dataset"] == name]["single"]
            return float(stats.spearmanr(part["single"], against).statistic)

        last = order[-1]
        found = {f"srcc/{name}": srcc(last, name) for name in order}
        found["msrcc"] = np.mean([srcc(last, name) for name in order])
        found["msrcc60"] = found["srcc/b"]  # the only set that is not small
        seen = [order[: t + 1] for t in range(3)]
        found["area"] = np.mean([np.mean([srcc(s[-1], name) for name in s]) for s in seen])
        found["mpi"] = np.mean([srcc(name, name) for name in order])
        later = [[srcc(s[-1], name, name) for name in s[:-1]] for s in seen[1:]]
        found["msi"] = np.mean([1.0, *(np.mean(row) for row in later)])
        found["mpsi"] = (found["mpi"] + found["msi"]) / 2
        found["bwt"] = np.mean([srcc(last, name) - srcc(name, name) for name in order[:-1]])
        found["fwt"] = np.mean([srcc(order[i - 1], order[i]) for i in (1, 2)])
        best = [max(srcc(t, name) for t in order[i:-1]) for i, name in enumerate(order[:-1])]
        found["forgetting"] = np.mean(
            [b - srcc(last, n) for b, n in zip(best, order, strict=False)]
        )
        rows += [
            {"method": method, "split": split, "measure": key, "value": value}
            for key, value in found.items()
        ]
    return pd.DataFrame(rows)


def test_the_whole_table_follows_from_the_predictions(home: Path) -> None:
    runs = recomputed(home)
    lines = pd.read_csv(home / "table/results/summary.csv").set_index(["method", "measure"])
    splits = runs.groupby(["method", "measure", "split"])["value"].mean()
    quantile = stats.t.ppf(0.975, 4)
    checked = 0
    for (method, measure), rows in splits.groupby(level=[0, 1]):
        x = rows.to_numpy()
        if measure in ("bwt", "forgetting", "fwt"):
            half = quantile * math.sqrt(1 / 5 + RHO) * x.std(ddof=1)
            bounds = x.mean() - half, x.mean() + half
        else:
            z = np.arctanh(x)
            half = quantile * math.sqrt(1 / 5 + RHO) * z.std(ddof=1)
            bounds = math.tanh(z.mean() - half), math.tanh(z.mean() + half)
        line = lines.loc[(method, measure)]
        assert (line["mean"], line["low"], line["high"]) == pytest.approx(
            (x.mean(), *bounds), abs=2e-6
        )
        assert (line["n"], line["splits"], line["interval"]) == (10, 5, "splits")
        checked += 1
    assert checked == 2 * 12
    costs = lines.loc[("steady", "train_seconds")]
    assert (costs["mean"], costs["low"], costs["high"], costs["interval"]) == (30, 10, 50, "range")
    text = (home / "table/table.md").read_text()
    assert "a (40 images, 40 contents), c (20 images, 20 contents)" in text
    assert "Test images for each training image: 0.286 (of these splits)" in text


def test_all_tests_follow_from_the_predictions(home: Path) -> None:
    runs = recomputed(home)
    splits = runs.pivot_table(index=["measure", "split"], columns="method", values="value")
    tests = pd.read_csv(home / "table/results/tests.csv").set_index("measure")
    assert len(tests) == 7
    for measure, line in tests.iterrows():
        both = splits.loc[measure]
        d = (both[line["first"]] - both[line["second"]]).to_numpy()
        scale = math.sqrt(1 / 5 + RHO) * d.std(ddof=1)
        posterior = stats.t(4, d.mean(), scale)
        p = 2 * stats.t.sf(abs(d.mean()) / scale, 4)
        below, above = posterior.cdf(-0.01), posterior.sf(0.01)
        worse, better = (above, below) if measure == "forgetting" else (below, above)
        assert (line["difference"], line["p"], line["p_holm"]) == pytest.approx(
            (d.mean(), p, p), abs=2e-6
        )
        found = line["worse"], line["equal"], line["better"]
        assert found == pytest.approx((worse, 1 - worse - better, better), abs=2e-6)
        assert line["said"] == ("differ" if p <= 0.05 else "not distinguishable")
        power = stats.nct.sf(stats.t.ppf(0.975, 4), 4, line["detectable"] / scale)
        assert power == pytest.approx(0.8, abs=1e-3)


def test_cells_have_one_interval_in_runs_and_tables(home: Path) -> None:
    """Bonett and Wright's where each image is its own content, in `cells.csv` and in the table."""
    cells = pd.read_csv(home / "table/results/cells.csv")
    own = cells[cells["n"] == cells["contents"]]
    z, error = np.arctanh(own["srcc"]), np.sqrt((1 + own["srcc"] ** 2 / 2) / (own["n"] - 3))
    assert np.tanh(z - 1.96 * error).to_numpy() == pytest.approx(
        own["srcc_low"].to_numpy(), abs=2e-6
    )
    assert set(own["dataset"]) == {"a", "c"}
    shared = cells[(cells["dataset"] == "b") & (cells["after"] != "start")]
    assert set(shared["contents"]) == {12}
    z, error = (
        np.arctanh(shared["srcc"]),
        np.sqrt((1 + shared["srcc"] ** 2 / 2) / (shared["n"] - 3)),
    )
    assert not np.allclose(np.tanh(z - 1.96 * error), shared["srcc_low"], atol=1e-3)
