"""experiments/<table> -> missing runs -> table.md, table.tex, details.md, results/*.csv,
figures/*.png.

`python -m iqa_lightning.reproduce table=<name> jobs=2` trains what `runs.yaml` asks for and is not
finished, then writes the table from the records alone: ours beside the published numbers.
`dashboard=true` shows the results as a page (HTML), `diff <run> <run>` compares two runs, `gmad
<run>[@<task>] <run>[@<task>]` finds the images about which they disagree. No torch in this process.
"""

from iqa_lightning import signals

if __name__ == "__main__":  # before anything that takes time
    signals.install()

import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra

from iqa_lightning.configs import config_changes
from iqa_lightning.runs.compose import CONF, check_kinds, typed
from iqa_lightning.runs.folder import read_config
from iqa_lightning.runs.grid import (
    finished_runs,
    found_runs,
    joined,
    label,
    make,
    planned_runs,
    quoted,
    read_grid,
)
from iqa_lightning.runs.mistakes import run_command
from iqa_lightning.runs.start import check_ranges, check_writable, one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from iqa_lightning.records import RunFolder


SOURCES = ("runs", "records", "results")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="reproduce")
def main(cfg: "DictConfig") -> None:
    """Make a table, show one, or compare two runs.

    Raises:
        SystemExit: Something is wrong with the files of the table or with the runs, or a run
            failed.
    """
    with one_line():
        check_kinds("reproduce")
        check_ranges(cfg)
        for kind, number in (("diff", cfg.resamples), ("gmad", cfg.levels)):
            if cfg[kind] is not None:
                print(compare(kind, cfg[kind], number))
                return
        if cfg.dashboard:
            show(cfg)
            return
        failed = reproduce(cfg)
    if failed:
        raise SystemExit("\n".join(["runs that failed or are unfinished:", *failed]))


def reproduce(cfg: "DictConfig") -> list[str]:
    """Make the missing runs and write the table; one line for each run that failed.

    Raises:
        ValueError: naming the file of the table, or the run, that is wrong.
    """
    from iqa_lightning.report.details import collect_details, write_details  # noqa: PLC0415  # pandas, scipy
    from iqa_lightning.report.numbers.results import collect, write_results  # noqa: PLC0415
    from iqa_lightning.report.table_files import write_table  # noqa: PLC0415

    folder, output, source = (
        Path(cfg.experiments) / str(cfg.table),
        Path(cfg.output),
        str(cfg["from"]),
    )
    if source not in SOURCES:
        raise ValueError(f"from is {source!r}; it is one of {', '.join(SOURCES)}")
    grid = read_grid(folder / "runs.yaml")
    if source == "runs":
        check_writable(output, "output")
    runs, failed = planned_runs(grid, list(cfg.overrides)), []
    if source != "results":
        if source == "runs":
            finished = finished_runs(runs, output, grid["experiment"])
            failed = make(
                [run for run in runs if str(run) not in finished],
                cfg.jobs,
                output,
                grid["experiment"],
            )
        finished = finished_runs(runs, output, grid["experiment"])
        if not finished:
            raise ValueError(
                "\n".join([f"no run of {folder}/runs.yaml is finished under {output}", *failed])
            )
        folders = list(finished.values())
        write_results(folder / "results", collect(folders, cfg.resamples))
        write_details(
            folder / "results",
            collect_details(folders, list(map(independent, folders)), cfg.resamples),
        )
    named = ({"method": label(run), "order": ">".join(map(joined, run.order))} for run in runs)
    planned = [
        name | {"split": run.split, "seed": run.seed} for name, run in zip(named, runs, strict=True)
    ]
    print(write_table(folder, planned, cfg.figures, str(grid["chosen"])))
    return failed


def compare(kind: str, runs: Any, number: int) -> str:
    """What differs between two runs (`diff`), or the images about which two states of runs disagree
    (`gmad`), as text.

    `number` is that of resamples or of levels.

    Raises:
        ValueError: They are not two, or not runs that can be compared.
    """
    from iqa_lightning.report.numbers.difference import difference_text  # noqa: PLC0415  # pandas
    from iqa_lightning.report.numbers.gmad import gmad_text  # noqa: PLC0415

    if not isinstance(runs, Sequence) or isinstance(runs, str) or len(runs) != 2:
        raise ValueError(f"{kind}={runs}: give two run folders, as in `{kind} <run> <run>`")
    if kind == "gmad":
        return gmad_text(runs[0], runs[1], number)
    changes = config_changes(*(read_config(Path(run)) for run in runs))
    return difference_text(runs[0], runs[1], changes, number)


def independent(folder: "RunFolder") -> bool:
    """Whether no task of a run learns from another. Runs of before this was recorded tell by their
    config.
    """
    summary = folder.read_summary()
    method = read_config(folder.path).get("method") or {}
    return bool(summary.get("independent_tasks", method.get("init") == "pretrained"))


def show(cfg: "DictConfig") -> None:
    """Write `dashboard.html` beside a table; push its views to wandb where `push` says whereto.
    Nothing is trained.

    Stored results are shown; those of the finished runs where none are stored, or with
    `from=records`.

    Raises:
        ValueError: There are neither results nor finished runs, or wandb cannot be reached.
    """
    from iqa_lightning.report import wandb_views as dashboard  # noqa: PLC0415  # pandas
    from iqa_lightning.report.numbers import results as sweep  # noqa: PLC0415  # pandas
    from iqa_lightning.report.numbers import verdicts  # noqa: PLC0415
    from iqa_lightning.report.numbers.published import read_published  # noqa: PLC0415
    from iqa_lightning.report.page import html  # noqa: PLC0415  # pandas

    folder, output = Path(cfg.experiments) / str(cfg.table), Path(cfg.output)
    experiment = read_grid(folder / "runs.yaml")["experiment"]
    if cfg.push is not None:
        dashboard.place_of(str(cfg.push))  # before anything is written
    if any(word.startswith("images=") for word in typed()) and not (
        cfg.images is None or Path(cfg.images).is_dir()
    ):
        raise ValueError(
            f"images is {cfg.images}, which is no folder: say where the data sets lie, or null"
        )
    runs = [run for *_, run in found_runs(output, experiment)]
    results = sweep.results_of(folder / "results", runs, cfg.resamples, cfg["from"] == "records")
    summary = verdicts.summarise(results, read_published(folder / "published.csv"))
    print(
        html.write_page(
            folder, results, summary, [(run, read_config(run.path)) for run in runs], cfg.images
        )
    )
    if cfg.push is not None:
        print(dashboard.push(str(cfg.push), folder.resolve().name, experiment, results, summary))


def overrides(words: list[str]) -> list[str]:
    """`diff <run> <run>` and `gmad <run> <run>` as Hydra reads them; other words as they are."""
    if not words or words[0] not in ("diff", "gmad"):
        return words
    runs = list(
        takewhile(
            lambda word: not word.startswith("-") and "=" not in word.split("/")[0], words[1:]
        )
    )
    return [f"{words[0]}=[{','.join(quoted(run) for run in runs)}]", *words[1 + len(runs) :]]


if __name__ == "__main__":
    sys.argv[1:] = overrides(sys.argv[1:])
    run_command(main, "reproduce")
