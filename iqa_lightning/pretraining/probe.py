"""Linear probes: what a backbone knows about quality before it is trained, by ridge regression on
frozen features.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch.nn import functional as F

from iqa_lightning.audit.contents import card_of, content_of
from iqa_lightning.datasets.base import IQADataModule, unlocked_test_set
from iqa_lightning.datasets.samplers import SizeSampler
from iqa_lightning.metrics.correlation import srcc
from iqa_lightning.metrics.splits import split_interval
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.ridge import ALPHAS, ridge_scores

Array = NDArray[np.float64]


MAX_PIXELS = 16 * 224 * 224


def probe_start(
    name: str,
    backbone: Backbone,
    by_split: Mapping[int, IQADataModule],
    scales: Sequence[float],
    seen: frozenset[str] = frozenset(),
) -> pd.DataFrame:
    """One row a split: SRCC on the test images that no pre-training has `seen`, `alpha` chosen on
    validation images.

    Columns `start`, `dataset`, `split`, `train`, `test` (images), `alpha`, `val_srcc`, `test_srcc`.
    """
    first = next(iter(by_split.values()))
    first.setup()
    x, mos = features(backbone, first, scales), first.samples.table["mos"].to_numpy(np.float64)
    rows = []
    for split, data in by_split.items():
        train, val, test = (np.asarray(part) for part in data.parts)
        test = np.array(
            [row for row in test if not seen or content_of(data, int(row)) not in seen],
            dtype=np.int64,
        )
        scores = ridge_scores(x[train], mos[train], np.concatenate([x[val], x[test]]))
        chosen = [srcc(one[: len(val)], mos[val]) for one in scores]
        best = int(np.nanargmax(chosen))
        found = srcc(scores[best][len(val) :], mos[test]) if len(test) > 2 else np.nan
        rows.append(
            (name, data.name, split, len(train), len(test), ALPHAS[best], chosen[best], found)
        )
    names = ["start", "dataset", "split", "train", "test", "alpha", "val_srcc", "test_srcc"]
    return pd.DataFrame(rows, columns=names)


def features(
    backbone: Backbone, data: IQADataModule, scales: Sequence[float]
) -> Float[np.ndarray, "images width"]:
    """Pooled features of every image of a data set, whole, at each scale, one beside the other; NaN
    if in no part.
    """
    out = np.full((len(data.samples), backbone.width * len(scales)), np.nan)
    with unlocked_test_set(), torch.no_grad():
        for part in (data.part(name) for name in ("train", "val", "test")):
            for batch in SizeSampler(part.sizes, MAX_PIXELS):
                image = torch.stack([part[i]["image"] for i in batch])
                shown = [image if s == 1 else _smaller(image, s) for s in scales]
                out[part.rows[batch]] = torch.cat([backbone(one) for one in shown], dim=1).numpy()
    return out


def _smaller(image: torch.Tensor, scale: float) -> torch.Tensor:
    size = [round(side * scale) for side in image.shape[-2:]]
    return F.interpolate(image.float(), size, mode="bicubic", antialias=True).clamp(0, 255)


def seen_by(starts: Iterable[str | None]) -> frozenset[str]:
    """Contents of all images that the pre-trainings of any start have seen."""
    return frozenset(
        content for weights in starts for content in card_of(weights).get("images", {})
    )


def summarise(frames: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All splits, and of each start and data set the median and mean over them with the 95 %
    interval of the mean, corrected for the images that splits share.
    """
    splits = pd.concat(frames, ignore_index=True)
    rows = []
    for (start, dataset), group in splits.groupby(["start", "dataset"], sort=False):
        values = group["test_srcc"].to_numpy(np.float64)
        low, high = split_interval(values, float((group["test"] / group["train"]).mean()))
        tested = int(group["test"].sum())
        rows.append(
            (start, dataset, len(values), tested, np.median(values), values.mean(), low, high)
        )
    names = ["start", "dataset", "splits", "tested", "median", "mean", "low", "high"]
    return splits, pd.DataFrame(rows, columns=names)


def table(summary: pd.DataFrame, config: Mapping[str, Any]) -> str:
    """The summary as markdown."""
    probe, datasets = config["probe"], list(dict.fromkeys(summary["dataset"]))
    seen = "included" if probe["seen_images"] else "left out, for all starts alike"
    lines = [
        "# Linear probes",
        "",
        f"SRCC of ridge regression on frozen features: {config['backbone']['name']}, whole images, "
        "shorter side "
        f"{config['view']['resize']}, scales {', '.join(map(str, probe['scales']))}; ridge by "
        "validation images.",
        f"Mean over {len(probe['splits'])} splits, in brackets its 95 % interval over splits, "
        "corrected for the "
        "images that they share. Test images that a pre-training has seen (without scores): "
        f"{seen}.",
        "",
        f"| start | {' | '.join(datasets)} |",
        f"|---|{'---|' * len(datasets)}",
    ]
    for start, group in summary.groupby("start", sort=False):
        cells = {
            row.dataset: f"{row.mean:.3f} [{row.low:.3f}, {row.high:.3f}]"
            for row in group.itertuples()
        }
        lines.append(f"| {start} | {' | '.join(cells[name] for name in datasets)} |")
    return "\n".join(lines) + "\n"
