"""Scores with thumbnails as one HTML file, which opens from disk and fetches nothing."""

import base64
import io
import json
import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from iqa_lightning.files import write_bytes
from iqa_lightning.models.outside import OUTSIDE
from iqa_lightning.scoring.card import interval_text
from iqa_lightning.scoring.images import open_any
from iqa_lightning.scoring.scorer import COLUMNS, Scorer

TEMPLATE = Path(__file__).with_suffix(".html")


SIDE = 160
"""Pixels of the longer side of a thumbnail."""


def write_page(path: Path, table: pd.DataFrame, scorer: Scorer) -> None:
    """Write the page of a table of scores.

    Args:
        path: the file.
        table: what the scorer gave for files.
        scorer: it.
    """
    tasks = sorted({task for task in table["task"] if task})
    content = {
        "about": f"{scorer.card.get('method')}: {len(table)} pictures. "
        f"{interval_text(scorer.card['intervals'])}",
        "limit": OUTSIDE,
        "tasks": tasks,
        "rows": [row_of(row) for row in table[list(COLUMNS)].to_dict("records")],
    }
    # no text of a file's name may end the script that it stands in
    data = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    write_bytes(path, TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", data).encode())


def row_of(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    """A row as JSON, with its thumbnail."""
    plain = {
        str(key): None if isinstance(value, float) and math.isnan(value) else value
        for key, value in row.items()
    }
    return plain | {"thumbnail": None if row["error"] else thumbnail(row["image"])}


def thumbnail(file: str) -> str | None:
    """A small JPEG of an image file as a URL that holds it."""
    try:
        image = open_any(file)
    except (ValueError, OSError):  # gone since it was scored
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
