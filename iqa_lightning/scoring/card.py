"""What a model is: what it learnt, how well, on which code, what it is not for."""

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from iqa_lightning.metrics.scale import ENOUGH, LEVEL, Scale
from iqa_lightning.report.text.escaping import markdown_text

NOT_FOR = (
    "to judge people, or to decide by itself what is published, kept or paid",
    "pictures of a kind that it has not learnt: where `outside` is above 99, the score says little",
    "to compare a picture with its reference: no reference is read",
)
"""What no score of such a model is made for."""


def card_of_run(folder: Path, config: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """The card of a finished run."""
    from iqa_lightning.records import RunFolder  # noqa: PLC0415
    from iqa_lightning.runs.folder import spelt_order  # noqa: PLC0415
    from iqa_lightning.stream.orders import numbered  # noqa: PLC0415

    summary = RunFolder(folder).read_summary()
    tasks, sources = numbered(spelt_order(config["stream"]))
    entries = config["stream"].get("tasks") or {}
    datasets = {
        name: {
            "images": summary.get("images", {}).get(name, {}),
            **origin(entries.get(source), config["stream"]),
        }
        for name, source in sources.items()
    }
    return {
        "tasks": ["+".join(sets) for sets in tasks],
        "method": summary.get("method"),
        "backbone": backbone_of(config["backbone"]),
        "datasets": datasets,
        "split": summary.get("split"),
        "split_hash": summary.get("split_hash"),
        "seed": summary.get("seed"),
        "synthetic": bool(summary.get("synthetic")),
        "measures": summary.get("readouts", {}),
        "srcc": last_rows(folder),
        "intervals": intervals_of(scale),
        "package": summary.get("package", {}),
        "config_hash": summary.get("config_hash"),
        "parent": summary.get("parent"),
        "not_for": list(NOT_FOR),
    }


def backbone_of(config: Mapping[str, Any]) -> str:
    """A network and what it began with, in words."""
    name = config.get("name") or str(config["_target_"]).rpartition(".")[2]
    start = config.get("weights") or config.get("pretrained") or config.get("folder") or "random"
    return f"{name} ({Path(str(start)).name})"


def origin(entry: Mapping[str, Any] | None, stream: Mapping[str, Any]) -> dict[str, str]:
    """What the class of a data set says of its home and licence."""
    if entry is None:
        return {"licence": "that of the folder's owner" if "folders" in stream else "not recorded"}
    module, _, name = str(entry["_target_"]).rpartition(".")
    if not module.startswith("iqa_lightning.datasets"):
        return {"licence": "not recorded"}
    text = " ".join((getattr(import_module(module), name).__doc__ or "").split())
    found = {
        key.lower(): match[1].strip().rstrip(".")
        for key in ("Licence", "Home")
        if (match := re.search(rf"{key}: (.+?)(?= [A-Z][a-z]+: |$)", text))
    }
    return found if "licence" in found else found | {"licence": "not recorded: ask its owner"}


def last_rows(folder: Path) -> dict[str, dict[str, float]]:
    """SRCC of each data set after the last task, by readout."""
    import csv  # noqa: PLC0415

    found = {}
    for path in sorted(folder.glob("srcc_*.csv")):
        with path.open(encoding="utf-8") as file:
            rows = list(csv.reader(file))
        if len(rows) > 1:
            last = zip(rows[0][1:], rows[-1][1:], strict=False)
            found[path.stem.removeprefix("srcc_")] = {n: float(v) for n, v in last if v}
    return found


def intervals_of(scale: Scale) -> dict[str, Any]:
    """Level and half widths of the intervals."""
    return {"level": LEVEL, "enough": ENOUGH, "radius": dict(scale.radius)}


def markdown(card: Mapping[str, Any]) -> str:
    """The card to read."""
    lines = [
        f"# {markdown_text(card['method'])}",
        "",
        f"Scores of pictures without a reference; {markdown_text(card['backbone'])}.",
    ]
    if card["synthetic"]:
        lines += ["", "**Learnt from computed targets: no person rated these pictures.**"]
    lines += ["", "## What it learnt, in this order", ""]
    lines += ["| data set | train / val / test | licence | home |", "|---|---|---|---|"]
    for name, about in card["datasets"].items():
        count = " / ".join(str(about["images"].get(part, "?")) for part in ("train", "val", "test"))
        row = (name, count, about["licence"], about.get("home", ""))
        lines.append(f"| {' | '.join(map(markdown_text, row))} |")
    lines += ["", f"Split {card['split']} ({card['split_hash']}), seed {card['seed']}."]
    lines += ["", "## How well: SRCC on the test parts after the last task", ""]
    lines += ["| readout | " + " | ".join(map(markdown_text, card["datasets"])) + " |"]
    lines += ["|---" * (1 + len(card["datasets"])) + "|"]
    for readout, row in card["srcc"].items():
        cells = [f"{row[name]:.3f}" if name in row else "" for name in card["datasets"]]
        lines.append(f"| {readout} | {' | '.join(cells)} |")
    lines += ["", markdown_text(interval_text(card["intervals"]))]
    lines += ["", "## What it is not for", "", *(f"- {text}" for text in card["not_for"])]
    package = card["package"]
    commit = package.get("commit") or "not known"
    lines += ["", f"Made by iqa-lightning {package.get('version')}, commit {commit}."]
    if card.get("parent"):
        lines.append(f"It extends {markdown_text(str(card['parent']))}.")
    return "\n".join(lines) + "\n"


def interval_text(intervals: Mapping[str, Any]) -> str:
    """Which interval holds for which pictures, in words."""
    radius = intervals["radius"]
    own = [f"{name} +-{value:.1f}" for name, value in radius.items() if name != "pooled"]
    text = f"Intervals of {100 * intervals['level']:.0f} % on the scale from 0 to 100: "
    each = f"by the head with most weight {', '.join(own)}; else " if own else ""
    pooled = f"pooled over all sets +-{radius['pooled']:.1f}"
    enough = f"a head has its own from {intervals['enough']} validation images on"
    return f"{text}{each}{pooled} ({enough})."
