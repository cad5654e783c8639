"""The model for other programs: pixels in, scores out, as ONNX or as `torch.export` writes it.

The input `image` is uint8, (batch, 3, height, width), as the Scorer shows it to the network: RGB,
after the resize of `view` (`scoring.images.shown`). Outputs: `score`, `low`, `high` on the scale
from 0 to 100, `gate` (batch, heads), `outside` (percentile), as the Scorer computes them.
"""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.files import write_bytes
from iqa_lightning.images.transforms import evaluation_size
from iqa_lightning.metrics.scale import Knots
from iqa_lightning.models.backbones import Images
from iqa_lightning.models.gating import KMeansGate, LDAGate
from iqa_lightning.scoring.bundle import KEY, reader_of_run
from iqa_lightning.scoring.model import Model
from iqa_lightning.scoring.reader import Reader

SIZE = (224, 288)
"""Height and width of the images that a graph is traced with, where any size will do."""


LEAST = (33, 65)
"""Least sides, in pixels, of images of any size: one more than what networks divide them by."""


INSTALL = "pip install 'iqa-lightning[export]'"


OUTPUTS = ("score", "low", "high", "gate", "outside")


Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class Deployed(nn.Module):
    """A reader with its scale, intervals and percentiles as one network.

    Args:
        model: what is deployed.
        reader: its network.
    """

    def __init__(self, model: Model, reader: Reader) -> None:
        super().__init__()
        self.reader, self.outside = copy.deepcopy(reader), copy.deepcopy(model.outside)
        fix_gate(self.reader)
        self.maps = nn.ModuleList(Line(knots) for knots in model.scale.common.values())
        self.radius: Tensor
        radius = torch.from_numpy(model.scale.radius_of(model.heads)).double()
        self.register_buffer("radius", radius)

    def forward(self, image: Images) -> Outputs:
        """`OUTPUTS` of images that `scoring.images.shown` made."""
        reading = self.reader(image)
        scores, gate = reading.score.double(), reading.gate
        weights = torch.full_like(scores, 1 / scores.shape[1]) if gate is None else gate.double()
        mapped = torch.stack([line(scores[:, k]) for k, line in enumerate(self.maps)], dim=1)
        score = (weights * mapped).sum(dim=1).clamp(0.0, 100.0)
        radius = self.radius[weights.argmax(dim=1)]
        low, high = (score - radius).clamp_min(0.0), (score + radius).clamp_max(100.0)
        near = torch.zeros_like(score) if self.outside is None else self.outside(reading.feature)
        return score, low, high, weights, near


def fix_gate(reader: Reader) -> None:
    """Let a gate compute nothing that depends on its state alone: a graph has no place for that."""
    gate = reader.gate
    if isinstance(gate, LDAGate):
        solved = gate.solve(len(reader.heads))
        gate.solve = lambda seen: solved  # type: ignore[method-assign]  # noqa: ARG005
    if isinstance(gate, KMeansGate):
        centroids = [
            [stage[task, :count] for task, count in enumerate(gate.counts.tolist())]
            for stage in gate.centroids
        ]

        def distance(stage: int, point: Tensor, task: int) -> Tensor:
            differences = point[:, None] - centroids[stage][task]
            found: Tensor = differences.square().sum(dim=2).amin(dim=1).sqrt()
            return found

        gate.distance = distance  # type: ignore[method-assign]


class Line(nn.Module):
    """`metrics.scale.Knots` as a sum of ramps, in float64."""

    def __init__(self, knots: Knots) -> None:
        super().__init__()
        x, y = torch.from_numpy(knots.x).double(), torch.from_numpy(knots.y).double()
        self.register_buffer("x", x)
        self.register_buffer("y", y)

    def forward(self, value: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The map of scores."""
        x, y = self.x, self.y
        assert isinstance(x, Tensor)
        assert isinstance(y, Tensor)
        widths, rises = x.diff(), y.diff()
        passed = ((value[:, None] - x[:-1]) / widths).clamp(0.0, 1.0)
        beyond = (value - x[0]).clamp_max(0.0) + (value - x[-1]).clamp_min(0.0)
        slope = (y[-1] - y[0]) / (x[-1] - x[0])
        found: Tensor = y[0] + (passed * rises).sum(dim=1) + slope * beyond
        return found


def write_deployed(run: Path, model: Model, path: Path, size: list[Any] | None) -> None:
    """Write `.onnx` or `.pt2`.

    Args:
        run: the run folder or bundle that the model came from.
        model: the model.
        path: the file.
        size: [height, width] of the images; null: any, or where the network or the view allows one
            only, that one.

    Raises:
        ValueError: the method or network cannot be exported, or a package is missing.
    """
    reader = model.network if isinstance(model.network, Reader) else reader_of_run(run, model)[1]
    network = Deployed(model, reader).eval().requires_grad_(False)
    shape, fixed = shown_shape(model, size)
    image = torch.randint(0, 256, shape, dtype=torch.uint8)
    content = {"card": model.card, "view": asdict(model.view), "heads": model.heads}
    metadata = json.dumps(content, ensure_ascii=False)
    write = write_onnx if path.suffix == ".onnx" else write_pt2
    with torch.no_grad(), hints_silenced():
        for least in (None,) if fixed else (*LEAST, None):
            try:
                write(network, image, path, metadata, dynamic_shapes(least))
            except ImportError as error:
                raise ValueError(f"{path.suffix} needs {error.name}: {INSTALL}") from error
            except Exception as error:  # exporters raise errors of many kinds
                if least is None:
                    raise ValueError(
                        f"{model.card.get('method')} cannot be written as {path.suffix} "
                        f"({' '.join(str(error).split())[:150]}): export a bundle (.iqa) instead"
                    ) from error
            else:
                if least is None and not fixed:
                    print(
                        f"note: this network takes images of {shape[-2]}x{shape[-1]} pixels alone"
                    )
                return


def shown_shape(model: Model, size: list[Any] | None) -> tuple[list[int], bool]:
    """Shape of an image to trace with, and whether no other size will do."""
    view = model.view
    if view.evaluation == "windows":
        return [1, view.windows, 3, view.crop, view.crop], True
    if size is not None:
        if (
            not isinstance(size, list)
            or len(size) != 2
            or not all(str(side).isdigit() for side in size)
        ):
            raise ValueError(f"size={size}: give [height,width] in pixels")
        return [1, 3, *evaluation_size(int(size[0]), int(size[1]), view)], True
    height, width = evaluation_size(*SIZE, view)
    return [1, 3, height, width], view.evaluation == "center"


Shapes = dict[str, dict[int, Any]] | None


def dynamic_shapes(least: int | None) -> Shapes:
    """Which sides may differ from call to call, and how long they must be; null: none may."""
    if least is None:
        return None
    sides = {2: "height", 3: "width"}
    return {"image": {axis: torch.export.Dim(name, min=least) for axis, name in sides.items()}}


def write_pt2(network: Deployed, image: Tensor, path: Path, metadata: str, shapes: Shapes) -> None:
    """Write what `torch.export.load` reads; the card lies in the extra file `iqa_lightning`."""
    program = torch.export.export(network, (image,), dynamic_shapes=shapes)
    part = path.with_name(f".{path.stem}.part.pt2")
    try:
        torch.export.save(program, part, extra_files={KEY: metadata})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_onnx(network: Deployed, image: Tensor, path: Path, metadata: str, shapes: Shapes) -> None:
    """Write one file of ONNX, the card in its metadata."""
    import onnx  # noqa: F401, PLC0415  # the extra `export`

    program = torch.onnx.export(
        network,
        (image,),
        input_names=["image"],
        output_names=list(OUTPUTS),
        dynamic_shapes=shapes,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, metadata
    write_bytes(path, model.SerializeToString())


@contextmanager
def hints_silenced() -> Iterator[None]:
    """Without what exporters say of themselves."""
    import logging  # noqa: PLC0415

    stage = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(stage)
