"""The images that a run forgot most, and small pictures of them where the data set is at hand."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from scipy import stats

from iqa_lightning.metrics.matrices import learnt_by, readouts_of
from iqa_lightning.report.panels import Key, Predictions
from iqa_lightning.report.sweep import RUN
from iqa_lightning.report.verdicts import HONEST

COUNT = 50  # images of a method
SIDE = 144  # pixels, the longer one
BUDGET = 2_400_000  # characters of all pictures together, so that the page stays well below 6 MB


def forgotten(predictions: Predictions, count: int = COUNT) -> pd.DataFrame:
    """Test images whose rank got worst from just after their data set was learnt to the end of the run.

    Returns:
        Columns `dataset`, `image`, `people` (rank of the rating within the data set), `before` and `after` (rank of the
        prediction), all from 0 to 1 and higher is better, and `rise` (how much further from the people's rank it is
        now, always positive); largest rise first.
    """
    first, last = next(iter(predictions.values())), list(predictions.values())[-1]
    readouts = readouts_of(last)
    readout = next((name for name in HONEST if name in readouts), readouts[0])
    names = list(dict.fromkeys(first["dataset"]))
    parts: list[pd.DataFrame] = []
    for name, t in zip(names, learnt_by(list(predictions), names), strict=True):
        if t >= len(predictions) - 1:  # never learnt, or by the last task: nothing came after it
            continue
        rows = ((last["dataset"] == name) & (last["split"] == "test")).to_numpy()
        just = list(predictions.values())[t]
        people, before, after = (
            unit_rank(frame.loc[rows, c]) for frame, c in ((last, "mos"), (just, readout), (last, readout))
        )
        rise = np.abs(after - people) - np.abs(before - people)
        ranks = {"people": people, "before": before, "after": after, "rise": rise}
        parts.append(last.loc[rows, ["dataset", "image"]].assign(**ranks))
    if not parts:
        return pd.DataFrame(columns=["dataset", "image", "people", "before", "after", "rise"])
    table = pd.concat(parts, ignore_index=True)
    order = table["rise"].sort_values(ascending=False, kind="stable").index
    worst = [i for i in order if table["rise"][i] > 0][:count]
    return table.reindex(worst).reset_index(drop=True)


def unit_rank(values: pd.Series) -> Any:
    """Ranks from 0 (lowest) to 1; ties share theirs."""
    return (stats.rankdata(values.to_numpy(np.float64)) - 0.5) / len(values)


def gallery(predictions: Mapping[Key, Predictions], roots: Mapping[str, Path], budget: int = BUDGET) -> dict[str, Any]:
    """The worst-forgotten images of each method over its runs, an image once, and their pictures.

    Args:
        predictions: of each run.
        roots: the folder of each data set that is at hand.
        budget: characters that all pictures may take; the worst-forgotten images are given theirs first.

    Returns:
        `images` (a dictionary each, `picture` is an index or null) and `pictures` (data URIs).
    """
    parts = []
    for key, frames in predictions.items():
        run = dict(zip(RUN, key, strict=True))
        parts.append(forgotten(frames).assign(**{name: run[name] for name in ("method", "order", "split")}))
    if not parts:
        return {"images": [], "pictures": []}
    table = pd.concat(parts, ignore_index=True).sort_values("rise", ascending=False, kind="stable")
    table = table.drop_duplicates(["method", "dataset", "image"]).groupby("method", sort=False).head(COUNT)
    pictures: dict[tuple[str, str], str] = {}
    for dataset, image in table[["dataset", "image"]].drop_duplicates().itertuples(index=False, name=None):
        uri = picture(roots[dataset] / image) if dataset in roots else None
        if uri and sum(map(len, pictures.values())) + len(uri) <= budget:
            pictures[dataset, image] = uri
    place = {key: i for i, key in enumerate(pictures)}
    images = [
        {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
        | {"picture": place.get((row["dataset"], row["image"]))}
        for row in table.to_dict("records")
    ]
    return {"images": images, "pictures": list(pictures.values())}


def picture(path: Path) -> str | None:
    """A small JPEG of an image file as a data URI; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            small = ImageOps.contain(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    stored = io.BytesIO()
    small.save(stored, "JPEG", quality=70, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stored.getvalue()).decode()}"
