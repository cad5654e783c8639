"""What LIQE calls scenes and distortions, and how well they are recognised, read off the records.

Zhang et al., "Blind image quality assessment via vision-language correspondence: a multitask
learning perspective", CVPR 2023, https://arxiv.org/abs/2303.14968; official code
https://github.com/zwx8981/LIQE. The words stand in the order of the prompts, and the underscore of
`still_life` is part of its prompt.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SCENES = (
    "animal",
    "cityscape",
    "human",
    "indoor",
    "landscape",
    "night",
    "plant",
    "still_life",
    "others",
)


FINE = {
    "jpeg2000 compression": ("jpeg2000 compression", "fastfading"),
    "jpeg compression": ("jpeg compression",),
    "noise": (
        *("white noise", "fnoise", "white with color", "impulse", "multiplicative"),
        *("white noise with denoise", "realistic noise"),
    ),
    # KADID-10k's color shift, called `shifting`, is a blur and its mean shift is not: the authors'
    # choice
    "blur": ("gaussian blur", "lens", "motion", "shifting", "realistic blur"),
    "color": ("diffusion", "oversaturation", "desaturation"),
    "contrast": ("contrast", "sharpness", "realistic contrast change"),
    "overexposure": ("brighten", "overexposure"),
    "underexposure": ("darken", "underexposure"),
    "spatial": ("jitter", "noneccentricity patch", "pixelate", "color blocking"),
    "quantization": ("color quantization", "quantization"),
    "other": ("shifting the mean", "other realistic"),
}


DISTORTIONS = tuple(FINE)


CLASS_OF = {label: name for name, labels in FINE.items() for label in labels}


JOIN = "+"  # between the scenes of an image


Array = NDArray[np.float64]


def distortion_index(label: str, words: Sequence[str] = DISTORTIONS) -> int:
    """Place among `words` of the class of a distortion, given as a fine label or as one of the
    words; -1 for others.
    """
    label = label.replace("_", " ")
    word = label if label in words else CLASS_OF.get(label, "")
    return list(words).index(word) if word in words else -1


def scene_targets(cells: Sequence[str], words: Sequence[str] = SCENES) -> NDArray[np.float32]:
    """Which scenes each image shows, (images, words) of 0 and 1; a row of zeros where none of them
    is known.
    """
    known = [set(cell.split(JOIN)) for cell in cells]
    return np.array([[word in scenes for word in words] for scenes in known], np.float32).reshape(
        -1, len(words)
    )


def column(kind: str, word: str) -> str:
    """Name in the records of the predicted probability of a word."""
    return f"{kind}/{word.replace(' ', '_')}"


def scene_accuracy(probability: Array, target: Array) -> float:
    """Of an image with m scenes the share of them among its m most probable ones, averaged over the
    labelled images.

    (images, scenes) each; in [0, 1], higher is better, NaN without labelled images.
    """
    labelled = target.sum(axis=1) > 0
    shares = [
        row[np.argsort(-p, kind="stable")[: int(row.sum())]].mean()
        for p, row in zip(probability[labelled], target[labelled], strict=True)
    ]
    return float(np.mean(shares)) if shares else math.nan


def distortion_accuracy(probability: Array, target: NDArray[np.int64]) -> float:
    """Share of the labelled images (target from 0, -1 for unlabelled) whose most probable
    distortion is theirs.

    In [0, 1], higher is better, NaN without labelled images.
    """
    labelled = target >= 0
    hits = probability[labelled].argmax(axis=1) == target[labelled]
    return float(hits.mean()) if labelled.any() else math.nan


def predicted(rows: pd.DataFrame, kind: str) -> tuple[list[str], Array]:
    """The words of a kind (`scene`, `distortion`) that are predicted, and their probabilities,
    (images, words).
    """
    columns = [name for name in rows.columns if str(name).startswith(f"{kind}/")]
    return [name.removeprefix(f"{kind}/") for name in columns], rows[columns].to_numpy(np.float64)


def targets(rows: pd.DataFrame, kind: str, words: Sequence[str]) -> Array:
    """What images are labelled with, (images, words) of 0 and 1, by the words of the records."""
    cells = [str(cell) for cell in rows.get(f"image/{kind}", pd.Series([""] * len(rows)))]
    if kind == "scene":
        return scene_targets(cells, words).astype(np.float64)
    spoken = [word.replace("_", " ") for word in words]
    index = [distortion_index(cell, spoken) for cell in cells]
    return np.array([[k == i for k in range(len(words))] for i in index], np.float64).reshape(
        -1, len(words)
    )


def accuracy_row(rows: pd.DataFrame) -> dict[str, float]:
    """Accuracies of the images in `rows` and how many of them are labelled."""
    cells: dict[str, float] = {}
    for kind in ("scene", "distortion"):
        words, probability = predicted(rows, kind)
        if not words:
            continue
        truth = targets(rows, kind, words)
        labelled = truth.any(axis=1)
        if kind == "scene":
            value = scene_accuracy(probability, truth)
        else:
            value = distortion_accuracy(probability, np.where(labelled, truth.argmax(axis=1), -1))
        cells |= {f"{kind}_accuracy": value, f"{kind}_images": int(labelled.sum())}
    return cells


def confusion_rows(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """How often (`n`) the most probable word of a kind was `predicted` where the `actual` one was
    due.

    An image of several scenes counts once for each of them.
    """
    for kind in ("scene", "distortion"):
        words, probability = predicted(rows, kind)
        if not words:
            continue
        truth, first = targets(rows, kind, words), probability.argmax(axis=1)
        for i, actual in enumerate(words):
            counts = np.bincount(first[truth[:, i] > 0], minlength=len(words))
            for j, n in enumerate(counts):
                if n:
                    yield {"kind": kind, "actual": actual, "predicted": words[j], "n": int(n)}


def label_tables(parts: Iterator[tuple[str, str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """`labels` (accuracies) and `confusion` of each (after, data set, test rows); none where
    nothing is predicted.
    """
    accuracies, confusions = [], []
    for after, dataset, rows in parts:
        where = {"after": after, "dataset": dataset}
        if cells := accuracy_row(rows):
            accuracies.append(where | {"n": len(rows)} | cells)
            confusions += [where | row for row in confusion_rows(rows)]
    if not accuracies:
        return {}
    names = ["after", "dataset", "kind", "actual", "predicted", "n"]
    return {
        "labels": pd.DataFrame(accuracies),
        "confusion": pd.DataFrame(confusions, columns=names),
    }
