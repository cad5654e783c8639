"""The views of a table in wandb, built by code: a workspace and a report, runs grouped by method,
order and split.

Curves have the task as x-axis, heat maps and tables are those that each run logged; the report also
holds the table itself, since wandb knows no intervals. Without a network: `wandb leet <run
folder>/wandb` shows a run in the terminal.
"""

import warnings
from typing import TYPE_CHECKING, Any

from iqa_lightning.report.numbers.results import Results
from iqa_lightning.report.numbers.verdicts import Summary
from iqa_lightning.report.text.paper import (
    LEGEND,
    SYNTHETIC,
    grid,
    main_table,
    notes,
    tests_part,
)
from iqa_lightning.report.text.terminal import MEASURES

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import Report
    from wandb_workspaces.workspaces.interface import Workspace


TASK = "task/t"


GROUPS = (
    "run.method",
    "run.order",
    "run.split",
)  # of the config, see `continual.tracking.log_identity`


def place_of(target: str) -> tuple[str, str]:
    """Entity and project.

    Raises:
        ValueError: `target` is not `<entity>/<project>`.
    """
    entity, _, project = target.partition("/")
    if not entity or not project or "/" in project:
        raise ValueError(
            f"push={target}: give <entity>/<project>, the place in wandb in which the runs are"
        )
    return entity, project


def push(target: str, name: str, experiment: str, results: Results, summary: Summary) -> str:
    """Save the views of a table in wandb and say where they are.

    Args:
        target: `<entity>/<project>` in which the runs are.
        name: the table.
        experiment: the wandb group of its runs.
        results: the tables of its runs.
        summary: what `verdicts.summarise` made of them.

    Raises:
        ValueError: `target` is not of that form, nobody is logged in, or wandb refuses.
    """
    import wandb  # noqa: PLC0415  # not for those who only want the page

    entity, project = place_of(target)
    try:
        wandb.Api()
    except Exception as error:
        raise ValueError(
            f"push={target}: not logged in to wandb ({error}); run `wandb login` or set "
            "WANDB_API_KEY, "
            "or leave push out: the HTML page needs no account"
        ) from error
    workspace, report = views(entity, project, name, experiment, results, summary)
    try:
        workspace.save()  # type: ignore[no-untyped-call]
        report.save()
        return f"workspace: {workspace.url}\nreport: {report.url}"
    except Exception as error:
        raise ValueError(
            f"push={target}: wandb did not take the views ({error}); are the runs synced there?"
        ) from error


def views(
    entity: str, project: str, name: str, experiment: str, results: Results, summary: Summary
) -> "tuple[Workspace, Report]":
    """The workspace and the report of a table; nothing is sent."""
    ws, wr, expr = libraries()
    sections = panels(results)
    runs = expr.And(expr.Metric("Group") == experiment)
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=f"{name}: task by task",
        sections=[
            ws.Section(name=title, panels=parts, is_open=i < 2)
            for i, (title, parts) in enumerate(sections.items())
        ],
        settings=ws.WorkspaceSettings(x_axis=TASK, max_runs=50),
        runset_settings=ws.RunsetSettings(
            groupby=[expr.Config(group) for group in GROUPS], filters=runs
        ),
    )
    groups = [f"config.{group}" for group in GROUPS]
    runset = {
        "entity": entity,
        "project": project,
        "name": name,
        "groupby": groups,
        "filters": runs,
    }
    synthetic = [wr.CalloutBlock(SYNTHETIC)] if summary.lines["synthetic"].any() else []
    blocks = [wr.TableOfContents(), *synthetic, wr.H2("Table"), wr.P(LEGEND)]
    blocks += [wr.MarkdownBlock("\n\n".join([grid(*main_table(summary)), *notes(summary)]))]
    for title, parts in sections.items():
        blocks += [wr.H2(title), wr.PanelGrid(runsets=[wr.Runset(**runset)], panels=parts)]
    blocks += [
        wr.H2("Differences between methods"),
        wr.MarkdownBlock("\n\n".join(tests_part(summary.tests))),
    ]
    report = wr.Report(entity=entity, project=project, title=name, blocks=blocks, width="fluid")
    return workspace, report


def panels(results: Results) -> dict[str, list[Any]]:
    """The panels by section; every key in them is one that the runs of the results log after a
    task.
    """
    wr = libraries()[1]
    there = results.measures[results.measures["value"].notna()]
    names = list(dict.fromkeys(results.cells["dataset"]))
    states = states_of(results)
    last = list(dict.fromkeys(after[-1] for after in states))
    found: dict[str, list[Any]] = {}
    for readout, rows in there.groupby("readout", sort=False):
        measured = [key for key in MEASURES if key in set(rows["measure"])]
        found[f"Measures, {readout}"] = [
            line(MEASURES[key], f"task/{key}/{readout}") for key in measured
        ]
        found[f"SRCC, {readout}"] = [
            line(f"SRCC on {name}", f"task/srcc/{readout}/{name}") for name in names
        ]
        maps = {
            "srcc": list(dict.fromkeys(state for after in states for state in after)),
            "stability": list(dict.fromkeys(state for after in states for state in after[1:])),
        }
        found[f"Heat maps, {readout}"] = [
            wr.MediaBrowser(
                title=kind,
                media_keys=[f"{kind}_map/{readout}/{state}" for state in kept],
                gallery_axis="step",
            )
            for kind, kept in maps.items()
            if kept
        ]
        found[f"Tables, {readout}"] = [
            wr.WeavePanelSummaryTable(table_name=f"srcc/{readout}/{state}") for state in last
        ]
    if "gated" in set(there["readout"]):
        found["Gate"] = [
            line(f"{label}, {name}", f"task/gate/{key}/{name}")
            for key, label in (
                ("regret", "regret (lower is better)"),
                ("regret_uniform", "regret of equal weights"),
                ("own", "weight of its own head"),
                ("accuracy", "share of images whose own head weighs most"),
                ("entropy", "entropy of the weights"),
            )
            for name in names
        ]
    found["Training"] = [
        line("loss", "train/loss", "Step"),
        *(line(name, f"val/srcc/{name}", "epoch") for name in names),
    ]
    return found


def states_of(results: Results) -> list[list[str]]:
    """For each order the names under which its tasks are logged: `after_1_live`, ..."""
    return [
        [f"after_{t}_{task}" for t, task in enumerate(order.split(">"), 1)]
        for order in dict.fromkeys(results.runs["order"])
    ]


def line(title: str, key: str, x: str = TASK) -> Any:
    """A curve (`LinePlot`) of each run, or the mean of each group with its range."""
    wr = libraries()[1]
    return wr.LinePlot(title=title, x=x, y=[key], title_x="tasks learnt" if x == TASK else x)


def libraries() -> tuple[Any, Any, Any]:
    """The modules `workspaces`, `reports.v2` and `expr` of wandb-workspaces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # wandb-workspaces 0.4 with pydantic 2
        import wandb_workspaces.reports.v2 as wr  # noqa: PLC0415  # seconds, and only for those who push
        import wandb_workspaces.workspaces as ws  # noqa: PLC0415
        from wandb_workspaces import expr  # noqa: PLC0415
    return ws, wr, expr
