"""What a run will take before it is begun: images counted, bytes summed, rates measured on this
machine.

Pictures are read as far as their headers. A rate is that of a few training steps and evaluations on
random images of the run's own sizes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.images.decoding import ImageReader, resized_sizes
from iqa_lightning.images.transforms import View, evaluation_size
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.stream.pairs import InBatchPairs, ListedPairs, PairCollate, Pairs
from iqa_lightning.stream.schedule import Phase, Position, Task
from iqa_lightning.stream.stream import TaskStream

SAMPLED = 3
"""Images of each data set that are decoded to learn how long that takes."""


@dataclass(frozen=True)
class Counts:
    """What a run will look at, in images.

    Args:
        images: of all data sets.
        trained: shown to training, over all epochs, the replay memory included, by what the phase
            trains.
        scored: passes of evaluation, validation and gates, if nothing were kept between them.
        pixels: mean of an image in evaluation.
        cache_bytes: of the decoded images.
        decoding: seconds that decoding all of them takes on one core.
    """

    images: int
    trained: Mapping[str, int]
    scored: int
    pixels: int
    cache_bytes: int
    decoding: float


@dataclass(frozen=True)
class Rates:
    """What was measured on this machine.

    Args:
        device: its name.
        trained: images a second, by what the phase trains.
        scored: images a second in evaluation.
        activations: bytes that an image keeps for the backward pass.
        peak: bytes of the device at most, where it counts them.
    """

    device: str
    trained: Mapping[str, float]
    scored: float
    activations: int
    peak: int | None


def count_images(stream: TaskStream) -> Counts:
    """Count what the walk looks at, from tables and headers; a few images are decoded."""
    stream.prepare_data()
    data = {id(one): one for one in stream.data.values()}.values()
    sizes, nbytes, decoding = {}, 0, 0.0
    for one in data:
        decoding += len(one.samples) * decoding_time(one)
        shown = headers(one, one.view.resize)
        nbytes += int(3 * shown.prod(axis=1).sum())
        other = one.view.evaluation_resize
        if other is not None and other != one.view.resize:
            shown = headers(one, other)
            nbytes += int(3 * shown.prod(axis=1).sum())
        sizes[one.name] = shown
    trained: dict[str, int] = {}
    held = {n: sum(map(len, one.parts[1:])) for n, one in stream.data.items()}
    scored = sum(held.values())
    for task in stream.tasks:
        for phase in stream.phases_of(task):
            shown_once = epoch_images(stream, task, phase)
            trained[phase.trains] = trained.get(phase.trains, 0) + phase.epochs * shown_once
            val = sum(len(stream.data[name].parts.val) for name in stream.validation_sets(task))
            scored += phase.epochs * val
        scored += sum(held.values())
        scored += sum(len(stream.data[name].parts.train) for name in task.datasets)  # its gate
    areas = [
        np.prod(evaluation_size(int(h), int(w), one.view))
        for one in data
        for h, w in sizes[one.name]
    ]
    images = sum(map(len, sizes.values()))
    return Counts(images, trained, scored, int(np.mean(areas)), nbytes, decoding)


def decoding_time(data: IQADataModule) -> float:
    """Seconds that an image takes, of a few."""
    start, rows = perf_counter(), range(min(SAMPLED, len(data.samples)))
    for row in rows:
        data.load_image(row)
    return (perf_counter() - start) / len(rows)


def headers(data: IQADataModule, resize: int) -> np.ndarray[Any, Any]:
    """Height and width of each image after the resize, (images, 2)."""
    reader = ImageReader(data.name, "", len(data.samples), data.image_size, data.load_image)
    return resized_sizes(reader, resize)


def epoch_images(stream: TaskStream, task: Task, phase: Phase) -> int:
    """Images that an epoch of a phase shows; listed pairs count as drawn ones."""
    if phase.trains == "nothing":
        return 0
    learnt = stream.training_images.learnt(task.t, len(stream.tasks))
    names = [name for t in learnt for name in stream.tasks[t - 1].datasets]
    sizes = [len(stream.data[name].parts.train) for name in names]
    options: dict[str, int] = {"count": 20_000} if isinstance(stream.pairs, ListedPairs) else {}
    draw = stream.pairs.draw(sizes, names, stream.seed, phase.batch_size, **options)
    batches = draw(np.random.default_rng(0))
    shown = sum(batch.size for batch in batches)
    earlier = stream.training_images.replayed(task.t) if phase.trains == "all" else range(0)
    memory = stream.training_images.replay_memory
    if memory and earlier:
        shown += round(len(batches) * len(earlier) * memory.share(len(earlier)) * phase.batch_size)
    return shown


def random_batch(pairs: Pairs, view: View, images: int, seed: int = 0) -> Batch:
    """A batch of random images as a stream would make it, on the processor."""
    generator = torch.Generator().manual_seed(seed)
    windows = (view.train_windows,) if view.evaluation == "windows" else ()
    shape = (*windows, 3, view.crop, view.crop)
    items = [
        {
            "image": torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
            "mos": torch.tensor(float(i)),
            "mos_std": torch.tensor(1.0 + i / images),
            "index": i,
            "dataset_index": 0,
            "task": 1,
            "distortion": "white noise",
            "scene": "animal",
        }
        for i in range(images)
    ]
    drawn = InBatchPairs() if isinstance(pairs, ListedPairs) else pairs
    return PairCollate(drawn)(items)


def moved(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device."""
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


class Bench:
    """A method on a device, outside of a trainer: its steps and its scores.

    Args:
        method: what is measured.
        device: where.
    """

    def __init__(self, method: ContinualMethod, device: torch.device) -> None:
        self.method, self.device = method.to(device).train(), device
        bare: Any = method  # there is no trainer to log to
        bare.log = bare.log_dict = lambda *_, **__: None
        self.optimizer = method.configure_optimizers()
        bare.optimizers = lambda **_: self.optimizer

    def begin(self, trains: str, t: int = 1, images: Sequence[Batch] | None = None) -> None:
        """Stand in the first epoch of a phase of task t; with images, after the hooks of its start
        and of the starts of those before.
        """
        tasks = [Task(k, name, (name,)) for k, name in enumerate(self.method.tasks[:t], start=1)]
        self.method.task.fill_(t)
        if images is not None:
            self.method.eval()
            for task in tasks:
                self.method.on_task_start(task, images)
            self.method.train()
        self.optimizer = self.method.configure_optimizers()
        phase = Phase("measured", 1, 2, trains)
        full = 0 if trains == "all" else -1
        self.method.on_phase_start(Position(tasks[-1], phase, 0, full, False, False))

    def step(self, batch: Batch) -> float:
        """One step of the optimiser; its loss."""
        self.optimizer.zero_grad()
        loss = self.method.training_step(batch, 0)
        if loss.requires_grad:
            torch.autograd.backward(loss)
            self.optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def scores(self, batch: Batch) -> Mapping[str, Tensor]:
        """What the method records of images."""
        self.method.eval()
        owner = torch.ones(len(batch["image"]), dtype=torch.long, device=self.device)
        try:
            return self.method.predict_step(batch | {"owner_task": owner}).columns
        finally:
            self.method.train()

    def wait(self) -> None:
        """Let the device finish."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure(
    method: ContinualMethod,
    pairs: Pairs,
    view: View,
    trains: Iterator[str] | tuple[str, ...],
    pixels: int,
    images: int = 8,
) -> Rates:
    """Time a few steps of each kind of phase, and an evaluation.

    Args:
        method: whose steps.
        pairs: how a batch is paired.
        view: the size of the images.
        trains: the kinds of phases.
        pixels: of an image in evaluation.
        images: of a measured batch; rates of a full one are taken to be the same.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench, rates = Bench(method, device), {}
    batch = moved(random_batch(pairs, view, images), device)
    kept = 0
    for kind in trains:
        bench.begin(kind)
        kept = max(kept, activations(lambda: bench.step(batch)))
        rates[kind] = images / timed(lambda: bench.step(batch), bench.wait)
    side = max(32, round(pixels**0.5))
    windows = (view.windows,) if view.evaluation == "windows" else ()
    side = view.crop if windows else side
    shown = torch.randint(0, 256, (1, *windows, 3, side, side), dtype=torch.uint8)
    whole = {k: v[:1] if isinstance(v, Tensor) else v for k, v in batch.items()}
    whole["image"] = shown.to(device)
    scored = 1 / timed(lambda: bench.scores(whole), bench.wait)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Rates(name, rates, scored, kept // images, peak)


def timed(run: Callable[[], Any], wait: Callable[[], None], repeats: int = 2) -> float:
    """Seconds of the fastest run, after one that does not count."""
    run()
    wait()
    times = []
    for _ in range(repeats):
        start = perf_counter()
        run()
        wait()
        times.append(perf_counter() - start)
    return min(times)


def activations(run: Callable[[], Any]) -> int:
    """Bytes that are kept for the backward pass, each storage once."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(storages.values())


def lines(counts: Counts, rates: Rates, method: ContinualMethod, stream: TaskStream) -> list[str]:
    """The forecast in words."""
    weights = sum(value.nbytes for value in method.state_dict().values())
    trainable = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    batch = max(phase.batch_size for phase in stream.phases)
    largest = max((p.batch_size for p in stream.phases if p.trains == "all"), default=batch)
    seconds = {kind: n / rates.trained[kind] for kind, n in counts.trained.items() if n}
    scoring = counts.scored / rates.scored
    memory = weights + 3 * trainable + largest * rates.activations
    disk = weights * (len(stream.tasks) + 2) + 2 * trainable
    shown = ", ".join(f"{n:,} ({kind})" for kind, n in counts.trained.items() if n)
    speed = ", ".join(f"{rate:.3g} ({kind})" for kind, rate in rates.trained.items())
    total = sum(seconds.values()) + scoring
    return [
        f"images      {counts.images:,}, shown to training {shown}, scored {counts.scored:,}",
        f"disk        {size(counts.cache_bytes)} cache of decoded images, once for all runs, and "
        f"{size(disk)} a run",
        f"memory      {size(memory)}: weights {size(weights)}, gradients and optimiser "
        f"{size(3 * trainable)}, {size(largest * rates.activations)} of a batch of {largest}"
        + ("" if rates.peak is None else f"; measured at most {size(rates.peak)}"),
        f"rate        {speed} images a second in training, {rates.scored:.3g} in evaluation, "
        f"measured on one {rates.device}",
        f"time        {clock(total)} on one {rates.device}: training "
        f"{clock(sum(seconds.values()))}, "
        f"evaluation {clock(scoring)} at most; decoding once about {clock(counts.decoding)} on one "
        "core",
    ]


def size(nbytes: float) -> str:
    """Bytes for people."""
    for unit, power in (("GB", 1e9), ("MB", 1e6)):
        if nbytes >= power:
            return f"{nbytes / power:.3g} {unit}"
    return f"{nbytes / 1e3:.3g} kB"


def clock(seconds: float) -> str:
    """Seconds for people: `2 h 40`, `3 min`."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d}"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
