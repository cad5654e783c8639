"""Scores of images of any kind, one row an image."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from iqa_lightning.scoring.images import batched, shown, shown_size
from iqa_lightning.scoring.model import Model, Reading, load_model

COLUMNS = ("image", "score", "low", "high", "task", "outside", "error")


THREADS = 4
"""That decode, while the network reads."""


class Scorer:
    """What a finished run says of images.

    Args:
        model: of a run folder or bundle, see `Scorer.load`.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> "Scorer":
        """That of a run folder or of a bundle.

        Args:
            path: the folder or file.
            device: `auto` (the first GPU, else the processor), `cpu`, `cuda:1`, ...

        Raises:
            ValueError: there is none, it is damaged, or there is no such device.
        """
        return cls(load_model(path, device))

    @property
    def tasks(self) -> list[str]:
        """What it has learnt, in that order; each with a head of its own, or all with one."""
        return list(self.model.card["tasks"])

    @property
    def card(self) -> dict[str, Any]:
        """What it is: data sets, licences, how well it does, what made it."""
        return self.model.card

    def __call__(
        self,
        images: Any,
        scale: str = "common",
        task: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> pd.DataFrame:
        """One row an image, in the order given.

        `score` is from 0 to 100, higher is better, and lies in `low` to `high` with a chance of
        90 %; `task` is the head with most weight; `outside` the percentile of validation images
        that lie nearer to what was learnt (above 99: outside of it); `error` says why a row is
        empty. Then, of each head, its own score and weight.

        Args:
            images: paths, PIL images, uint8 arrays (height, width, 3) or tensors (3, height,
                width); one of them or a list.
            scale: `common`, or `native`: the unit of the ratings of the data set `task`.
            task: the data set whose unit is meant.
            progress: called with the number of images that are done.

        Raises:
            ValueError: an unknown scale or task.
        """
        return self.table(images, scale, task, progress, keep=False)[0]

    def table(
        self,
        images: Any,
        scale: str = "common",
        task: str | None = None,
        progress: Callable[[int], None] | None = None,
        keep: bool = True,
    ) -> tuple[pd.DataFrame, NDArray[np.float32]]:
        """The rows and, unless they are not to be kept, what tells whether each image is like what
        was learnt (NaN where it is not readable); see `__call__`.
        """
        self.check_scale(scale, task)
        items = list(images) if isinstance(images, list | tuple) else [images]
        rows, features, errors = self.read(items, progress, keep)
        there = rows.loc[np.array([error == "" for error in errors], dtype=bool)]
        numbers = self.numbers(there, scale, task)
        found = pd.DataFrame({"image": [name_of(item, i) for i, item in enumerate(items)]})
        for name in COLUMNS[1:-1]:
            empty = "" if name == "task" else np.nan
            column = pd.Series(numbers[name], index=there.index)
            found[name] = column.reindex(found.index, fill_value=empty)
        found["error"] = errors
        heads = {column: output_column(str(column)) for column in rows if column != "outside"}
        return found.join(rows[list(heads)].rename(columns=heads)), features

    def check_scale(self, scale: str, task: str | None) -> None:
        """Refuse a scale that there is not."""
        known = list(self.model.scale.native)
        if scale not in ("common", "native"):
            raise ValueError(f"scale={scale}: choose common or native")
        if scale == "native" and task not in known:
            raise ValueError(f"scale=native needs task=, one of {', '.join(known)}; got {task}")
        if scale == "common" and task is not None and task not in known:
            raise ValueError(f"task={task}: this model has learnt {', '.join(known)}")

    def numbers(
        self, rows: pd.DataFrame, scale: str, task: str | None
    ) -> dict[str, NDArray[Any] | list[str]]:
        """Score, interval, head and percentile of rows of heads."""
        own = self.model.scale
        heads = own.head(rows)
        if scale == "native":
            assert task is not None
            score = own.native[task](rows[self.native_column(task)].to_numpy(np.float64))
            radius = np.full(len(rows), own.native_radius.get(task, np.nan))
            low, high = score - radius, score + radius
        else:
            score, radius = own.score(rows), own.radius_of(heads)
            low, high = np.maximum(score - radius, 0.0), np.minimum(score + radius, 100.0)
        outside = rows["outside"].to_numpy(np.float64)
        return {"score": score, "low": low, "high": high, "task": heads, "outside": outside}

    def native_column(self, dataset: str) -> str:
        """The column of the head that learnt a data set."""
        if self.model.heads == ["single"]:
            return "single"
        return next(f"score/{head}" for head in self.model.heads if dataset in head.split("+"))

    def read(
        self,
        items: Sequence[Any],
        progress: Callable[[int], None] | None = None,
        keep: bool = True,
    ) -> tuple[pd.DataFrame, NDArray[np.float32], list[str]]:
        """What the model says of images: columns of the records and `outside`; features; errors.

        Rows of unreadable images are empty.
        """
        errors = [""] * len(items)
        frames: list[pd.DataFrame] = []
        features: dict[int, NDArray[np.float32]] = {}
        for rows, batch in self.batches(items, errors):
            reading = self.model.read(batch)
            frame = self.model.frame(reading).set_index(pd.Index(rows))
            near = self.model.outside
            frame["outside"] = np.nan if near is None else near(reading.feature).cpu().numpy()
            frames.append(frame)
            if keep:
                features |= zip(rows, reading.feature.cpu().numpy(), strict=True)
            if progress is not None:
                progress(len(rows))
        if not frames:
            frames = [self.empty()]
        width = len(next(iter(features.values()))) if features else 0
        table = np.full((len(items), width), np.nan, dtype=np.float32)
        for row, feature in features.items():
            table[row] = feature
        return pd.concat(frames).reindex(range(len(items))), table, errors

    def empty(self) -> pd.DataFrame:
        """The columns without a row."""
        size = len(self.model.heads)
        nothing = torch.zeros(0, size)
        return self.model.frame(Reading(nothing, nothing, nothing)).assign(outside=0.0)

    def batches(
        self, items: Sequence[Any], errors: list[str]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Images of equal size, decoded ahead by threads; what cannot be read gets an error."""
        view, device = self.model.view, next(self.model.network.parameters()).device

        def tried(work: Callable[[Any], Any], i: int) -> Any:
            try:
                return work(items[i])
            except (ValueError, OSError) as error:
                errors[i] = " ".join(str(error).split())
                return None

        with ThreadPoolExecutor(THREADS) as pool:
            sizes = list(
                pool.map(lambda i: tried(lambda item: shown_size(item, view), i), range(len(items)))
            )

            def start(batch: list[int]) -> list[Any]:
                return [pool.submit(tried, lambda item: shown(item, view), i) for i in batch]

            waiting: list[tuple[list[int], list[Any]]] = []
            plan = batched(sizes, self.model.max_pixels)
            for batch in plan:
                waiting.append((batch, start(batch)))
                if len(waiting) > 1:  # one batch is decoded while another is read
                    yield from joined(*waiting.pop(0), device)
            for batch, futures in waiting:
                yield from joined(batch, futures, device)


def name_of(image: Any, place: int) -> str:
    """What an image is called: its path, or its place among the images."""
    return str(image) if isinstance(image, str | Path) else f"[{place}]"


def output_column(name: str) -> str:
    """A column of the records as it is called in the output."""
    return "score/single" if name == "single" else name


def joined(
    batch: list[int], futures: list[Any], device: torch.device
) -> Iterator[tuple[list[int], Tensor]]:
    """The images of a batch that could be read, stacked; nothing where there are none."""
    pixels = [future.result() for future in futures]
    there = [(i, one) for i, one in zip(batch, pixels, strict=True) if one is not None]
    sizes = dict.fromkeys(one.shape for _, one in there)
    for size in sizes:
        own = [(i, one) for i, one in there if one.shape == size]
        yield [i for i, _ in own], torch.stack([one for _, one in own]).to(device)
