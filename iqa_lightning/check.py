"""What is on disk: `python -m iqa_lightning.check data=<name>` or `stream=<name>`; a report, and
status 1 on an error.

Only Hydra is imported at the top, so that `--help` and `--cfg job` answer at once.
"""

from __future__ import annotations

from iqa_lightning import signals

if __name__ == "__main__":  # before anything that takes time
    signals.install()

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from iqa_lightning.configs import read_yaml
from iqa_lightning.files import write_bytes
from iqa_lightning.runs.compose import CONF, check_kinds, instantiate
from iqa_lightning.runs.mistakes import run_command
from iqa_lightning.runs.start import check_folders, check_ranges, check_writable, one_line

if TYPE_CHECKING:
    from rich.console import Console

    from iqa_lightning.audit.check import Audit, Finding
    from iqa_lightning.audit.duplicates import Duplicate
    from iqa_lightning.datasets.base import IQADataModule


CACHE_WORDS = ("verify", "remove")


NOTES = 20  # shown; the report has all


STYLES = {"error": "bold red", "warning": "yellow"}


@hydra.main(config_path=str(CONF), config_name="check", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Check the configured data set or stream, or the decoded images kept of it.

    Raises:
        SystemExit: there is an error; the report says which.
    """
    with one_line():
        check_kinds("check")
        check_ranges(cfg)
        if cfg.plan:
            plan(cfg)
            return
        errors = check(cfg) if cfg.cache is None else check_caches(cfg)
    if errors:
        raise SystemExit(1)


def check(cfg: DictConfig) -> int:
    """Write and print the report; the number of errors."""
    from rich.console import Console  # noqa: PLC0415  # torch and scipy stay out of --help

    from iqa_lightning.audit.check import audit_dataset  # noqa: PLC0415  # torch
    from iqa_lightning.audit.duplicates import check_waivers, find_duplicates, findings  # noqa: PLC0415  # torch
    from iqa_lightning.audit.groups import check_families, write_groups  # noqa: PLC0415  # torch
    from iqa_lightning.audit.manifest import verify_manifest  # noqa: PLC0415  # torch
    from iqa_lightning.scoring.tables import check_output  # noqa: PLC0415  # pandas

    console = Console()
    name, datasets = build(cfg)
    source = CONF / "waivers.yaml" if cfg.waivers is None else Path(cfg.waivers)
    if not source.is_file():
        raise ValueError(
            f"waivers={source} does not exist; it is a yaml like {CONF / 'waivers.yaml'}"
        )
    waivers = check_waivers(str(source), read_yaml(source))
    folder = Path(cfg.report) / name
    check_writable(folder, "report", "reports")
    groups = None
    if cfg.write_groups is not None:
        groups = check_output(str(cfg.write_groups), (".csv",), "write_groups")
    for data in datasets.values():
        if data.group_file is not None and not data.group_file.is_file():
            raise ValueError(
                f"group_file={data.group_file} does not exist; "
                "`check write_groups=<file>` writes one"
            )
    audits = [audit_dataset(key, data, progress) for key, data in datasets.items()]
    for audit in audits:
        if audit.facts:
            verify_manifest(audit, folder / f"{audit.name}.sha256")
    duplicates = find_duplicates(audits, waivers)
    found = [finding for audit in audits for finding in audit.findings] + findings(duplicates)
    found += check_families(audits, read_yaml(CONF / "families.yaml"))
    write_bytes(
        folder / "report.json",
        json.dumps(content(name, audits, duplicates, found), indent=1).encode(),
    )
    print_report(console, audits, duplicates, found)
    say = saying(console)
    if groups is not None:
        count = write_groups(groups, audits, duplicates)
        say(
            f"written: {groups}, {count} groups of contents that look alike; group_file={groups} "
            "of a data set or stream keeps each in one part"
        )
    say(f"written: {folder / 'report.json'}")
    return sum(finding.severity == "error" for finding in found)


def plan(cfg: DictConfig) -> None:
    """Print what a run of this config will take; nothing is written."""
    from iqa_lightning.runs.forecast import count_images, lines, measure  # noqa: PLC0415  # torch
    from iqa_lightning.stream.schedule import Phase  # noqa: PLC0415  # torch

    groups = ("stream", "method", "backbone", "schedule", "view", "pairs")
    if missing := [name for name in groups if cfg.get(name) is None]:
        raise ValueError(
            f"what is to be planned? {missing[0]} is not given: plan=true experiment=<name>, or "
            "all "
            f"of {', '.join(f'{name}=...' for name in groups)}"
        )
    phases = [Phase(name=str(k), **phase) for k, phase in cfg.schedule.items() if phase.epochs]
    view, pairs = instantiate(cfg.view), instantiate(cfg.pairs)
    stream = instantiate(cfg.stream, _partial_=True, _convert_="all")(
        phases=phases, view=view, pairs=pairs, split=cfg.split, seed=cfg.seed
    )
    method = instantiate(cfg.method, _partial_=True, _convert_="all")(
        backbone=instantiate(cfg.backbone),
        tasks=[task.name for task in stream.tasks],
        task_datasets=stream.task_datasets,
    )
    stream.serve(method.training_images, method.phases)
    counts = count_images(stream)
    kinds = tuple(kind for kind in ("heads", "all") if counts.trained.get(kind))
    rates = measure(method, pairs, view, kinds, counts.pixels)
    print("\n".join(lines(counts, rates, method, stream)))


def check_caches(cfg: DictConfig) -> int:
    """Verify or remove the caches on disk of what is configured, or all where nothing is; the
    number that is damaged.

    Raises:
        ValueError: an unknown word, or what is configured cannot be built.
    """
    if cfg.cache not in CACHE_WORDS:
        raise ValueError(f"cache is {cfg.cache!r}; it is {', '.join(CACHE_WORDS)} or null")
    from rich.console import Console  # noqa: PLC0415  # stays out of --help

    from iqa_lightning.images.cache import default_folder, find_caches, remove_caches, verify_cache  # noqa: PLC0415  # PIL
    from iqa_lightning.models.feature_cache import remove_features  # noqa: PLC0415  # torch

    say = saying(Console())
    folder = default_folder() if cfg.cache_dir is None else Path(cfg.cache_dir).expanduser()
    chosen = cfg.get("data") is not None or cfg.get("stream") is not None
    places = (
        [(data.cache_dir or folder, name) for name, data in build(cfg)[1].items()]
        if chosen
        else [(folder, None)]
    )
    if cfg.cache == "remove":
        removed = [path for place, name in places for path in remove_caches(place, name)]
        # features are those of a network, of whatever set: they go where all goes
        kept = [] if chosen else remove_features(folder)
        total = f"{len(removed)} caches removed" + (f", {len(kept)} of features" if kept else "")
        say("\n".join([*(f"removed: {path}" for path in [*removed, *kept]), total]))
        return 0
    caches = [path for place, name in places for path in find_caches(place, name)]
    damaged = 0
    for path in progress(caches, len(caches), "checksums"):
        try:
            verify_cache(path)
            say(f"whole: {path} ({(path / 'pixels.bin').stat().st_size / 1e6:.1f} MB)")
        except ValueError as error:
            damaged += 1
            say(f"error: {error}")
    say(f"{len(caches)} caches, {damaged} damaged")
    return damaged


def build(cfg: DictConfig) -> tuple[str, dict[str, IQADataModule]]:
    """What is checked, and its data sets by name."""
    choices = HydraConfig.get().runtime.choices
    if (cfg.get("data") is None) == (cfg.get("stream") is None):
        raise ValueError(
            "what is to be checked? give data=<name> or stream=<name>, names as in conf/data, "
            "conf/stream"
        )
    if cfg.get("data") is not None:
        name = str(choices["data"])
        return name, {name: instantiate(cfg.data, _convert_="all")(name=name, split=cfg.split)}
    check_folders(cfg.stream)
    from iqa_lightning.stream.schedule import Phase  # noqa: PLC0415  # torch

    stream = instantiate(cfg.stream, _partial_=True, _convert_="all")(
        phases=[Phase("check", 1, 2)], split=cfg.split
    )
    return str(choices["stream"]), {data.name: data for data in stream.data.values()}


def progress(items: Iterable[Any], count: int, label: str) -> Iterable[Any]:
    """The items with a bar on the terminal."""
    from rich.progress import track  # noqa: PLC0415  # stays out of --help

    return track(items, f"reading {label}", count, transient=True, disable=not sys.stdout.isatty())


def content(
    name: str, audits: Sequence[Audit], duplicates: Sequence[Duplicate], found: Sequence[Finding]
) -> dict[str, Any]:
    """The report as JSON has it."""
    return {
        "checked": name,
        "errors": sum(finding.severity == "error" for finding in found),
        "warnings": sum(finding.severity == "warning" for finding in found),
        "datasets": [
            {"name": audit.name, "root": str(audit.data.root), "home": audit.data.home}
            | audit.facts
            for audit in audits
        ],
        "duplicates": [vars(pair) | {"severity": pair.severity} for pair in duplicates],
        "findings": [vars(finding) for finding in found],
    }


def print_report(
    console: Console,
    audits: Sequence[Audit],
    duplicates: Sequence[Duplicate],
    found: Sequence[Finding],
) -> None:
    """Print the report."""
    from rich.table import Table  # noqa: PLC0415  # stays out of --help
    from rich.text import Text  # noqa: PLC0415  # stays out of --help

    from iqa_lightning.images.opening import DECISIONS  # noqa: PLC0415  # PIL

    columns = ["data set", "images", "missing", "unreadable", "contents", "parts", "checksums"]
    table = Table(title="On disk")
    for column in columns:
        table.add_column(column, overflow="fold")  # a long name goes on in the next line
    for audit in audits:
        table.add_row(
            Text(audit.name), *(cells(audit.facts) if audit.facts else ["-"] * (len(columns) - 1))
        )
    console.print(table)
    say = saying(console)
    for audit in audits:
        if audit.facts:
            say(f"{audit.name}: {line(audit.facts)}")
            for decision, images in audit.facts["decisions"].items():
                more = f" and {len(images) - NOTES} more" if len(images) > NOTES else ""
                listed = ", ".join(images[:NOTES])
                say(f"{audit.name}: {len(images)} {DECISIONS[decision]}: {listed}{more}")
    for pair in [pair for pair in duplicates if pair.severity == "note"][:NOTES]:
        say(f"note: one picture twice: {pair}; {pair.waived or 'in one part, so nothing leaks'}")
    twins = [finding for finding in found if finding.text.startswith("one picture twice")][NOTES:]
    for finding in found:
        if finding in twins:
            continue
        console.print(f"{finding.severity}: ", style=STYLES[finding.severity], end="")
        say(finding.text)
    if twins:
        say(f"and {len(twins)} pictures more that are there twice, in the report")
    say(
        ", ".join(
            f"{sum(finding.severity == level for finding in found)} {level}s" for level in STYLES
        )
    )


def saying(console: Console) -> Callable[[str], None]:
    """Prints a line as it stands, whatever a file in it is called."""
    from iqa_lightning.report.text.escaping import terminal_text  # noqa: PLC0415  # pandas

    def say(line: str) -> None:
        console.print(terminal_text(line), markup=False, highlight=False, soft_wrap=True)

    return say


def cells(facts: dict[str, Any]) -> list[str]:
    """The table row of a data set."""
    counts = [facts["images"], len(facts["missing"]), len(facts["unreadable"]), facts["references"]]
    return [*map(str, counts), "/".join(map(str, facts["parts"].values())), str(facts["manifest"])]


def line(facts: dict[str, Any]) -> str:
    """Sizes, scores and direction of a data set."""
    sizes = [" x ".join(map(str, facts[key])) for key in ("smallest", "largest") if key in facts]
    (low, high), (lowest, highest) = facts["mos"], facts["native_range"]
    scores = f"MOS {low:.4g} to {high:.4g}, of {lowest:g} to {highest:g}, {facts['direction']}"
    return f"{' to '.join(dict.fromkeys(sizes)) or 'nothing readable'} (height x width); {scores}"


if __name__ == "__main__":
    run_command(main, "check")
