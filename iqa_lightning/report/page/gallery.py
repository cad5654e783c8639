"""The images that a run forgot most, and small pictures of them where the data set is at hand."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd
from PIL import Image, ImageOps

from iqa_lightning.images.opening import Rule
from iqa_lightning.metrics.matrices import readouts_of
from iqa_lightning.report.numbers.forgetting import worst_forgotten
from iqa_lightning.report.numbers.results import RUN
from iqa_lightning.report.numbers.verdicts import used_readout
from iqa_lightning.report.page.panels import Key, Predictions

COUNT = 50  # images of a method


SHOWN = ["dataset", "image", "rank_mos", "rank_before", "rank_after", "growth"]


SIDE = 144  # pixels, the longer one


BUDGET = 2_400_000  # characters of all pictures together, so that the page stays well below 6 MB


def gallery(
    predictions: Mapping[Key, Predictions], roots: Mapping[str, Path], budget: int = BUDGET
) -> dict[str, Any]:
    """The worst-forgotten images of each method over its runs, an image once, and their pictures.

    Args:
        predictions: of each run.
        roots: the folder of each data set that is at hand.
        budget: characters that all pictures may take; the worst-forgotten images are given theirs
            first.

    Returns:
        `images` (a dictionary each, as in `forgetting.worst_forgotten`; `picture` is an index or
        null) and `pictures` (data URIs).
    """
    parts = []
    for key, frames in predictions.items():
        run = dict(zip(RUN, key, strict=True))
        readout = used_readout(readouts_of(next(iter(frames.values()))))
        worst = worst_forgotten(frames, readout, COUNT)[SHOWN]
        parts.append(worst.assign(**{name: run[name] for name in ("method", "order", "split")}))
    if not parts:
        return {"images": [], "pictures": []}
    table = pd.concat(parts, ignore_index=True).sort_values(
        "growth", ascending=False, kind="stable"
    )
    table = (
        table.drop_duplicates(["method", "dataset", "image"])
        .groupby("method", sort=False)
        .head(COUNT)
    )
    pictures: dict[tuple[str, str], str] = {}
    for dataset, image in (
        table[["dataset", "image"]].drop_duplicates().itertuples(index=False, name=None)
    ):
        path = below(roots[dataset], image) if dataset in roots else None
        uri = picture(path) if path is not None else None
        if uri and sum(map(len, pictures.values())) + len(uri) <= budget:
            pictures[dataset, image] = uri
    place = {key: i for i, key in enumerate(pictures)}
    images = [
        {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
        | {"picture": place.get((row["dataset"], row["image"]))}
        for row in table.to_dict("records")
    ]
    return {"images": images, "pictures": list(pictures.values())}


def below(root: Path, name: str) -> Path | None:
    """What a record names in a folder; None where the name leads out of it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts:
        return None
    return root / path


def picture(path: Path) -> str | None:
    """A small JPEG of an image file as a data URI; None where it cannot be read."""
    try:
        image = Rule(min_side=1).load(path, draft=2 * SIDE)
    except (OSError, ValueError):
        return None
    small = ImageOps.contain(image, (SIDE, SIDE), Image.Resampling.LANCZOS)
    stored = io.BytesIO()
    small.save(stored, "JPEG", quality=70, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stored.getvalue()).decode()}"
