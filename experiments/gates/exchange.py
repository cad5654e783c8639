"""The same trained runs under every gate, and TSN-Ridge by each of its parts: nothing is trained.

`python experiments/gates/exchange.py --table open4_short --output outputs [--override paths.data=data]`

Heads and their scores are those of finished runs of the table; only what weighs them is exchanged.
Gates are fitted on the training images of each task, as in a run, and read features of the network
as it starts. Of `tsn_ridge` each part of a score is taken alone, and in sums, all with deviation 1
over the task's training images. What is reported is of the state after the last task.

results/splits.csv: one row a run, parts, gate and part of the data, with the mean
SRCC over the sets; results/summary.csv: mean and 95 % interval over splits, and the difference to
the same heads under `lda` by the corrected resampled t-test.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import OmegaConf

from iqa_lightning.datasets.base import unlocked_test_set
from iqa_lightning.datasets.samplers import SizeSampler
from iqa_lightning.methods.tsn_ridge import PARTS, TSNRidge
from iqa_lightning.metrics.correlation import srcc
from iqa_lightning.metrics.splits import RHO, split_interval
from iqa_lightning.models.backbones import Encoder
from iqa_lightning.models.feature_cache import FeatureCache
from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.statistics import compare
from iqa_lightning.runs.building import build_method, build_stream
from iqa_lightning.runs.compose import CONF, instantiate
from iqa_lightning.runs.grid import Run, finished_runs, planned_runs, read_grid
from iqa_lightning.stream.stream import TaskStream

HERE = Path(__file__).parent
MAX_PIXELS = 16 * 224 * 224
GATES = {
    "kmeans": ["method/gate=kmeans"],  # of the papers' codes
    "kmeans_capped": ["method/gate=kmeans_capped"],
    "kmeans_cpu": ["method/gate=kmeans_cpu"],
    "mean_feature": ["method/gate=mean_feature"],
    "expert": ["method/gate=expert"],
    "uniform": ["method/gate=uniform"],
    "lda_last": ["method/gate=lda", "method.gate.features=last"],
    "lda": ["method/gate=lda"],
}
SUMS = {
    "trained": (1.0, 0.0, 0.0),
    "own": (0.0, 1.0, 0.0),
    "frozen": (0.0, 0.0, 1.0),
    "trained + own": (1.0, 1.0, 0.0),
    "trained + frozen": (1.0, 0.0, 1.0),
    "trained + frozen / 2": (1.0, 0.0, 0.5),
    "own + frozen": (0.0, 1.0, 1.0),
    "trained + own + frozen": (1.0, 1.0, 1.0),
}
"""Weights of the parts `trained`, `own`, `frozen`."""

REPORTED = ("test",)
"""Parts of the data; `--part val` instead, to choose by."""

Values = NDArray[np.float64]
Place = tuple[str, str]  # a data set and one of its parts


def batches(stream: TaskStream, place: Place) -> Iterator[tuple[torch.Tensor, Values]]:
    """Whole images of a part and their MOS, in batches of one size, in the order of `SizeSampler`."""
    part = stream.data[place[0]].part(place[1])
    for batch in SizeSampler(part.sizes, MAX_PIXELS):
        items = [part[i] for i in batch]
        mos = np.array([float(item["mos"]) for item in items])
        yield torch.stack([item["image"] for item in items]), mos


class GateFeatures:
    """What gates read of a part, from the cache that method `ridge` fills."""

    def __init__(self, network: Encoder, stream: TaskStream) -> None:
        self.network, self.stream = network, stream
        self.caches = {kind: FeatureCache(network, kind) for kind in ("stages", "gate_last")}
        self.found: dict[tuple[Place, str], torch.Tensor] = {}

    def read(self, place: Place, kind: str) -> list[torch.Tensor]:
        """The stages of a kind of features, rows in the order of `batches`."""
        if (place, kind) not in self.found:
            ways = {
                "stages": self.network.statistics,
                "gate_last": lambda one: torch.cat(self.network.stages(one), dim=1),
            }
            rows = [
                self.caches[kind](image, ways[kind]) for image, _ in batches(self.stream, place)
            ]
            self.found[place, kind] = torch.cat(rows)
        whole = self.found[place, kind]
        return [whole] if kind == "stages" else list(whole.split(self.network.stage_widths, dim=1))


def gate_weights(
    run: Run, features: GateFeatures, parts: Sequence[str]
) -> dict[str, dict[Place, Values]]:
    """Weights of the heads by gate and part, rows in the order of `batches`."""
    tasks, found = list(map(str, run.order)), {}
    for name, words in GATES.items():
        cfg = compose("train", [*words_with_gate(run), *words])
        gate = instantiate(cfg.method.gate)(features.network, len(tasks))
        kind = "stages" if gate.features == "stages" else "gate_last"
        for t, task in enumerate(tasks, start=1):
            gate.fit(t, features.read((task, "train"), kind))
        found[name] = {
            place: gate(features.read(place, kind), len(tasks)).double().numpy()
            for place in product(tasks, parts)
        }
    return found


def words_with_gate(run: Run) -> list[str]:
    """A method that takes any gate, in the setting of the run."""
    return ["method=tsn_iqa", *(word for word in run.words if word.startswith("seed="))]


def recorded_scores(
    run: Run, folder: RunFolder, stream: TaskStream, parts: Sequence[str]
) -> dict[Place, Values]:
    """Scores of all heads after the last task, from the records, rows in the order of `batches`."""
    frame = list(folder.predictions().values())[-1].set_index(["dataset", "split"])
    columns = [f"score/{task}" for task in run.order]
    found = {}
    for place in product(map(str, run.order), parts):
        part, rows = stream.data[place[0]].part(place[1]), frame.loc[place]
        order = [i for batch in SizeSampler(part.sizes, MAX_PIXELS) for i in batch]
        mos = np.concatenate([mos for _, mos in batches(stream, place)])
        np.testing.assert_allclose(rows["mos"].to_numpy()[order], mos, rtol=1e-5)
        found[place] = rows[columns].to_numpy(np.float64)[order]
    return found


def scores_of_parts(
    run: Run, folder: RunFolder, stream: TaskStream, parts: Sequence[str]
) -> dict[str, dict[Place, Values]]:
    """Scores of all heads of a TSN-Ridge by each of `SUMS`."""
    method = build_method(OmegaConf.create(run.config), stream)
    assert isinstance(method, TSNRidge)
    file = sorted(folder.path.glob("tasks/*.ckpt"), key=lambda path: int(path.name.split("_")[0]))[
        -1
    ]
    method.load_state_dict(torch.load(file, weights_only=True))
    method.eval()
    tasks = range(1, len(run.order) + 1)
    found: dict[str, dict[Place, Values]] = {name: {} for name in SUMS}
    for place in product(map(str, run.order), parts):
        rows = []
        for image, _ in batches(stream, place):
            with torch.no_grad():
                frozen = method.frozen_statistics(image)
                pairs = method.statistics_of(image, list(tasks), None)
                pieces = [
                    torch.stack(method.parts_of(k, *pair, frozen)) for k, pair in enumerate(pairs)
                ]
            scores = torch.stack(pieces, dim=2)  # part, image, head
            rows.append((scores - method.centre[:, None]) / method.spread[:, None])
        whole = torch.cat(rows, dim=1).numpy()
        for name, weights in SUMS.items():
            found[name][place] = np.tensordot(np.array(weights), whole, axes=1)
    assert len(PARTS) == len(next(iter(SUMS.values())))
    return found


def mean_srcc(
    scores: Mapping[Place, Values],
    weights: Mapping[Place, Values] | None,
    mos: Mapping[Place, Values],
    part: str,
) -> float:
    """Mean over the sets, by the gate's weights or, without any, by the set's own head."""
    tasks = list(dict.fromkeys(task for task, _ in scores))
    values = []
    for k, task in enumerate(tasks):
        place = (task, part)
        one = scores[place]
        chosen = one[:, k] if weights is None else (one * weights[place]).sum(axis=1)
        values.append(srcc(chosen, mos[place]))
    return float(np.mean(values))


def exchanged(run: Run, folder: RunFolder, parts: Sequence[str]) -> list[dict[str, object]]:
    """All rows of a run."""
    cfg = OmegaConf.create(run.config)
    stream = build_stream(cfg)
    stream.setup()
    network = instantiate(cfg.backbone).eval()
    with unlocked_test_set(), torch.no_grad():
        weights = gate_weights(run, GateFeatures(network, stream), parts)
        heads = {"as run": recorded_scores(run, folder, stream, parts)}
        if run.method.startswith("tsn_ridge"):
            heads |= scores_of_parts(run, folder, stream, parts)
        mos = {
            place: np.concatenate([one for _, one in batches(stream, place)])
            for place in product(map(str, run.order), parts)
        }
    return [
        {
            "method": run.method,
            "split": run.split,
            "heads": name,
            "gate": gate,
            "part": part,
            "msrcc": mean_srcc(scores, weights.get(gate), mos, part),
        }
        for name, scores in heads.items()
        for gate in (*GATES, "oracle")
        for part in parts
    ]


def summarised(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over splits, and each gate beside `lda` of the same heads."""
    lines = []
    for (method, heads, part), group in rows.groupby(["method", "heads", "part"], sort=False):
        by_gate = group.pivot(index="split", columns="gate", values="msrcc")
        for gate in (*GATES, "oracle"):
            values = by_gate[gate].to_numpy()
            low, high = split_interval(values, RHO)
            test = compare(by_gate["lda"].to_numpy() - values, RHO)
            lines.append(
                {
                    **{"method": method, "heads": heads, "part": part, "gate": gate},
                    **{"splits": len(values), "mean": values.mean(), "low": low, "high": high},
                    **{"lda_minus": test.difference, "p": test.p, "lda_better": test.above},
                }
            )
    return pd.DataFrame(lines)


def main(words: list[str] | None = None) -> None:
    """Every finished run of the table that has heads to weigh.

    Args:
        words: of the command line, by default those that were typed.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--experiments", default=HERE.parent, type=Path)
    parser.add_argument("--table", default="open4_short")
    parser.add_argument("--output", default="outputs", type=Path)
    parser.add_argument("--override", action="append", default=[])
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--part", nargs="*", default=REPORTED)
    parser.add_argument("--results", default=HERE / "results", type=Path)
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        grid = read_grid(given.experiments / given.table / "runs.yaml")
        runs = planned_runs(grid, given.override)
        folders = finished_runs(runs, given.output, grid["experiment"])
        found: list[dict[str, object]] = []
        for run in runs:
            folder = folders.get(str(run))
            if folder is None or (given.methods and run.method not in given.methods):
                continue
            if not any(
                name.startswith("score/") for name in list(folder.predictions().values())[-1]
            ):
                continue
            found += exchanged(run, folder, given.part)
            print(f"{run}: done", flush=True)
    rows = pd.DataFrame(found)
    given.results.mkdir(exist_ok=True)
    rows.to_csv(given.results / "splits.csv", index=False, float_format="%.6f")
    summarised(rows).to_csv(given.results / "summary.csv", index=False, float_format="%.6f")


if __name__ == "__main__":
    main()
