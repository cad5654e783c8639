"""Loggers of a run and what they get after each task. Records are on disk first: nothing here may
stop a run.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.client import HTTPException
from io import BytesIO
from math import isfinite
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ParamSpec
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import uuid4

import pandas as pd
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from typing_extensions import override

from iqa_lightning.files import write_bytes
from iqa_lightning.metrics.matrices import Derived

P = ParamSpec("P")


FLUSH = 0.5
"""Seconds after which a row is in the file of an offline run."""


TIMEOUT, REACH = 7, 3
"""Seconds that the start of an online run, and the first answer of its server, may take."""


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
    """Lightning's wandb logger that loses an entry rather than the run when wandb fails.

    Rows are numbered by this class, so that a resumed run, which is another process and offline
    another file, goes on where the last one was.

    Args:
        counter: the file that holds the number of the last row.
        options: see `WandbLogger`.
    """

    def __init__(self, counter: Path, **options: Any) -> None:
        super().__init__(**options)
        self.counter = counter
        self.row = read_row(counter)
        self.size = 0

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        warn_on_failure(self.log_row)(metrics, step)

    def log_row(self, metrics: Mapping[str, Any], step: int | None) -> None:
        """Log a row, and note its number; a kill of this process does not undo that."""
        self.row += 1
        self.counter.write_text(str(self.row))
        self.size = size_of(self.file)
        at = {} if step is None else {"trainer/global_step": step}
        self.experiment.log({**metrics, **at}, step=self.row, commit=True)

    @rank_zero_only
    def flush(self) -> None:
        """Wait until the last row is in the file of an offline run, or for as long as wandb has to
        start.
        """
        if not self._offline:
            return
        end = monotonic() + TIMEOUT
        while size_of(self.file) <= self.size and monotonic() < end:
            sleep(FLUSH / 5)
        sleep(2 * FLUSH)  # what grew may have been a row before the last one

    @property
    def file(self) -> Path:
        """Where an offline run is kept."""
        return Path(self.experiment.settings.sync_file)

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


class TrackioLogger(Logger):
    """Trackio's rows through Lightning's interface; it loses an entry rather than the run.

    Args:
        run: what `trackio.init` gave; null on all ranks but the first.
    """

    name, version = "trackio", 0

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        warn_on_failure(self.run.log)(dict(metrics), step=step)

    @override
    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        warn_on_failure(self.run.config.update)(dict(params))

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        warn_on_failure(self.run.finish)()


def size_of(file: Path) -> int:
    """Bytes of a file; 0 where there is none yet."""
    return file.stat().st_size if file.is_file() else 0


def read_row(counter: Path) -> int:
    """The number of the last row that was logged; -1 where there is none."""
    try:
        return int(counter.read_text())
    except (OSError, ValueError):
        return -1


def make_loggers(
    folder: Path,
    name: str,
    group: str,
    wandb: bool = True,
    csv: bool = True,
    trackio: bool = False,
    offline: bool = True,
    project: str = "iqa_lightning",
    entity: str | None = None,
) -> list[Logger]:
    """The loggers of a run, which write below its folder.

    The id of the wandb run is kept in the folder, so that a resumed run goes on in the same wandb
    run. Where a tracker is missing or cannot start, a warning says so and the run goes on without.
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
    if trackio:
        loggers += trackio_logger(project, name, group)
    return loggers


def trackio_logger(project: str, name: str, group: str) -> list[Logger]:
    """The trackio logger, started; none where it fails. A resumed run goes on in its own."""
    if getattr(rank_zero_only, "rank", 0):
        return [TrackioLogger(None)]
    try:
        import trackio  # noqa: PLC0415  # an extra

        return [
            TrackioLogger(
                trackio.init(project, name=name, group=group, resume="allow", embed=False)
            )
        ]
    except Exception as error:  # an import error, no disk, a wrong version
        warnings.warn(
            f"no trackio in this run ({error}; pip install 'iqa-lightning[trackio]'); records and "
            "CSV are not touched by that",
            stacklevel=2,
        )
    return []


def wandb_logger(folder: Path, offline: bool, **options: Any) -> list[Logger]:
    """The wandb logger, started; offline where it cannot be online, none where it fails.

    `WANDB_MODE` (online, offline, disabled) decides where it is set.
    """
    mode = os.environ.get("WANDB_MODE", "")
    if mode == "disabled":
        return []
    offline = {"online": False, "offline": True, "dryrun": True}.get(mode, offline)
    try:
        import wandb  # noqa: PLC0415  # a run without wandb must not need it

        identifier = folder / "wandb_id"
        if not identifier.is_file() or not identifier.read_bytes().strip():
            write_bytes(identifier, uuid4().hex[:8].encode())
        given = {"save_dir": folder, "id": identifier.read_text(), "resume": "allow", **options}
        limits: dict[str, Any] = {"silent": True, "init_timeout": TIMEOUT, "login_timeout": TIMEOUT}
        if "x_transaction_log_flush_interval" in wandb.Settings.model_fields:
            limits["x_transaction_log_flush_interval"] = FLUSH
        settings = wandb.Settings(**limits)
        for away in [False, True] if not offline else [True]:
            try:
                return [
                    start_wandb(folder / "wandb_step", offline=away, settings=settings, **given)
                ]
            except Exception as error:  # no key, no network, no service
                if away:
                    raise
                warn_on_failure(wandb.teardown)()  # whose service would hold on to the run
                warnings.warn(f"wandb is offline in this run ({error})", stacklevel=2)
    except Exception as error:  # an import error, no disk, a wrong version
        warnings.warn(
            f"no wandb in this run ({error}); records and CSV are not touched by that", stacklevel=2
        )
    return []


def start_wandb(counter: Path, offline: bool, **options: Any) -> Logger:
    """A wandb logger whose run has begun, on rank zero only.

    Raises:
        ValueError: It would be online, and there is no key.
        OSError: The server does not answer.
    """
    import wandb  # noqa: PLC0415  # a run without wandb must not need it

    if not offline and not wandb.api.api_key:
        raise ValueError("no API key: wandb login, or WANDB_API_KEY")
    if not offline:
        reach(str(wandb.setup().settings.base_url))
    os.environ["WANDB_MODE"] = "offline" if offline else "online"
    logger = TolerantWandbLogger(counter, offline=offline, **options)
    for left in reversed(range(TIMEOUT)):
        try:
            _ = logger.experiment
            break
        except Exception as error:
            if "in use" not in str(error) or not left:
                raise
            sleep(1)  # the service of a process that was killed a moment ago lets go of the run
    return logger


def reach(server: str) -> None:
    """Ask a server for anything, which tells within seconds whether there is a network.

    Raises:
        OSError: It does not answer.
    """
    try:
        with urlopen(server, timeout=REACH):  # noqa: S310  # the user's own
            return
    except HTTPError:  # an answer
        return
    except (OSError, ValueError, HTTPException) as error:
        raise OSError(f"{server} does not answer: {error}") from error


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
        if isinstance(logger, TolerantWandbLogger):
            track_by_task(logger, measures.keys() - {"task/t"})
        logger.log_metrics(measures, step=step)
        if isinstance(logger, WandbLogger):
            log_pictures(logger, f"after_{t}_{task}", derived, step, draw)
            if "confusion" in derived["audits"]:
                confusion = derived["audits"]["confusion"]
                log_confusion(
                    logger, f"after_{t}_{task}", confusion[confusion["after"] == task], step
                )
        if isinstance(logger, TolerantWandbLogger):
            logger.flush()  # what a task gave outlives a kill in the next


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
        row: dict[str, Any] = {f"confusion/{kind}/{dataset}/{after}": chart}
        logger.log_metrics(row, step=step)
