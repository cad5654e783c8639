"""What an image shows, as a short text that is the same wherever it turns up: how leaks between
data are found.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from iqa_lightning.datasets.base import IQADataModule

CARD = "card.json"


SHOWN = 3


def content_of(data: IQADataModule, row: int) -> str:
    """SHA-256 of the file of image `row`; of a generated image its class and its reference."""
    path = data.image_path(row)
    if path.is_file():
        return file_content(path)
    return f"{type(data).__name__}:{data.samples.table['reference'].iloc[row]}"


def file_content(path: Path) -> str:
    """SHA-256 of a file."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def card_of(weights: str | None) -> dict[str, Any]:
    """What the card beside a weights file says; empty where there is no file or no card."""
    card = Path(weights).parent / CARD if weights else None
    if card is None or not card.is_file():
        return {}
    try:
        return dict(json.loads(card.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{card} cannot be read ({error}): pre-train again, or get weights and card again"
        ) from error


def refuse_leaks(weights: str | None, data: Iterable[IQADataModule], allowed: bool) -> list[str]:
    """Images of test parts that the pre-training of `weights` has seen, which is an error unless
    `allowed`.

    By content: a file, byte for byte, or the reference of a generated image. Pre-training from
    other weights counts what those have seen too, since cards hand it on. What a network without a
    card has seen is not known.

    Raises:
        ValueError: naming the data set, some of the images and the override.
    """
    seen: Mapping[str, str] = card_of(weights).get("images", {})
    if not seen:
        return []
    found = []
    for module in data:
        module.prepare_data()
        table = module.samples.table["image"]
        found += [
            f"{module.name}/{table.iloc[i]}"
            for i in module.parts.test
            if content_of(module, int(i)) in seen
        ]
    if found and not allowed:
        raise ValueError(
            f"the weights {weights} were pre-trained on {len(found)} images (or references) "
            "of test parts, as "
            f"{', '.join(found[:SHOWN])}: choose other weights or another split, or say "
            "allow_leakage=true"
        )
    return found
