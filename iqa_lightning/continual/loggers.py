"""Loggers of a run and what they get after each task. Records are on disk first: nothing here may
stop a run.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any, ParamSpec
from uuid import uuid4

import pandas as pd
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from iqa_lightning.metrics.matrices import Derived
from iqa_lightning.records import write_bytes

P = ParamSpec("P")


Draw = Callable[..., bytes]
"""Matrices by readout, a title and `synthetic` to a PNG picture, as `report.figures.heat_maps`."""


def warn_on_failure(action: Callable[P, None]) -> Callable[P, None]:
    """The same action, whose failure is a warning: tracking must not cost a training."""

    def attempt(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            action(*args, **kwargs)
        except Exception as error:  # whatever a tracking service may raise
            warnings.warn(
                f"tracking failed and goes on without this entry: {error}",
                RuntimeWarning,
                stacklevel=2,
            )

    return attempt


class TolerantWandbLogger(WandbLogger):
    """Lightning's wandb logger that loses an entry rather than the run when wandb fails."""

    @override
    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        warn_on_failure(super().log_metrics)(*args, **kwargs)

    @override
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        warn_on_failure(super().log_hyperparams)(*args, **kwargs)

    @override
    def log_table(self, *args: Any, **kwargs: Any) -> None:
        warn_on_failure(super().log_table)(*args, **kwargs)

    @override
    def log_image(self, *args: Any, **kwargs: Any) -> None:
        warn_on_failure(super().log_image)(*args, **kwargs)

    @override
    def finalize(self, status: str) -> None:
        warn_on_failure(super().finalize)(status)


def make_loggers(
    folder: Path,
    name: str,
    group: str,
    wandb: bool = True,
    csv: bool = True,
    offline: bool = True,
    project: str = "iqa_lightning",
    entity: str | None = None,
) -> list[Logger]:
    """The loggers of a run, which write below its folder.

    The id of the wandb run is kept in the folder, so that a resumed run goes on in the same wandb
    run. Where wandb is missing or cannot start, a warning says so and the run goes on without it.
    """
    loggers: list[Logger] = []
    if csv:
        part = sum(
            1 for _ in folder.glob("csv/part_*")
        )  # a resumed run must not delete what was logged before
        loggers.append(CSVLogger(str(folder), name="csv", version=f"part_{part}"))
    if wandb:
        loggers += wandb_logger(
            folder, name=name, group=group, offline=offline, project=project, entity=entity
        )
    return loggers


def wandb_logger(folder: Path, **options: Any) -> list[Logger]:
    """The wandb logger, started; none where it fails."""
    try:
        import wandb  # noqa: PLC0415  # a run without wandb must not need it

        identifier = folder / "wandb_id"
        if not identifier.is_file():
            write_bytes(identifier, uuid4().hex[:8].encode())
        settings = wandb.Settings(silent=True)
        run_id = identifier.read_text()
        logger = TolerantWandbLogger(
            save_dir=folder, id=run_id, resume="allow", settings=settings, **options
        )
        _ = logger.experiment  # starts it, on rank zero only
    except Exception as error:  # an import error, no disk, no service, a wrong key
        warnings.warn(
            f"no wandb in this run ({error}); records and CSV are not touched by that", stacklevel=2
        )
        return []
    return [logger]


@rank_zero_only
def log_identity(loggers: Sequence[Logger], identity: dict[str, Any]) -> None:
    """Store what the run is."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_hyperparams({"run": identity})


@warn_on_failure
def track_by_task(logger: WandbLogger, measures: Iterable[str]) -> None:
    """Let measures have the task as x-axis, each by its full name.

    `task/*` would not do: Lightning has defined `*`, and wandb takes either of two patterns that
    match, at random.
    """
    for name in measures:
        logger.experiment.define_metric(name, step_metric="task/t")


def log_matrices(
    loggers: Sequence[Logger],
    t: int,
    task: str,
    derived: Derived,
    step: int,
    draw: Draw | None = None,
    health: Mapping[str, float] | None = None,
) -> None:
    """Give every logger the measures after task t, and wandb each matrix as a table and as a
    picture.

    `health` is what the method says of itself.
    """
    measures: dict[str, float] = {"task/t": t}
    measures |= {f"task/{name}": value for name, value in (health or {}).items() if isfinite(value)}
    for readout, values in derived["readouts"].items():
        measures |= {
            f"task/{name}/{readout}": value for name, value in values.items() if isfinite(value)
        }
        row = derived["srcc"][readout].loc[task]
        measures |= {
            f"task/srcc/{readout}/{name}": value for name, value in row.dropna().to_dict().items()
        }
    scalars = {name: table for name, table in derived["audits"].items() if name != "confusion"}
    for name, table in scalars.items():
        for dataset, cells in (
            table[table["after"] == task]
            .set_index("dataset")
            .drop(columns=["after", "n"])
            .iterrows()
        ):
            measures |= {
                f"task/{name}/{key}/{dataset}": value
                for key, value in cells.dropna().to_dict().items()
            }
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            track_by_task(logger, measures.keys() - {"task/t"})
        logger.log_metrics(measures, step=step)
        if isinstance(logger, WandbLogger):
            log_pictures(logger, f"after_{t}_{task}", derived, step, draw)
            if "confusion" in derived["audits"]:
                confusion = derived["audits"]["confusion"]
                log_confusion(
                    logger, f"after_{t}_{task}", confusion[confusion["after"] == task], step
                )


@warn_on_failure
def log_pictures(
    logger: WandbLogger, after: str, derived: Derived, step: int, draw: Draw | None
) -> None:
    """Each matrix so far as a table `<matrix>/<readout>/<after>` and as an image
    `<matrix>_map/<readout>/<after>`.
    """
    for kind in ("srcc", "stability"):
        for readout, matrix in derived[kind].items():
            if matrix.isna().all(axis=None):  # no task has been left behind yet
                continue
            table = matrix.reset_index()
            rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
            logger.log_table(
                f"{kind}/{readout}/{after}", columns=list(table.columns), data=rows, step=step
            )
            if draw:
                picture = Image.open(BytesIO(draw({readout: matrix}, kind)))
                logger.log_image(f"{kind}_map/{readout}/{after}", [picture], step=step)


@warn_on_failure
def log_confusion(logger: WandbLogger, after: str, table: pd.DataFrame, step: int) -> None:
    """What was taken for what, as wandb's own charts `confusion/<kind>/<dataset>/<after>`."""
    import wandb  # noqa: PLC0415  # a run without wandb must not need it

    fields = {"Actual": "actual", "Predicted": "predicted", "nPredictions": "n"}
    for (kind, dataset), rows in table.groupby(["kind", "dataset"], sort=False):
        data = wandb.Table(dataframe=rows[list(fields.values())].reset_index(drop=True))
        chart = wandb.plot_table(
            "wandb/confusion_matrix/v1", data, fields, {"title": f"{kind} of {dataset}"}
        )
        logger.experiment.log(
            {f"confusion/{kind}/{dataset}/{after}": chart, "trainer/global_step": step}
        )
