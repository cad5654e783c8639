"""Evaluation of a whole stream by TSN-IQA, against the naive protocol of `measuring/naive.py`: passes, time, scores.

ResNet-18 from a random start, four tasks, 128x128 images made on the fly, one core. Both make the same scores: every
readout of every image of all sets after each task. The official code scores the seen sets only; the row `seen sets
only` takes that from the naive side. `python experiments/benchmarks/evaluation.py`
"""

from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from measuring.naive import READOUTS, Naive
from measuring.noise import noise_stream
from measuring.sides import HEADER, compared, show, slope

from iqa_lightning.continual.callback import ContinualLearning
from iqa_lightning.continual.predict import evaluation_mode
from iqa_lightning.data.base import evaluation
from iqa_lightning.data.stream import Phase, TaskStream
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.gating import KMeansGate
from iqa_lightning.records import RunFolder

REPEATS, TASKS, IMAGES, SIDE = 3, 4, 20, 128


class Learnt:
    """A stream, and a method that is set to be after task t: norms and heads of noise, gates fitted."""

    def __init__(self, backbone: str, tasks: int, images: int, side: int) -> None:
        torch.manual_seed(0)
        self.stream: TaskStream = noise_stream([images] * tasks, side, [Phase("finetune", 1, 8)])
        self.stream.setup()
        gate = partial(KMeansGate, clusters=4, restarts=1)
        names = [task.name for task in self.stream.tasks]
        self.method = TSNIQA(backbone=Backbone(backbone), tasks=names, optimizer=torch.optim.Adam, gate=gate)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        self.trainer = pl.Trainer(accelerator="cpu", devices=1, enable_checkpointing=False, **quiet)  # type: ignore[arg-type]
        self.method.trainer, self.stream.trainer = self.trainer, self.trainer
        self.trainer.datamodule = self.stream  # type: ignore[attr-defined]

    def learn(self, walk: ContinualLearning, t: int) -> None:
        """What a task leaves behind."""
        task = self.stream.tasks[t - 1]
        with evaluation_mode(self.method):
            self.method.on_task_start(task, walk.training_images(self.trainer, self.method, task))
        generator = torch.Generator().manual_seed(t)
        for parameter in [*self.method.norms.parameters(t), self.method.heads.weight[t - 1]]:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))

    def reset(self) -> None:
        """Before the first task."""
        self.method.task.fill_(0)
        for t in range(1, len(self.stream.tasks) + 1):
            self.method.norms.copy(0, t)

    def parts(self) -> list[tuple[str, str, int, list[torch.Tensor]]]:
        """All evaluation images, by data set and part."""
        with evaluation():
            found = [
                (name, part, owner, self.stream.data[name].part(part))
                for name, owner in self.stream.owner.items()
                for part in ("val", "test")
            ]
            return [(n, p, o, [data[i]["image"] for i in range(len(data))]) for n, p, o, data in found]


def ours(case: Learnt) -> tuple[list[float], list[int], dict[str, pd.DataFrame]]:
    """Processor seconds and passes of each evaluation of the walk, and what it recorded."""
    seconds, passes = [], []
    with TemporaryDirectory() as folder:
        walk = ContinualLearning(RunFolder(folder), {})
        case.reset()
        for t in range(len(case.stream.tasks) + 1):
            case.learn(walk, t) if t else None
            before, start = case.method.images_forwarded, process_time()
            walk.evaluate(case.trainer, case.method, t, case.stream.tasks[t - 1].name if t else "start")
            seconds.append(process_time() - start)
            passes.append(case.method.images_forwarded - before)
        return seconds, passes, walk.records.predictions()


def naive(case: Learnt) -> tuple[list[float], list[float], list[int], dict[Any, list[float]]]:
    """Processor seconds of each stage, those of the sets seen by then, passes, and scores."""
    seconds, seen, passes, found = [], [], [], {}
    with TemporaryDirectory() as folder:
        walk = ContinualLearning(RunFolder(folder), {})
        case.reset()
        for t in range(len(case.stream.tasks) + 1):
            case.learn(walk, t) if t else None
            protocol, total, of_seen = Naive(case.method, Path(folder)), 0.0, 0.0
            with evaluation_mode(case.method), torch.no_grad():
                for readout in READOUTS:
                    for name, part, owner, images in case.parts():
                        start = process_time()
                        found[t, readout, name, part] = [protocol.score(image, readout, t, owner) for image in images]
                        total += process_time() - start
                        of_seen += process_time() - start if owner <= t else 0.0
            seconds.append(total)
            seen.append(of_seen)
            passes.append(protocol.passes)
    return seconds, seen, passes, found


def difference(records: dict[str, pd.DataFrame], found: dict[Any, list[float]]) -> float:
    """Largest difference of a score; both must lack the same."""
    frames, largest = list(records.values()), 0.0
    for (t, readout, name, part), scores in found.items():
        frame = frames[t]
        one = frame[(frame["dataset"] == name) & (frame["split"] == part)][readout].to_numpy()
        assert (np.isnan(one) == np.isnan(scores)).all(), (t, readout, name)
        largest = max(largest, float(np.nan_to_num(np.abs(one - np.array(scores))).max()))
    return largest


def growth() -> list[list[str]]:
    """Passes of one evaluation, and of the whole stream, by the number of tasks; a small network."""
    rows, counts, last, whole = [], [2, 4, 8], [], []
    naive_last = []
    for tasks in counts:
        case = Learnt("test_resnet", tasks, 20, 32)
        passes = ours(case)[1]
        last.append(passes[-1] / 6)
        whole.append(sum(passes) / 6)
        assert sum(passes) == 6 * tasks * (tasks + 1), "T + 1 passes over each evaluation image"
        naive_last.append(tasks * (3 + tasks))  # latest, oracle, a head each and the gate, over T sets
    for what, values in (("after the last task", last), ("whole stream", whole), ("naive, after the last", naive_last)):
        cells = f"{values[0]:g} {values[1]:g} {values[2]:g}"
        rows.append([f"slope over tasks (2, 4, 8), {what}", "", "", f"{slope(counts, values):.2f}", cells, "", ""])
    return rows


def main() -> None:
    """Measure, print, write results/evaluation.csv."""
    torch.set_num_threads(1)
    case = Learnt("resnet18", TASKS, IMAGES, SIDE)
    ours_seconds, naive_seconds, seen_seconds = [], [], []
    for _ in range(REPEATS):
        seconds, passes, records = ours(case)
        apart, seen, naive_passes, found = naive(case)
        ours_seconds.append(sum(seconds))
        naive_seconds.append(sum(apart))
        seen_seconds.append(sum(seen))
    largest = difference(records, found)
    assert largest < 1e-5, f"scores differ by {largest}"
    rows = [HEADER, compared("the same records, ours / naive", ours_seconds, naive_seconds, 0.2)]
    rows.append(compared("ours / naive, seen sets only", ours_seconds, seen_seconds))
    share = sum(passes) / sum(naive_passes)
    rows.append(["image passes", str(sum(passes)), str(sum(naive_passes)), f"{share:.3f}", "", "", ""])
    rows.append(["largest difference of a score", "", "", f"{largest:.1e}", "", "<= 1e-05", "yes"])
    print(f"medians: {median(ours_seconds):.1f} s and {median(naive_seconds):.1f} s")
    show("evaluation", [*rows, *growth()])


if __name__ == "__main__":
    main()
