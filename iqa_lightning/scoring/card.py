"""What a model is: what it learnt, how well, on which code; in JSON and in Markdown."""

from pathlib import Path
from typing import Any


def card_of_run(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The card of a finished run."""
    from iqa_lightning.records import RunFolder  # noqa: PLC0415
    from iqa_lightning.runs.folder import spelt_order  # noqa: PLC0415
    from iqa_lightning.stream.orders import numbered  # noqa: PLC0415

    summary = RunFolder(folder).read_summary()
    tasks = ["+".join(sets) for sets in numbered(spelt_order(config["stream"]))[0]]
    return {"tasks": tasks, "method": summary.get("method")}
