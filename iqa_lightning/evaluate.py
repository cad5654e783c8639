"""A run folder's predictions -> matrices, measures and figures; trains nothing and reads no image.

`iqa-lightning evaluate <folder>` (or `run=<folder>`) prints the matrices and writes everything
derived again, byte for byte what the training wrote. A folder that holds nothing but `predictions/`
is enough.
"""

from iqa_lightning import signals

if __name__ == "__main__":  # before anything that takes time
    signals.install()

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hydra

from iqa_lightning.runs.compose import CONF, check_kinds
from iqa_lightning.runs.folder import sole_owner
from iqa_lightning.runs.mistakes import run_command
from iqa_lightning.runs.start import one_line

if TYPE_CHECKING:
    from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="evaluate")
def main(cfg: "DictConfig") -> None:
    """Evaluate the run folder `cfg.run`.

    Raises:
        SystemExit: The folder is missing or what it holds is not a run; the message says which
            file.
    """
    with one_line():
        check_kinds("evaluate")
        if cfg.run is None:
            raise ValueError("which run folder? iqa-lightning evaluate <folder>")
        evaluate(str(cfg.run))


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
    derived, learnt = derive(predictions), learnt_sets(predictions)
    last = list(predictions.values())[-1]
    with sole_owner(folder.path):  # a training writes the same summary
        synthetic = bool(folder.read_summary().get("synthetic", False))
        folder.write_derived(derived)
        scale = fit_scale(last, learnt) if learnt else None
        if scale is not None:
            folder.write_scale(scale.tensors(), scale.metadata())
        folder.write_figure("srcc", matrix_figure(folder.path, "srcc", synthetic))
    print_run(derived, console, synthetic)
    if scale is not None:
        text = scale_text(scale_audit(last, scale, learnt))
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"written: {folder.path}", markup=False, highlight=False, soft_wrap=True)


def overrides(words: list[str]) -> list[str]:
    """`evaluate <folder>` as Hydra reads it; other words as they are."""
    quoted = (word.replace("'", r"\'") for word in words)
    alone = len(words) == 1 and "=" not in words[0] and not words[0].startswith("-")
    return [
        f"run='{text}'" if alone or Path(word).is_dir() else word
        for word, text in zip(words, quoted, strict=True)
    ]


if __name__ == "__main__":
    sys.argv[1:] = overrides(sys.argv[1:])
    run_command(main, "evaluate")
