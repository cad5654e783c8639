"""The views in wandb ask for what a run really logs: compared with the file of an offline run."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.published import read_published
from iqa_lightning.report.numbers.results import Results, collect
from iqa_lightning.report.numbers.verdicts import Summary, summarise
from iqa_lightning.report.wandb_views import push, views
from tests.continual.test_loggers import Tracked
from tests.test_reproduce import HEADER, ORDER, write_run
from tests.walks import IN_BATCH, stream_of_folders, walk


def summary_of(results: Results, tmp: Path) -> Summary:
    (tmp / "published.csv").write_text(f"{HEADER}\n")
    return summarise(results, read_published(tmp / "published.csv"))


@pytest.fixture(scope="module")
def tracked(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """A run with a gate, two tasks of one epoch, tracked offline."""
    words = [
        "method=tsn_iqa",
        "schedule.finetune.epochs=1",
        "schedule.warmup.epochs=0",
        "logger=wandb",
    ]
    words += ["trainer.log_every_n_steps=1", IN_BATCH]
    return Tracked(
        walk(tmp_path_factory.mktemp("tracked"), *words, *stream_of_folders(folders), draw=True)
    )


@pytest.fixture(scope="module")
def built(tracked: Tracked, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The workspace and the report of that run."""
    results = collect([RunFolder(tracked.folder)], 20)
    summary = summary_of(results, tmp_path_factory.mktemp("table"))
    return views("someone", "iqa_lightning", "tiny", "custom", results, summary)


def keys_of(panels: list[Any]) -> Iterator[str]:
    """Every key that panels ask a run for."""
    for panel in panels:
        yield from getattr(panel, "media_keys", None) or []
        yield from [panel.table_name] if hasattr(panel, "table_name") else []
        for name in [panel.x, *panel.y] if hasattr(panel, "y") else []:
            yield getattr(name, "name", name)


@pytest.mark.slow
def test_all_that_is_asked_for_is_logged_and_all_that_is_logged_by_task_is_shown(
    tracked: Tracked, built: tuple[Any, Any]
) -> None:
    logged = {key for row in tracked.history() for key in row}
    media = {key.rsplit("/", 1)[0] for key in logged if key.endswith(("/path", "/filenames"))}
    asked = set(keys_of([panel for section in built[0].sections for panel in section.panels])) - {
        "Step"
    }
    assert asked - logged - media == set()
    by_task = {key for key in logged if key.startswith("task/") and "/weight/" not in key}
    assert by_task - asked == set()
    assert {key for key in media if "_map/" in key} - asked == set()
    assert {"task/t", "epoch", "train/loss", "val/srcc/a", "task/gate/regret/b"} <= asked


@pytest.mark.slow
def test_runs_are_those_of_the_experiment_grouped_by_what_they_logged(
    tracked: Tracked, built: tuple[Any, Any]
) -> None:
    sent = json.loads(built[0]._to_model().model_dump_json(by_alias=True, exclude_none=True))[
        "spec"
    ]["section"]
    (runs,) = sent["runSets"]
    for key in runs["grouping"]:
        first, value, name = (key["section"] + "." + key["name"]).split(".")[1:]
        assert (key["section"], value) == ("config", "value")
        assert name in tracked.config()[first]
    assert [key["name"] for key in runs["grouping"]] == [
        "run.value.method",
        "run.value.order",
        "run.value.split",
    ]
    (group,) = runs["filters"]["filters"]
    assert group["key"] == {"section": "run", "name": "group"}
    curves = [
        p
        for part in sent["panelBankConfig"]["sections"]
        for p in part["panels"]
        if "Line" in p["viewType"]
    ]
    assert {panel["config"]["xAxis"] for panel in curves} == {"task/t", "epoch", "_step"}
    assert tracked.found["run"][0].run_group in tracked.folder.parts


@pytest.mark.slow
def test_the_report_holds_the_table_and_the_same_panels(built: tuple[Any, Any]) -> None:
    workspace, report = built
    titles = [block.text for block in report.blocks if type(block).__name__ == "H2"]
    sections = [section.name for section in workspace.sections]
    assert titles == ["Table", *sections, "Differences between methods"]
    grids = [block for block in report.blocks if type(block).__name__ == "PanelGrid"]
    assert [len(grid.panels) for grid in grids] == [
        len(section.panels) for section in workspace.sections
    ]
    text = next(block.text for block in report.blocks if type(block).__name__ == "MarkdownBlock")
    assert re.search(r"\| tsn_iqa \| gated \| \w* ?\| 1 \|", text)


def test_synthetic_targets_are_called_so(tmp_path: Path) -> None:
    results = collect([write_run(tmp_path, "sh_cl", ORDER)], 20)
    _, report = views("someone", "project", "tiny", "demo", results, summary_of(results, tmp_path))
    assert any("Synthetic targets" in str(block) for block in report.blocks[:3])


@pytest.mark.parametrize("target", ["someone", "someone/", "/project", "a/b/c"])
def test_a_wrong_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match=r"give <entity>/<project>"):
        push(target, "tiny", "demo", None, None)  # type: ignore[arg-type]


def test_nobody_logged_in_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "stdin", None)  # nobody to ask
    results = collect([write_run(tmp_path, "sh_cl", ORDER)], 20)
    with pytest.raises(ValueError, match=r"not logged in to wandb .*`wandb login`"):
        push("someone/project", "tiny", "demo", results, summary_of(results, tmp_path))
