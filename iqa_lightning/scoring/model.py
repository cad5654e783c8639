"""A finished model, whether it comes from a run folder or from a bundle."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.images.transforms import View
from iqa_lightning.metrics.scale import Scale
from iqa_lightning.models.outside import Outside

BUNDLE = ".iqa"


class Reading(NamedTuple):
    """What a model says of a batch.

    `score`: of each head, higher is better; `gate`: their weights, where there is a gate;
    `feature`: what tells whether an image is like those that were learnt.
    """

    score: Float[Tensor, "batch heads"]
    gate: Float[Tensor, "batch heads"] | None
    feature: Float[Tensor, "batch width"]


@dataclass
class Model:
    """What scoring needs of a finished run.

    Args:
        heads: names of the tasks, or `single`.
        view: how images are shown.
        scale: from scores of heads to one scale, with intervals.
        outside: how far an image lies from what was learnt; none in runs of old.
        features: of validation images, by data set, as `outside` compares them.
        card: what it is; JSON.
        network: all its weights.
        read: what it says of a batch of images, in evaluation mode and without gradients.
        max_pixels: of a batch.
    """

    heads: list[str]
    view: View
    scale: Scale
    outside: Outside | None
    features: dict[str, Tensor]
    card: dict[str, Any]
    network: nn.Module
    read: Callable[[Tensor], Reading]
    max_pixels: int

    def to(self, device: torch.device) -> "Model":
        """The same on a device."""
        self.network.to(device)
        if self.outside is not None:
            self.outside.to(device)
        return self

    def frame(self, reading: Reading) -> pd.DataFrame:
        """Columns as the records of a run have them, float32."""
        kinds = {"score": reading.score}
        if reading.gate is not None and self.heads != ["single"]:
            kinds["gate"] = reading.gate
        columns = {
            column_of(kind, head): values[:, k].float().cpu().numpy()
            for kind, values in kinds.items()
            for k, head in enumerate(self.heads)
        }
        return pd.DataFrame(columns)


def column_of(kind: str, head: str) -> str:
    """The name of a column of the records."""
    return head if head == "single" else f"{kind}/{head}"


def load_model(path: str | Path, device: str = "auto") -> Model:
    """The model of a run folder or of a bundle.

    Raises:
        ValueError: there is none, it is damaged, or there is no such device.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        from iqa_lightning.scoring.run_model import model_of_run  # noqa: PLC0415  # Lightning, Hydra

        return model_of_run(place).to(find_device(device))
    if not place.is_file():
        raise ValueError(f"run={path} does not exist: name a run folder, or a bundle (*{BUNDLE})")
    from iqa_lightning.scoring.bundle import read_bundle  # noqa: PLC0415

    return read_bundle(place).to(find_device(device))


def find_device(name: str) -> torch.device:
    """`auto`: the first GPU, else the processor.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={name}: {reason}; take auto, cpu, cuda or cuda:1") from error
