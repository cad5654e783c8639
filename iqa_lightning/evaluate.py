"""A run folder's predictions -> matrices, measures and figures; trains nothing and reads no image.

`python -m iqa_lightning.evaluate run=<folder>` prints the matrices and writes everything derived
again, byte for byte what the training wrote. A folder that holds nothing but `predictions/` is
enough.
"""

from typing import TYPE_CHECKING

import hydra

from iqa_lightning.runs.compose import CONF
from iqa_lightning.runs.mistakes import run_command

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(cfg: "DictConfig") -> None:
    """Evaluate the run folder `cfg.run`.

    Raises:
        SystemExit: The folder is missing or what it holds is not a run; the message says which
            file.
    """
    if cfg.run is None:
        raise SystemExit("which run folder? python -m iqa_lightning.evaluate run=<folder>")
    try:
        evaluate(str(cfg.run))
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


def evaluate(run: str) -> None:
    """Write everything derived from the predictions in the folder `run` again, and print it.

    Raises:
        ValueError: The folder is missing or what it holds is not a run.
    """
    # only here, so that --help does not wait for scipy and matplotlib
    from rich.console import Console  # noqa: PLC0415

    from iqa_lightning.metrics.matrices import derive  # noqa: PLC0415
    from iqa_lightning.metrics.scale import (  # noqa: PLC0415
        fit_scale,
        learnt_sets,
        scale_audit,
    )
    from iqa_lightning.records import RunFolder  # noqa: PLC0415
    from iqa_lightning.report.figures import matrix_figure  # noqa: PLC0415
    from iqa_lightning.report.text.terminal import print_run, scale_text  # noqa: PLC0415

    folder, console = RunFolder(run), Console()
    predictions = folder.predictions()
    derived = derive(predictions)
    synthetic = bool(folder.read_summary().get("synthetic", False))
    folder.write_derived(derived)
    print_run(derived, console, synthetic)
    if learnt := learnt_sets(predictions):
        last = list(predictions.values())[-1]
        scale = fit_scale(last, learnt)
        folder.write_scale(scale.tensors(), scale.metadata())
        text = scale_text(scale_audit(last, scale, learnt))
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    folder.write_figure("srcc", matrix_figure(folder.path, "srcc", synthetic))
    console.print(f"written: {folder.path}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(main, "evaluate")
