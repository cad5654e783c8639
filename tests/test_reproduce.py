"""From records to a table: runs written by hand, no training; one table through the command line
with real runs.
"""

import itertools
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from iqa_lightning.metrics.matrices import derive
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.forgetting import pair_flips
from iqa_lightning.report.numbers.results import collect
from iqa_lightning.reproduce import compare, independent, overrides, reproduce
from iqa_lightning.runs.grid import Run, make, planned_runs, read_grid
from iqa_lightning.runs.process import Outcome
from tests.walks import ROOT, TINY, call

ORDER = ["compression", "blur", "noise", "tone"]  # of the demo stream
HEADER = "method,readout,dataset,metric,value,source,certainty"
GRID = """\
experiment: demo
methods: [tsn_iqa, sh_cl]
orders: [default, reverse]
splits: [1, 2]
"""


def write_run(
    output: Path, method: str, order: list[str], split: int = 1, seed: int = 0, **options
) -> RunFolder:
    """A finished run whose scores are its ratings with noise, 12 contents of 3 test images a data
    set.
    """
    folder = RunFolder(output / "demo" / method / "-".join(order) / f"split{split}" / f"seed{seed}")
    rng = np.random.default_rng([split, seed, len(method), order.index("blur")])
    images = np.random.default_rng(split)
    rows = [
        {"dataset": name, "split": part, "image": f"{part}{i}", "mos": images.uniform(0, 99)}
        | {"image/reference": f"r{i % 12}"}
        for name in order
        for part, count in (("val", 6), ("test", 36))
        for i in range(count)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    for t, task in enumerate(["start", *order]):
        noise = options.get("noise", 30) + 20 * np.array(
            [t < order.index(name) + 1 for name in table["dataset"]]
        )
        score = table["mos"] + rng.normal(0, 1, len(table)) * noise
        readouts = (
            {"latest": score, "gated": score + rng.normal(0, 5, len(table))}
            if not method.startswith("sh_cl")
            else {}
        )
        folder.write_predictions(t, task, table.assign(**(readouts or {"single": score})))
    cost = {
        "train_seconds": 60.0 + split,
        "images_seen": 1000,
        "forwards_eval": 500,
        "parameters_added": 7,
    }
    folder.write_summary({
        "method": method, "order": order, "split": split, "split_hash": options.get("split_hash", f"hash{split}"),
        "seed": seed, "git": "abc", "finished": True, "synthetic": options.get("synthetic", True),
        "cost": cost | {"bytes_stored": 10**6},
    })  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose runs are all there."""
    home = tmp_path_factory.mktemp("made")
    folder = home / "experiments" / "tiny"
    folder.mkdir(parents=True)
    (folder / "runs.yaml").write_text(GRID)
    (folder / "published.csv").write_text(f"{HEADER}\n")
    for method, order, split in itertools.product(
        ("tsn_iqa", "sh_cl"), (ORDER, ORDER[::-1]), (1, 2)
    ):
        write_run(home / "outputs", method, order, split, noise=10 if method == "tsn_iqa" else 40)
    return home


@pytest.fixture
def table(made: Path, tmp_path: Path) -> Path:
    """A copy of that table, with its runs, for one test."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "experiments" / "tiny"


def build(folder: Path, *words: str) -> list[str]:
    """The command in this process."""
    tmp = folder.parents[1]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        places = [
            f"experiments={tmp / 'experiments'}",
            f"output={tmp / 'outputs'}",
            f"table={folder.name}",
        ]
        return reproduce(compose("reproduce", [*places, "resamples=100", "figures=false", *words]))


def written(folder: Path) -> dict[str, bytes]:
    files = [
        *(folder / name for name in ("table.md", "table.tex", "details.md")),
        *sorted(folder.glob("*/*")),
    ]
    return {file.name: file.read_bytes() for file in files}


def summary(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results" / "summary.csv").set_index(
        ["method", "readout", "measure"]
    )


def test_a_table_comes_from_the_records_alone(table: Path) -> None:
    assert build(table) == []  # nothing is missing, so nothing is trained
    text = (table / "table.md").read_text()
    assert "**Synthetic targets" in text
    assert "Synthetic targets" in (table / "table.tex").read_text()
    header = "| method | readout | config | splits | runs | compression\\* | blur\\* | noise\\* | tone\\* "
    header += "| mSRCC | mSRCC60 | area | mPI | mSI | mPSI | forgetting | BWT | FWT |"
    assert header in text
    rows = [
        line.split(" | ")[:5] for line in text.split(header)[1].split("\n\n")[0].splitlines()[2:]
    ]
    assert rows == [
        ["| tsn_iqa", "latest", "-", "2", "4"],
        ["| tsn_iqa", "gated", "-", "2", "4"],
        ["| sh_cl", "single", "-", "2", "4"],
    ]
    made = [
        "cells",
        "forgetting",
        "gate",
        "measures",
        "order_spread",
        "orders",
        "pair_flips",
        "ranks",
        "runs",
    ]
    made += ["summary", "tests", "variance", "worst_images"]
    assert list(written(table)) == [
        "table.md",
        "table.tex",
        "details.md",
        *(f"{name}.csv" for name in made),
    ]


def test_a_method_with_other_settings_is_a_row_of_its_own(table: Path) -> None:
    variants = "variants: {plain: [], high: [method.optimizer.lr=1.0e-2]}\n"
    (table / "runs.yaml").write_text(
        GRID.replace("orders:", f"{variants}orders:").replace("[tsn_iqa, sh_cl]", "[sh_cl]")
    )
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        runs = planned_runs(read_grid(table / "runs.yaml"), [])
    rates = {run.method: run.config["method"]["optimizer"]["lr"] for run in runs}
    assert list(rates) == ["sh_cl", "sh_cl@high"], "without overrides it is the method itself"
    assert rates["sh_cl@high"] == 1e-2 != rates["sh_cl"]
    assert "variant=high" in runs[-1].words, "the run is made as a user would make it"
    for run in runs[len(runs) // 2 :]:
        write_run(table.parents[1] / "outputs", run.method, run.order, run.split, noise=10)
    build(table, "from=records")
    text = (table / "table.md").read_text()
    assert "| sh_cl | single | - | 2 | 4 |" in text
    assert "| sh_cl@high | single | - | 2 | 4 |" in text


def test_cells_hold_the_matrices_and_intervals_by_content(table: Path) -> None:
    build(table)
    cells = pd.read_csv(table / "results" / "cells.csv")
    rows = cells[
        (cells["method"] == "tsn_iqa") & (cells["order"] == ">".join(ORDER)) & (cells["split"] == 2)
    ]
    run = RunFolder(next(table.parents[1].glob("outputs/demo/tsn_iqa/compression*/split2/seed0")))
    derived = derive(run.predictions())
    for kind in ("srcc", "stability"):
        for readout, matrix in derived[kind].items():
            found = rows[rows["readout"] == readout].pivot(
                index="after", columns="dataset", values=kind
            )
            np.testing.assert_allclose(found.loc[matrix.index, matrix.columns], matrix, atol=1e-6)
    assert set(rows["contents"]) == {12}
    assert set(rows["n"]) == {36}
    assert ((rows["srcc_low"] < rows["srcc"]) & (rows["srcc"] < rows["srcc_high"])).mean() > 0.95


def test_built_again_no_byte_changes_with_or_without_the_runs(table: Path) -> None:
    runs = [path.parent for path in (table.parents[1] / "outputs").rglob("summary.json")]
    for checkpoint in ("last.ckpt", "tasks/1_blur.ckpt"):
        for run in runs:
            (run / checkpoint).parent.mkdir(exist_ok=True)
            (run / checkpoint).write_bytes(b"weights")
    build(table, "figures=true")
    first = written(table)
    pictures = {
        f"{kind}_{method}.png" for kind in ("srcc", "stability") for method in ("tsn_iqa", "sh_cl")
    }
    assert {name for name in first if name.endswith(".png")} == pictures | {
        "curves.png",
        "ranks.png",
        "orders.png",
    }
    for path in [
        *(table.parents[1] / "outputs").rglob("*.ckpt"),
        *table.glob("*.md"),
        *table.glob("*/*.png"),
    ]:
        path.unlink()
    (table / "figures" / "srcc_of_a_method_that_is_gone.png").write_bytes(b"old")
    build(table, "figures=true")  # nothing is trained for want of a checkpoint
    assert written(table) == first
    build(table, "from=records")
    assert written(table) == first
    for path in (table.parents[1] / "outputs").rglob("*"):
        if path.is_file():
            path.unlink()
    for path in table.glob("*.md"):
        path.unlink()
    build(table, "from=results")
    assert written(table) == first


def test_verdicts(table: Path) -> None:
    build(table)
    mean = summary(table)["mean"]
    low = summary(table)["low"]
    close, inside = (
        mean["sh_cl", "single", "msrcc"] + 0.009,
        low["sh_cl", "single", "srcc/blur"] + 0.001,
    )
    assert mean["sh_cl", "single", "srcc/blur"] - inside > 0.01
    rows = [
        f"sh_cl,single,,mSRCC,{close:.6f},a paper,second-hand",
        f"sh_cl,single,blur,SRCC,{inside:.6f},a paper,second-hand",
        "tsn_iqa,gated,blur,SRCC,-0.9,a paper,second-hand",
        "tsn_iqa,gated,tone,SRCC,0.5,a paper,doubtful (unchecked)",
        "tsn_iqa,gated,,mPI,,,not certified: leave the published column empty",
        "lwf,gated,blur,SRCC,0.8,a paper,second-hand",
    ]
    (table / "published.csv").write_text("\n".join([HEADER, *rows, ""]))
    build(table, "from=results")
    said = summary(table)["verdict"]
    assert said["sh_cl", "single", "msrcc"] == "reproduced"
    assert said["sh_cl", "single", "srcc/blur"] == "within interval"
    assert said["tsn_iqa", "gated", "srcc/blur"] == "differs"
    assert (
        said["tsn_iqa", "gated", "srcc/tone"]
        == said["tsn_iqa", "gated", "mpi"]
        == "no certified number"
    )
    assert said["lwf", "gated", "srcc/blur"] == "not attempted"
    assert math.isnan(
        summary(table)["published"]["tsn_iqa", "gated", "srcc/tone"]
    )  # never a target
    text = (table / "table.md").read_text()
    assert re.search(r"\| lwf \| gated \| srcc/blur \| 0.800 \| - \| 0 \| not attempted \|", text)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("sh_cl,single,blur,SROC,0.8,x,y", "row 1: metric 'SROC'"),
        ("sh_cl,single,blur,SRCC,about 0.8,x,y", "row 1: value 'about 0.8'"),
        ("a,single,b,SRCC,1,x,y\na,single,b,srcc,1,x,y", "row 2: this number is there twice"),
    ],
)
def test_wrong_published_rows_are_named(table: Path, row: str, words: str) -> None:
    (table / "published.csv").write_text(f"{HEADER}\n{row}\n")
    with pytest.raises(ValueError, match=words):
        build(table)


def test_below_five_splits_there_is_no_test_and_only_image_sampling(table: Path) -> None:
    build(table)
    test = pd.read_csv(table / "results" / "tests.csv").set_index("measure").loc["msrcc"]
    means = summary(table)["mean"]
    assert (test["first"], test["second"], test["splits"]) == ("tsn_iqa", "sh_cl", 2)
    expected = means["tsn_iqa", "gated", "msrcc"] - means["sh_cl", "single", "msrcc"]
    assert test["difference"] == pytest.approx(expected, abs=2e-6)
    assert test["said"] == "no test below 5 splits"
    assert math.isnan(test["p"])
    line = summary(table).loc["sh_cl", "single", "msrcc"]
    assert (line["n"], line["splits"], line["interval"]) == (4, 2, "images")
    text = (table / "table.md").read_text()
    assert f"{line['mean']:.3f} [{line['low']:.3f}, {line['high']:.3f}]i" in text
    assert "±" not in text + (table / "table.tex").read_text()


def test_missing_runs_are_listed_and_one_run_has_the_interval_of_its_images(table: Path) -> None:
    for path in (table.parents[1] / "outputs/demo/sh_cl").rglob("summary.json"):
        if "compression-" not in str(path) or "split1" not in str(path):
            path.unlink()
    build(table, "from=records")
    line = summary(table).loc["sh_cl", "single", "msrcc"]
    assert (line["n"], line["splits"], line["interval"]) == (1, 1, "images")
    assert line["low"] < line["mean"] < line["high"]
    text = (table / "table.md").read_text()
    missing = text.split("## Runs without results")[1]
    assert "| sh_cl | compression>blur>noise>tone | 2 |" in missing
    assert "| sh_cl | tone>noise>blur>compression | 1, 2 |" in missing


def test_other_protocols_stand_apart_and_a_table_without_runs_has_its_published_numbers(
    table: Path,
) -> None:
    header = "method,readout,dataset,metric,value,protocol,source,certainty"
    rows = [
        "sh_cl,single,blur,SRCC,0.8,whole <b>photographs</b>,a|paper,second-hand",
        "lwf,gated,,mSRCC,,,,not certified: leave the published column empty",
    ]
    (table / "published.csv").write_text("\n".join([header, *rows, ""]))
    build(table)
    assert summary(table)["verdict"]["lwf", "gated", "msrcc"] == "no certified number"
    lines = pd.read_csv(table / "results" / "summary.csv")
    apart = lines[lines["protocol"].notna()].iloc[0]
    assert (apart["verdict"], apart["published"], apart["n"]) == ("other protocol", 0.8, 0)
    text = (table / "table.md").read_text()
    row = "| sh_cl | srcc/blur | 0.800 | whole &lt;b>photographs&lt;/b> | a\\|paper | second-hand |"
    assert row in text.split("**Other protocol**")[1]
    shutil.rmtree(table / "results")
    build(table, "from=results")
    text = (table / "table.md").read_text()
    assert "No run of this table is recorded." in text
    assert row in text
    assert "| sh_cl | compression>blur>noise>tone | 1, 2 |" in text


def test_other_images_under_the_same_split_are_refused(table: Path) -> None:
    write_run(table.parents[1] / "outputs", "sh_cl", ORDER[::-1], 2, split_hash="another")
    with pytest.raises(
        ValueError, match=r"split 2 of blur, .* holds other images .*hash2.*another"
    ):
        build(table)


def test_a_finished_run_of_another_config_is_refused(table: Path) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        run = planned_runs(read_grid(table / "runs.yaml"), [])[0]
    folder = next(table.parents[1].glob("outputs/demo/tsn_iqa/compression*/split1/seed0"))
    OmegaConf.save(OmegaConf.create(run.config | {"select_best": False}), folder / "config.yaml")
    with pytest.raises(ValueError, match="select_best: False there, True in the grid"):
        build(table)


def test_a_row_holds_one_config_and_names_it(table: Path) -> None:
    """Runs of two configs never share a row: the keys are named. Split, seed and order may differ."""
    runs = sorted(table.parents[1].glob("outputs/demo/tsn_iqa/*/*/*"))
    config = {"method": {"lr": 0.1}, "paths": {"output": "a"}}
    for i, run in enumerate(runs):
        order = {"order": RunFolder(run).read_summary()["order"]}
        own = {"split": i, "seed": i, "stream": order, "paths": {"output": str(i)}}
        OmegaConf.save(OmegaConf.create(config | own), run / "config.yaml")
    results = collect([RunFolder(run) for run in runs], 20)
    (found,) = set(results.runs["config_hash"])
    assert re.fullmatch("[0-9a-f]{16}", found)
    OmegaConf.save(OmegaConf.create(config | {"method": {"lr": 0.2}}), runs[-1] / "config.yaml")
    with pytest.raises(ValueError, match=r"(?s)share the row of tsn_iqa.*method.lr: 0.1 .* 0.2"):
        collect([RunFolder(run) for run in runs], 20)
    (runs[-1] / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"two configs \([0-9a-f]{16}, not recorded\)"):
        collect([RunFolder(run) for run in runs], 20)


@pytest.mark.parametrize(("set_by_hand", "threads"), [(None, "2"), ("1", "1")])
def test_runs_share_the_cores_or_take_the_threads_that_are_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, set_by_hand: str | None, threads: str
) -> None:
    seen = []
    monkeypatch.setattr(
        "iqa_lightning.runs.grid.run_subprocess",
        lambda *words: (seen.append(words[-1]), Outcome("", ""))[1],
    )
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_by_hand:
        monkeypatch.setenv("OMP_NUM_THREADS", set_by_hand)
    make([Run("sh_cl", ORDER, 1, 0, (), {"paths": {}})], 2, tmp_path, "demo")
    assert seen == [{"OMP_NUM_THREADS": threads}]


def test_human_ratings_are_not_called_synthetic(table: Path) -> None:
    for path in (table.parents[1] / "outputs").rglob("summary.json"):
        RunFolder(path.parent).write_summary({"synthetic": False})
    build(table)
    assert "ynthetic" not in (table / "table.md").read_text() + (table / "table.tex").read_text()


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ("methods: [sh_cl]", "experiment is None"),
        ("experiment: demo\nmethods: sh_cl", "methods is sh_cl; expected a list"),
        ("experiment: demo\nmethods: [sh_cl]\nsplit: [1]", "split"),
        ("- a", "not known"),
    ],
)
def test_a_wrong_grid_is_refused(table: Path, grid: str, words: str) -> None:
    (table / "runs.yaml").write_text(grid)
    with pytest.raises(ValueError, match=words):
        build(table)


def test_a_grid_expands_orders_once_each(table: Path) -> None:
    (table / "runs.yaml").write_text(
        'experiment: demo\nmethods: [sh_cl]\norders: [default, williams, reverse, "random:1", [blur, [noise, tone]]]\n'
    )
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        runs = planned_runs(read_grid(table / "runs.yaml"), ["schedule.finetune.epochs=1"])
    orders = [run.order for run in runs]
    assert orders[0] == ORDER
    assert (
        len(orders) == len({str(order) for order in orders}) == 6
    )  # default and reverse are two of the four of williams
    assert runs[-1].words[-3] == "stream.order=[blur,[noise,tone]]"
    assert runs[-1].config["schedule"]["finetune"]["epochs"] == 1
    assert runs[-1].config["stream"]["order"] == ["blur", ["noise", "tone"]]


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    one = write_run(tmp_path, "tsn_iqa", ORDER)
    other = write_run(tmp_path, "mh_cl", ORDER)
    last = other.predictions()["tone"]
    row = last.index[(last["dataset"] == "noise") & (last["split"] == "test")][7]
    lowest = RunFolder(one.path).predictions()["tone"]
    lowest.loc[row, "gated"] = -1e6
    one.write_predictions(4, "tone", lowest)
    last.loc[row, "gated"] = 1e6
    other.write_predictions(4, "tone", last)
    for folder, rate in ((one, 0.1), (other, 0.2)):
        (folder.path / "config.yaml").write_text(
            f"method: {{lr: {rate}}}\npaths: {{output: {rate}}}\n"
        )
    said = compare("diff", [str(one.path), str(other.path)], 100)
    assert "method.lr: 0.1 -> 0.2" in said
    assert "paths" not in said
    assert "synthetic target" in said
    moved = said.split("images whose rank moved most")[1].splitlines()[2].split()
    assert moved[2] == last.loc[row, "image"]
    assert float(moved[-1]) == pytest.approx(35 / 36, abs=1e-3)  # from the first to the last of 36
    cells = [line.split() for line in said.splitlines() if line.strip().startswith("gated")]
    found = next(line for line in cells if line[1:3] == ["tone", "noise"])
    expected = [
        derive(folder.predictions())["srcc"]["gated"].loc["tone", "noise"]
        for folder in (one, other)
    ]
    assert [float(value) for value in found[3:6]] == pytest.approx(
        [*expected, expected[1] - expected[0]], abs=6e-4
    )


def test_runs_of_other_images_have_no_difference(tmp_path: Path) -> None:
    one, other = (
        write_run(tmp_path, "tsn_iqa", ORDER, 1),
        write_run(tmp_path, "tsn_iqa", ORDER[::-1], 2),
    )
    with pytest.raises(ValueError, match="do not hold the same test images"):
        compare("diff", [str(one.path), str(other.path)], 20)
    for kind in ("diff", "gmad"):
        with pytest.raises(ValueError, match=f"give two run folders, as in `{kind} <run> <run>`"):
            compare(kind, [str(one.path)], 20)


def test_words_of_the_command_line_become_overrides(tmp_path: Path) -> None:
    assert overrides(["table=demo", "jobs=2"]) == ["table=demo", "jobs=2"]
    assert overrides([]) == []
    words = overrides(["gmad", "out/it's/a=b,c", "out/two@blur", "levels=5"])
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("reproduce", words)
    assert (list(cfg.gmad), cfg.levels, cfg.diff) == (["out/it's/a=b,c", "out/two@blur"], 5, None)


def test_details_come_from_the_records(table: Path) -> None:
    for path in (table.parents[1] / "outputs/demo/tsn_iqa").rglob("summary.json"):
        RunFolder(path.parent).write_summary({"independent_tasks": False})
    build(table)
    results = {file.stem: pd.read_csv(file) for file in (table / "results").glob("*.csv")}
    flips = results["pair_flips"]
    run = RunFolder(next(table.parents[1].glob("outputs/demo/sh_cl/compression*/split2/seed0")))
    expected = pair_flips(run.predictions(), "single")
    there = flips[
        (flips["method"] == "sh_cl") & (flips["order"] == ">".join(ORDER)) & (flips["split"] == 2)
    ]
    assert there["rate"].tolist() == pytest.approx(expected["rate"].tolist(), abs=1e-6)
    assert flips.groupby(["method", "readout"]).size().to_dict() == {
        ("sh_cl", "single"): 24, ("tsn_iqa", "gated"): 24, ("tsn_iqa", "latest"): 24
    }  # fmt: skip
    worst = results["worst_images"]
    assert worst.groupby(["method", "order", "split"]).size().max() <= 50
    assert set(results["forgetting"]["by"]) == {"band"}
    assert results["orders"].empty
    spread = results["order_spread"].set_index(["orders_from", "method", "readout", "measure"])
    means = results["measures"].groupby(["method", "readout", "measure", "order"])["value"].mean()
    found = spread.loc[("runs", "sh_cl", "single", "msrcc")]
    both = means["sh_cl", "single", "msrcc"]
    assert (found["orders"], found["spread"]) == (
        2,
        pytest.approx(both.max() - both.min(), abs=2e-6),
    )
    assert results["gate"].empty  # neither run has an oracle to be compared with
    ranks = results["ranks"].set_index(["measure", "method"])
    assert ranks.loc[("msrcc", "tsn_iqa"), "rank"] == 1
    assert ranks.loc[("msrcc", "sh_cl"), "splits"] == 2
    text = (table / "details.md").read_text()
    assert "**Synthetic targets" in text
    assert "| runs | sh_cl | single | mSRCC | 2 |" in text
    assert (
        "data sets without recorded deviations, where all pairs count: compression, blur, noise, "
        "tone" in text
    )


def test_a_run_tells_whether_its_tasks_are_independent(tmp_path: Path) -> None:
    """By its summary; one made before that was recorded by its config: only TSN-IQA has `init`."""
    run = write_run(tmp_path, "tsn_iqa", ORDER)
    assert not independent(run)
    for init, expected in (("nearest", False), ("pretrained", True)):
        (run.path / "config.yaml").write_text(f"method: {{init: {init}}}\n")
        assert independent(run) is expected
    run.write_summary({"independent_tasks": False})
    assert not independent(run)


def test_results_of_an_older_version_have_a_table_without_details(table: Path) -> None:
    build(table)
    for name in ("details.md", "results/orders.csv", "results/worst_images.csv"):
        (table / name).unlink()
    first = (table / "table.md").read_bytes()
    build(table, "from=results")
    assert (table / "table.md").read_bytes() == first
    assert not (table / "details.md").exists()


def test_help_answers_without_torch() -> None:
    block = (
        "import sys; sys.modules['torch'] = None; sys.modules['pandas'] = None; sys.argv[0] = 'x'; "
    )
    code = f"{block}import runpy; runpy.run_module('iqa_lightning.reproduce', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "table: demo" in done.stdout


@pytest.mark.slow
def test_a_table_from_nothing_through_the_command_line(tmp_path: Path) -> None:
    """Two tiny runs, and one that cannot work: it ends in the report and does not stop the others."""
    folder = tmp_path / "experiments" / "tiny"
    folder.mkdir(parents=True)
    words = [
        *TINY,
        "pairs.min_images=0",
        "schedule.warmup.epochs=0",
        "schedule.finetune.epochs=1",
        "view.crop=16",
    ]
    words = [word for word in words if word != "view.crop=32"]
    lines = [
        "experiment: demo",
        "methods: [sh_cl]",
        "orders: [[blur, noise], [noise, blur], [tone, zebra]]",
        "overrides:",
    ]
    (folder / "runs.yaml").write_text("\n".join([*lines, *(f"- {word}" for word in words)]))
    (folder / "published.csv").write_text(f"{HEADER}\n")
    output = str(tmp_path / "out (it's new)").replace("'", r"\'")
    command = [
        f"experiments={tmp_path / 'experiments'}",
        f"output='{output}'",
        "table=tiny",
        "resamples=50",
    ]
    done = call(*command, "jobs=2", module="reproduce", check=False)
    assert done.returncode == 1
    assert "failed: sh_cl tone-zebra" in done.stdout
    assert "'zebra'" in done.stderr
    assert done.stdout.count("finished: ") == 2
    first = written(folder)
    assert "| sh_cl | single |" in first["table.md"].decode()
    assert "| sh_cl | tone>zebra | 1 |" in first["table.md"].decode()
    for checkpoint in tmp_path.rglob("*.ckpt"):
        checkpoint.unlink()
    again = call(*command, "from=records", module="reproduce")
    assert "finished: " not in again.stdout
    assert written(folder) == first
