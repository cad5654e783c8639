"""A batch of pictures under the eyes of a model: features, scores, verdict, and what to rate."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from iqa_lightning.datasets.ratings import cell
from iqa_lightning.files import write_bytes
from iqa_lightning.models.outside import OUTSIDE, Outside
from iqa_lightning.scoring.drift import NEW, Array, Drift, find_drift, most_telling
from iqa_lightning.scoring.scorer import Scorer


@dataclass(frozen=True)
class Seen:
    """What was seen of a batch.

    Args:
        table: its scores.
        usual: those of the reference, if there is one.
        drift: the verdict.
        features: (pictures, width) of the readable ones, under which learnt sets have unit
            covariance.
        learnt: the same of the learnt sets.
        files: the readable ones.
    """

    table: pd.DataFrame
    usual: pd.DataFrame | None
    drift: Drift
    features: Array
    learnt: Array
    files: list[str]


def look(scorer: Scorer, images: Sequence[str], usual: Sequence[str] | None = None) -> Seen:
    """Score a batch, and compare it with what was learnt or with usual pictures.

    Raises:
        ValueError: the run keeps nothing to compare with, or there are too few pictures.
    """
    near = scorer.model.outside
    if near is None or not scorer.model.features:
        raise ValueError(
            "this run has no reference.safetensors, since an earlier version made it: it can score, "
            "but not watch"
        )
    learnt = {name: part.double().numpy() for name, part in scorer.model.features.items()}
    table, features = scorer.table(images)
    there = readable(table, "images")
    kept = features[there]
    reference = usual_table = None
    if usual is not None:
        usual_table, own = scorer.table(usual)
        reference = own[readable(usual_table, "reference")].astype(np.float64)
    drift = drift_of(near, learnt, kept, reference)
    files = [str(name) for name in table["image"][there]]
    everything = whitened(scorer, np.concatenate(list(learnt.values())))
    return Seen(table, usual_table, drift, whitened(scorer, kept), everything, files)


def readable(table: pd.DataFrame, key: str) -> NDArray[np.bool_]:
    """Which pictures of a table could be read.

    Raises:
        ValueError: not one could.
    """
    found: NDArray[np.bool_] = (table["error"] == "").to_numpy()
    if not found.any():
        raise ValueError(
            f"{key}: not one of {len(table)} could be read, the first: {table['error'].iloc[0]}"
        )
    return found


def drift_of(
    near: Outside,
    learnt: Mapping[str, Array],
    features: NDArray[np.float32],
    reference: Array | None = None,
) -> Drift:
    """What is found of a batch by its features.

    Args:
        near: distances to what was learnt.
        learnt: features of each learnt set.
        features: the same of the batch.
        reference: the same of usual pictures.
    """
    given = torch.from_numpy(features).to(near.mean.device)
    # files keep sets by name, `near` in the order in which they were learnt
    means = torch.from_numpy(np.stack([part.mean(axis=0) for part in learnt.values()]))
    with torch.no_grad():
        percentiles, nearest = near(given), near.distance(given).argmin(dim=1)
        places = near.distance(means.to(given)).argmin(dim=1).tolist()
    learnt = {name: learnt[name] for _, name in sorted(zip(places, learnt, strict=True))}
    # no picture is above the limit by chance less often than above all validation pictures
    expected = max((100 - OUTSIDE) / 100, 1 / (1 + len(near.distances)))
    batch = features.astype(np.float64)
    own = percentiles.cpu().numpy()
    return find_drift(batch, own, learnt, nearest.cpu().numpy(), reference, expected)


def whitened(scorer: Scorer, features: NDArray[Any]) -> Array:
    """Features under which the learnt sets have unit covariance."""
    near = scorer.model.outside
    assert near is not None
    mean, whitening = (part.double().cpu().numpy() for part in (near.mean, near.whitening))
    found: Array = (features.astype(np.float64) - mean) @ whitening
    return found


def drift_text(seen: Seen) -> str:
    """What was found, in words."""
    drift, table = seen.drift, seen.table
    gates = [name for name in table if str(name).startswith("gate/")]
    lines = [f"verdict: {drift.verdict} ({drift.images} pictures)"]
    failed = int((table["error"] != "").sum())
    if failed:
        lines.append(f"not readable: {failed}")
    lines.append(
        f"outside of all that was learnt: {100 * drift.outside:.1f} % "
        f"({100 * drift.expected:.1f} % by chance)"
    )
    tests = ", ".join(f"{name} p={p:.3f}" for name, p in drift.mmd.items())
    lines.append(f"two-sample test (MMD) against {tests}")
    lines.append(
        f"a classifier tells them from the likest sample by {100 * drift.accuracy:.0f} % "
        f"(50 % is chance; p={drift.accuracy_p:.3f})"
    )
    nearest = ", ".join(f"{name} {100 * share:.0f} %" for name, share in drift.nearest.items())
    lines.append(f"nearest to: {nearest}")
    lines.append(f"mean score {table['score'].mean():.1f}{change(seen, 'score')}")
    if gates:
        means = (f"{n[5:]} {table[n].mean():.2f}{change(seen, n, 2)}" for n in map(str, gates))
        lines.append(f"mean weight of heads: {', '.join(means)}")
    return "\n".join(lines)


def change(seen: Seen, column: str, digits: int = 1) -> str:
    """How a mean differs from that of the reference."""
    if seen.usual is None:
        return ""
    difference = seen.table[column].mean() - seen.usual[column].mean()
    return f" ({difference:+.{digits}f} to the reference)"


def write_todo(path: Path, seen: Seen, count: int, run: Path) -> str:
    """Write the pictures worth rating in the format of `ratings.csv`; what to do with it, in words.

    Nothing is written where there is nothing new.
    """
    if seen.drift.verdict != NEW:
        return f"nothing to rate: {seen.drift.verdict}"
    folder = Path(os.path.commonpath([str(Path(file).absolute().parent) for file in seen.files]))
    picked = most_telling(seen.features, seen.learnt, count)
    names = [Path(seen.files[i]).absolute().relative_to(folder).as_posix() for i in picked]
    todo = pd.DataFrame({"image": list(map(cell, names)), "mos": ""})
    write_bytes(path, todo.to_csv(index=False).encode())
    parent = str(run) if run.is_dir() else "<the run folder of this bundle>"
    return (
        f"written: {path} ({len(picked)} pictures to rate in the column mos; then save it as "
        f"{folder / 'ratings.csv'})\n"
        f"learn them: iqa-lightning train from={parent} stream=folders 'stream.folders=[{folder}]'"
    )
