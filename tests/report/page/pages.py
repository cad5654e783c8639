"""Runs with a gate, their matrices by scipy, and pages of a table."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.published import read_published
from iqa_lightning.report.numbers.results import read_results
from iqa_lightning.report.numbers.verdicts import summarise
from iqa_lightning.report.page.html import write_page

EVIL = '</script><img src=x onerror="boom()">&<b>'
METHODS = ("tsn_iqa", "sh_cl", "mh_cl")


def with_gate(folder: RunFolder) -> None:
    """Give a run an oracle and the weights of a gate: 0.7 to its own head, the rest to the others
    alike.
    """
    tasks = list(folder.predictions())
    for t, (task, frame) in enumerate(folder.predictions().items()):
        learnt = tasks[1 : t + 1]
        for head in learnt:
            share = 0.3 / max(len(learnt) - 1, 1)
            frame[f"gate/{head}"] = np.where(frame["dataset"] == head, 0.7, share)
        folder.write_predictions(t, task, frame.assign(oracle=frame["gated"] + 0.01 * frame["mos"]))


def naive(run: RunFolder, readout: str) -> tuple[np.ndarray, np.ndarray]:
    """SRCC and stability matrices by scipy, data sets in the order in which they are learnt."""
    frames = {task: frame[frame["split"] == "test"] for task, frame in run.predictions().items()}
    tasks = list(frames)
    srcc, stability = np.full((2, len(tasks), len(tasks) - 1), np.nan)
    for t, frame in enumerate(frames.values()):
        for d, name in enumerate(tasks[1:]):
            rows = frame[frame["dataset"] == name]
            srcc[t, d] = stats.spearmanr(rows[readout], rows["mos"]).statistic
            if t > d + 1:
                just = frames[name].loc[rows.index, readout]
                stability[t, d] = stats.spearmanr(rows[readout], just).statistic
    return srcc, stability


def write(home: Path, runs: list[RunFolder], config: dict[str, Any] | None = None) -> str:
    results = read_results(home / "results")
    summary = summarise(results, read_published(home / "published.csv"))
    return write_page(home, results, summary, [(run, config or {}) for run in runs])
