"""What scoring promises, measured on finished runs of open4 and real pictures.

    python experiments/scoring/measure.py runs=outputs/open4 method=ridge [only=coverage,watch] [splits=1,2]

writes `results/<measure>.csv`; rows of other methods stay. `runs` is the folder of an experiment,
which holds `<method>/<order>/split<k>/seed<s>`. The data sets lie where the runs' configurations say.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import permutations
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from iqa_lightning import export
from iqa_lightning.metrics.scale import Scale, learnt_sets, scale_audit
from iqa_lightning.models.feature_cache import FeatureCache
from iqa_lightning.models.outside import Outside
from iqa_lightning.records import RunFolder
from iqa_lightning.runs.folder import read_config
from iqa_lightning.scoring.deployed import OUTPUTS
from iqa_lightning.scoring.feature_readers import AffineReader
from iqa_lightning.scoring.images import batched, shown, shown_size
from iqa_lightning.scoring.scorer import Scorer
from iqa_lightning.scoring.watching import drift_of

RESULTS = Path(__file__).resolve().parent / "results"
PHOTOGRAPHS, CHUNK = 1000, 100
MEGAPIXELS = (6000, 4000)
STARTS = 5

Row = dict[str, Any]


def runs_of(folder: Path, method: str) -> dict[int, Path]:
    """Finished runs of a method by split."""
    found = {
        int(path.parent.name.removeprefix("split")): path
        for path in folder.glob(f"{method}/*/split*/seed0")
        if RunFolder(path).finished
    }
    if not found:
        raise SystemExit(f"error: {folder}/{method} holds no finished run: train it first")
    return dict(sorted(found.items()))


def test_parts(run: Path) -> dict[str, pd.DataFrame]:
    """Rows of the last predictions for the test part of each data set, with the column `file`."""
    tasks = read_config(run)["stream"]["tasks"]
    last = list(RunFolder(run).predictions().values())[-1]
    rows = last[last["split"] == "test"].reset_index(drop=True)
    roots = {name: Path(tasks[name]["root"]) for name in rows["dataset"].unique()}
    files = [str(roots[d] / i) for d, i in zip(rows["dataset"], rows["image"], strict=True)]
    return {str(name): part for name, part in rows.assign(file=files).groupby("dataset")}


def exported(run: Path, suffix: str, size: tuple[int, int] | None = None) -> Path:
    """A run as one file, in a folder that goes with the process."""
    sides = "" if size is None else "-{}x{}".format(*size)
    path = Path(SCRATCH.name) / f"{'-'.join(run.parts[-4:])}{sides}{suffix}"
    if not path.is_file():
        given = None if size is None else list(size)
        export.main({"run": run, "output": path, "size": given})
    return path


SCRATCH = tempfile.TemporaryDirectory()


Say = Callable[[torch.Tensor], NDArray[np.float64]]


@cache
def forms(run: Path, size: tuple[int, int]) -> dict[str, Say]:
    """`score`, `low`, `high` of a picture as ONNX and as a program of torch.export say them, each
    exported for this size, since a graph for any size takes minutes to make.
    """
    import onnxruntime  # noqa: PLC0415  # an extra

    session = onnxruntime.InferenceSession(exported(run, ".onnx", size))
    program = torch.export.load(exported(run, ".pt2", size)).module()
    assert OUTPUTS[:3] == ("score", "low", "high")
    return {
        "onnx": lambda image: np.array(session.run(None, {"image": image.numpy()})[:3])[:, 0],
        "pt2": lambda image: torch.stack(program(image)[:3])[:, 0].numpy(),
    }


def agreement(method: str, runs: Mapping[int, Path]) -> Iterator[Row]:
    """Differences of scores, from 0 to 100, of the first run: of the bundle to the records, of the
    other forms to the bundle.
    """
    split, run = next(iter(runs.items()))
    scale = Scale.from_tensors(*RunFolder(run).read_scale())
    scorer = Scorer.load(exported(run, ".iqa"), "cpu")
    for dataset, rows in test_parts(run).items():
        table = scorer(rows["file"].tolist())
        found = {"bundle": np.abs(table["score"].to_numpy() - scale.score(rows))[:, None]}
        others: dict[str, list[NDArray[np.float64]]] = {"onnx": [], "pt2": []}
        for row in table.to_dict("records"):
            image = shown(row["image"], scorer.model.view)[None]
            for form, say in forms(run, tuple(image.shape[-2:])).items():
                others[form].append(say(image) - [row["score"], row["low"], row["high"]])
        found |= {form: np.abs(np.array(rest)) for form, rest in others.items()}
        for form, differences in found.items():
            yield {
                "method": method,
                "split": split,
                "dataset": dataset,
                "form": form,
                "images": len(rows),
                "largest": differences.max(),
                "mean": differences.mean(),
            }


def coverage(method: str, runs: Mapping[int, Path]) -> Iterator[Row]:
    """Share of test pictures whose 90 % interval holds their rating."""
    for split, run in runs.items():
        records = RunFolder(run)
        predictions = records.predictions()
        last = list(predictions.values())[-1]
        scale = Scale.from_tensors(*records.read_scale())
        found = scale_audit(last, scale, learnt_sets(predictions))
        counts = last[last["split"] == "test"].groupby("dataset").size()
        for dataset, images in counts.items():
            share = found[f"coverage/{dataset}"]
            covered = round(share * images)
            yield {"method": method, "split": split, "dataset": dataset, "images": images,
                   "covered": covered, "share": share}  # fmt: skip


def pooled_coverage(table: pd.DataFrame) -> Iterator[Row]:
    """The same over all splits, by data set and of all together."""
    for dataset in [*sorted(table["dataset"].unique()), "all"]:
        own = table if dataset == "all" else table[table["dataset"] == dataset]
        images, covered = int(own["images"].sum()), int(own["covered"].sum())
        yield {"method": own["method"].iloc[0], "splits": own["split"].nunique(),
               "dataset": dataset, "images": images, "covered": covered,
               "percent": 100 * covered / images}  # fmt: skip


def watch(method: str, runs: Mapping[int, Path]) -> Iterator[Row]:
    """Verdicts about test parts, whose right answer is known.

    `in range`: the test part of a learnt set. `drifting`: that of another learnt set, where the
    usual pictures are the test part of the first. `new`: the test part of a set that is left out of
    what was learnt. The features that `watch` reads are those of a network that no training
    changes, so that what is kept of the other sets is what a run without that set would have kept.
    """
    for split, run in runs.items():
        scorer = with_kept_features(Scorer.load(exported(run, ".iqa"), "cpu"))
        near, kept = scorer.model.outside, scorer.model.features
        assert near is not None
        learnt = {name: part.double().numpy() for name, part in kept.items()}
        parts = {
            name: scorer.table(rows["file"].tolist())[1] for name, rows in test_parts(run).items()
        }

        def row(known: str, batch: str, usual: str, verdict: str, split: int = split) -> Row:
            return {"method": method, "split": split, "known": known, "batch": batch,
                    "usual": usual, "verdict": verdict,
                    "right": int(verdict == known)}  # fmt: skip

        for name, part in parts.items():
            yield row("in range", name, "", drift_of(near, learnt, part).verdict)
            rest = {key: value for key, value in kept.items() if key != name}
            without = Outside.fit(rest)
            others = {key: learnt[key] for key in rest}
            yield row("new", name, "", drift_of(without, others, part).verdict)
        for usual, name in permutations(parts, 2):
            reference = parts[usual].astype(np.float64)
            verdict = drift_of(near, learnt, parts[name], reference).verdict
            yield row(f"drifting to {name}", name, usual, verdict)


def with_kept_features(scorer: Scorer) -> Scorer:
    """A scorer that takes the statistics of a network that is never trained from the cache on the
    disk, where the runs left them.
    """
    reader = scorer.model.network
    if isinstance(reader, AffineReader):
        read, cache = reader.backbone.statistics, FeatureCache(reader.backbone, "stages", "disk")
        reader.backbone.statistics = lambda image: cache(image, read)
    return scorer


def decisions(table: pd.DataFrame) -> Iterator[Row]:
    """How often each known answer is given."""
    for known, own in table.groupby(table["known"].str.split(" to ").str[0]):
        yield {"method": own["method"].iloc[0], "splits": own["split"].nunique(), "known": known,
               "decisions": len(own), "right": int(own["right"].sum()),
               "percent": 100 * own["right"].mean()}  # fmt: skip


def rate(method: str, runs: Mapping[int, Path]) -> Iterator[Row]:
    """Scoring 1,000 photographs against decoding them and the bare network, in turns."""
    run = next(iter(runs.values()))
    root = Path(read_config(run)["stream"]["tasks"]["clive"]["root"])
    files = [str(path) for path in sorted((root / "Images").iterdir()) if path.is_file()]
    files = files[:PHOTOGRAPHS]
    scorer = Scorer.load(exported(run, ".iqa"), "cpu")
    model = scorer.model

    def bare(some: list[str]) -> None:
        sizes = [shown_size(file, model.view) for file in some]
        for batch in batched(sizes, model.max_pixels):
            model.read(torch.stack([shown(some[i], model.view) for i in batch]))

    sides: dict[str, Callable[[list[str]], Any]] = {"scorer": scorer, "bare": bare}
    for side in sides.values():
        side(files[:8])
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn, start in enumerate(range(0, len(files), CHUNK)):
        for name in list(sides) if turn % 2 else list(sides)[::-1]:
            begun = process_time(), perf_counter()
            sides[name](files[start : start + CHUNK])
            seconds[name].append((process_time() - begun[0], perf_counter() - begun[1]))
    for clock, place in (("processor", 0), ("wall", 1)):
        own, other = (np.array([pair[place] for pair in seconds[side]]) for side in sides)
        yield {"method": method, "clock": clock, "images": len(files),
               "scorer ms": 1000 * own.sum() / len(files),
               "bare ms": 1000 * other.sum() / len(files),
               "share": other.sum() / own.sum(), "least": (other / own).min(),
               "most": (other / own).max()}  # fmt: skip


def memory(method: str, runs: Mapping[int, Path]) -> Iterator[Row]:
    """Peak memory of a process that scores one picture of 24 megapixels."""
    run = next(iter(runs.values()))
    source = next(iter(test_parts(run).values()))["file"].iloc[0]
    large = Path(SCRATCH.name) / "large.jpg"
    Image.open(source).convert("RGB").resize(MEGAPIXELS).save(large, quality=95)
    for what, file in (("24 megapixels", large), ("as it is", source)):
        _, _, peak = scored(exported(run, ".iqa"), str(file))
        yield {"method": method, "picture": what, "peak GB": peak}


def start(method: str, runs: Mapping[int, Path]) -> Iterator[Row]:
    """From the start of `score` to the first score, from a bundle, in processes of their own."""
    run = next(iter(runs.values()))
    bundle, file = exported(run, ".iqa"), next(iter(test_parts(run).values()))["file"].iloc[0]
    scored(bundle, file)
    found = [scored(bundle, file)[:2] for _ in range(STARTS)]
    for clock, seconds in zip(("wall", "processor"), zip(*found, strict=True), strict=True):
        yield {"method": method, "clock": clock, "starts": STARTS, "median s": median(seconds),
               "least s": min(seconds), "most s": max(seconds)}  # fmt: skip


LAUNCH = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(status, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
"""A small process between: the peak of a child begins with that of the process that starts it."""


def scored(bundle: Path, file: str) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and peak memory (GB), of one `score`."""
    command = [sys.executable, "-m", "iqa_lightning.score", f"run={bundle}", f"images=[{file}]"]
    command += [f"output={SCRATCH.name}/scores.csv", "device=cpu"]
    begun = perf_counter()
    launched = [sys.executable, "-c", LAUNCH, *command]
    said = subprocess.run(launched, check=True, capture_output=True, text=True).stdout  # noqa: S603  # ours
    seconds = perf_counter() - begun
    status, processor, peak = map(float, said.split())
    assert status == 0
    return seconds, processor, peak * 1024 / 1e9


MEASURES: dict[str, Callable[[str, Mapping[int, Path]], Iterator[Row]]] = {
    "coverage": coverage,
    "watch": watch,
    "start": start,
    "memory": memory,
    "agreement": agreement,
    "rate": rate,
}
POOLED = {"coverage": pooled_coverage, "watch": decisions}
"""What follows from the rows of a measure, written as `<measure>_pooled`."""


def write(name: str, rows: pd.DataFrame) -> None:
    """Put the rows of a method of an experiment in the place of its old ones."""
    file, own = RESULTS / f"{name}.csv", ["experiment", "method"]
    if file.is_file():
        old = pd.read_csv(file, keep_default_na=False)
        rest = ~pd.MultiIndex.from_frame(old[own]).isin(pd.MultiIndex.from_frame(rows[own]))
        rows = pd.concat([old[rest], rows])
    RESULTS.mkdir(exist_ok=True)
    rows.to_csv(file, index=False, float_format="%.6g")


def main(words: Sequence[str]) -> None:
    """Measure, print, write."""
    given = dict(word.split("=", 1) for word in words)
    folder, method = Path(given["runs"]), given["method"]
    runs = runs_of(folder, method)
    if "splits" in given:
        runs = {split: runs[split] for split in map(int, given["splits"].split(","))}
    torch.set_num_threads(1)
    for name in given.get("only", ",".join(MEASURES)).split(","):
        rows = pd.DataFrame(MEASURES[name](method, runs))
        tables = {name: rows}
        if name in POOLED:
            tables[f"{name}_pooled"] = pd.DataFrame(POOLED[name](rows))
        for title, table in tables.items():
            table.insert(0, "experiment", folder.name)
            write(title, table)
        print(f"{name}\n{table.to_string(index=False)}\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
