"""Evaluation of a whole stream by TSN-IQA, against the naive protocol of `measuring/naive.py`:
passes, time, scores.

ResNet-18 from a random start, four tasks, JPEG images of 128x128 pixels, one core. Three
comparisons. `The same records`: both make every readout of every image of all sets after each task
(and before the first). `Seen sets only`: the naive side leaves out what the official code does not
score, ours scores it all the same. `With every epoch`: to that comes the evaluation during
training: the official code scores validation and test images of all sets seen so far after each of
its 12 epochs a task, ours the validation images of the current task. One epoch of each task is
measured and counted 12 times. Small images gain from going through the network together, which the
naive protocol never does; a last row has images of 384x384, where only the number of passes counts.
Our side includes decoding the images once. `python experiments/benchmarks/evaluation.py`
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from measuring.naive import READOUTS, Naive
from measuring.noise import noise_files
from measuring.sides import HEADER, compared, show, slope

from iqa_lightning.continual.callback import ContinualLearning
from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.datasets.base import unlocked_test_set
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.images.transforms import View
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.gating import KMeansGate
from iqa_lightning.records import RunFolder
from iqa_lightning.stream.schedule import Phase
from iqa_lightning.stream.stream import TaskStream

REPEATS, TASKS, EPOCHS = 3, 4, 12
SMALL, LARGE = (
    (80, 128),
    (10, 384),
)  # images a set (three in ten are scored) and their sides in pixels


@dataclass
class Cost:
    """Processor seconds of one way through the stream, and passes of one image through the network."""

    seconds: float = 0.0
    seen: float = 0.0
    epochs: float = 0.0
    passes: list[int] = field(default_factory=list)


class Learnt:
    """A stream, and a method that is set to be after task t: norms and heads of noise, gates
    fitted.
    """

    def __init__(self, folder: Path, backbone: str, tasks: int, images: int, side: int) -> None:
        torch.manual_seed(0)
        folders = {
            f"t{t}": noise_files(folder / f"t{t}", images, side, t) for t in range(1, tasks + 1)
        }
        sets = {name: partial(CSVData, path) for name, path in folders.items()}
        self.stream = TaskStream(sets, [Phase("finetune", 1, 8)], view=View(0, side), cache="ram")
        start = process_time()
        self.stream.setup()
        self.decoding = process_time() - start
        gate = partial(KMeansGate, clusters=4, restarts=1)
        self.method = TSNIQA(
            backbone=Backbone(backbone), tasks=list(sets), optimizer=torch.optim.Adam, gate=gate
        )
        self.method.log_dict = lambda *_, **__: None  # type: ignore[method-assign]  # no loop runs that could log
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        self.trainer = pl.Trainer(accelerator="cpu", devices=1, enable_checkpointing=False, **quiet)  # type: ignore[arg-type]
        self.method.trainer, self.stream.trainer = self.trainer, self.trainer
        self.trainer.datamodule = self.stream  # type: ignore[attr-defined]

    def learn(self, walk: ContinualLearning, t: int) -> None:
        """What a task leaves behind."""
        task = self.stream.tasks[t - 1]
        with evaluation_mode(self.method):
            self.method.on_task_start(task, walk.images_of_task(self.trainer, self.method, task))
        generator = torch.Generator().manual_seed(t)
        for parameter in [*self.method.norms.parameters(t), self.method.heads.weight[t - 1]]:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))

    def reset(self) -> None:
        """Before the first task."""
        self.method.task.fill_(0)
        for t in range(1, len(self.stream.tasks) + 1):
            self.method.norms.copy(0, t)
            self.method.heads.weight[t - 1].data.fill_(0.1)

    def files(self) -> list[tuple[str, str, int, list[Path]]]:
        """All evaluation images, by data set and part."""
        with unlocked_test_set():
            return [
                (
                    name,
                    part,
                    owner,
                    [self.stream.data[name].root / image for image in data.part(part).images],
                )
                for name, owner in self.stream.task_of_dataset.items()
                for data in [self.stream.data[name]]
                for part in ("val", "test")
            ]


def ours(case: Learnt) -> tuple[Cost, dict[str, pd.DataFrame]]:
    """What the evaluations of the walk cost, and what they recorded."""
    cost = Cost(case.decoding)
    with TemporaryDirectory() as folder:
        walk = ContinualLearning(RunFolder(folder), {})
        case.reset()
        for t in range(len(case.stream.tasks) + 1):
            if t:
                case.learn(walk, t)
                start = process_time()
                walk.validate(case.trainer, case.method, case.stream.at(t - 1))
                cost.epochs += EPOCHS * (process_time() - start)
            before, start = case.method.images_forwarded, process_time()
            walk.evaluate(
                case.trainer, case.method, t, case.stream.tasks[t - 1].name if t else "start"
            )
            cost.seconds += process_time() - start
            cost.passes.append(case.method.images_forwarded - before)
        return cost, walk.records.predictions()


def naive(case: Learnt) -> tuple[Cost, dict[Any, list[float]]]:
    """What the naive protocol costs, of all sets and of those seen by then, and its scores."""
    cost, found = Cost(), {}
    with TemporaryDirectory() as folder, torch.no_grad():
        walk = ContinualLearning(RunFolder(folder), {})
        case.reset()
        for t in range(len(case.stream.tasks) + 1):
            case.learn(walk, t) if t else None
            protocol = Naive(case.method, Path(folder))
            with evaluation_mode(case.method):
                for name, part, owner, files in case.files():
                    for readout in READOUTS:
                        start = process_time()
                        found[t, readout, name, part] = [
                            protocol.score(file, readout, t, owner) for file in files
                        ]
                        cost.seconds += (spent := process_time() - start)
                        cost.seen += spent if owner <= t else 0.0
                cost.passes.append(protocol.passes)
                for _, _, owner, files in case.files():
                    start = process_time()
                    _ = [protocol.in_training(file, t) for file in files if owner <= t]
                    cost.epochs += EPOCHS * (process_time() - start)
    return cost, found


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
    rows, counts, last, whole, naive_last = [], [2, 4, 8], [], [], []
    for tasks in counts:
        with TemporaryDirectory() as folder:
            case = Learnt(Path(folder), "test_resnet", tasks, 20, 32)
            passes = ours(case)[0].passes
        last.append(passes[-1] / 6)
        whole.append(sum(passes) / 6)
        assert sum(passes) == 6 * tasks * (tasks + 1), "T + 1 passes over each evaluation image"
        naive_last.append(
            tasks * (3 + tasks)
        )  # latest, oracle, a head each and the gate, over T sets
    for what, values in (
        ("after the last task", last),
        ("whole stream", whole),
        ("naive, after the last", naive_last),
    ):
        cells = [f"{slope(counts, values):.2f}", " ".join(f"{value:g}" for value in values)]
        limit = (
            ["<= 1.05", "yes" if slope(counts, values) <= 1.05 else "no"]
            if what == "after the last task"
            else ["", ""]
        )
        rows.append([f"passes of a set by tasks (2, 4, 8): slope; {what}", "", "", *cells, *limit])
    return rows


def compare(images: int, side: int, repeats: int) -> tuple[list[tuple[Cost, Cost]], float]:
    """Both sides in turns, and the largest difference of a score."""
    sides: list[tuple[Cost, Cost]] = []
    with TemporaryDirectory() as folder:
        case = Learnt(Path(folder), "resnet18", TASKS, images, side)
        for _ in range(repeats):
            (mine, records), (other, found) = ours(case), naive(case)
            sides.append((mine, other))
    largest = difference(records, found)
    assert largest < 1e-5, f"scores differ by {largest}"
    return sides, largest


def main() -> None:
    """Measure, print, write results/evaluation.csv."""
    torch.set_num_threads(1)
    sides, largest = compare(*SMALL, REPEATS)
    one = [mine.seconds for mine, _ in sides]
    rows = [
        HEADER,
        compared("the same records: ours / naive", one, [other.seconds for _, other in sides], 0.2),
    ]
    rows.append(compared("seen sets only: ours / naive", one, [other.seen for _, other in sides]))
    both = (
        [mine.seconds + mine.epochs for mine, _ in sides],
        [other.seen + other.epochs for _, other in sides],
    )
    rows.append(compared("with every epoch: ours / naive", *both, 0.2))
    passes = [sum(side.passes) for side in sides[-1]]
    rows.append(
        [
            "image passes, the same records",
            *map(str, passes),
            f"{passes[0] / passes[1]:.3f}",
            "",
            "",
            "",
        ]
    )
    rows.append(["largest difference of a score", "", "", f"{largest:.1e}", "", "<= 1e-05", "yes"])
    ((mine, other),), _ = compare(*LARGE, 1)
    rows.append(
        compared("384x384, the same records: ours / naive", [mine.seconds], [other.seconds])
    )
    show("evaluation", [*rows, *growth()])


if __name__ == "__main__":
    main()
