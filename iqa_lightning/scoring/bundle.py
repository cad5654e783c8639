"""The model as one file: tensors by name and JSON, in the safetensors format; no code, no pickle.

`network/...` are the weights of a reader, `scale/...` the common scale and its intervals,
`outside/...` and `features/...` what new images are compared with. The metadata `iqa_lightning` is
JSON: how the reader is built, how images are shown, the card.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from iqa_lightning.files import write_bytes
from iqa_lightning.images.transforms import View
from iqa_lightning.metrics.scale import Scale
from iqa_lightning.models.outside import outside_of
from iqa_lightning.scoring.model import Model, Reading
from iqa_lightning.scoring.reader import Reader
from iqa_lightning.scoring.readers import build_reader

KEY, FORMAT = "iqa_lightning", 1


def write_bundle(path: Path, model: Model, description: dict[str, Any], reader: Reader) -> None:
    """Write a model as a bundle.

    Args:
        path: the file.
        model: of a run.
        description: of its reader.
        reader: with its weights.
    """
    scale = {
        name: torch.from_numpy(np.atleast_1d(values))
        for name, values in model.scale.tensors().items()
    }
    groups: dict[str, dict[str, Tensor]] = {
        "network": tensors_of(reader),
        "scale": scale,
        "outside": {} if model.outside is None else dict(model.outside.state_dict()),
        "features": model.features,
    }
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous().clone()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    content = {
        "format": FORMAT,
        "reader": description,
        # torch multiplies trainable matrices another way, to other last bits
        "trainable": [name for name, one in reader.named_parameters() if one.requires_grad],
        "view": asdict(model.view),
        "scale": model.scale.metadata(),
        "max_pixels": model.max_pixels,
        "card": model.card,
    }
    write_bytes(path, save(tensors, {KEY: json.dumps(content, ensure_ascii=False)}))


def tensors_of(reader: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name; those too that a state dict leaves out."""
    return dict(reader.named_buffers()) | dict(reader.state_dict())


def read_bundle(path: Path) -> Model:
    """The model of a bundle.

    Raises:
        ValueError: it is none, damaged, or of a later version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            content = json.loads((file.metadata() or {})[KEY])
        if content["format"] > FORMAT:
            raise ValueError("it is of a later version: pip install -U iqa-lightning")
        return model_of(content, tensors)
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} is no bundle of iqa-lightning, or damaged ({reason}): export it again"
        ) from error


def model_of(content: dict[str, Any], tensors: dict[str, Tensor]) -> Model:
    """The model that a bundle describes."""

    def group(name: str) -> dict[str, Tensor]:
        return {
            key.partition("/")[2]: value
            for key, value in tensors.items()
            if key.startswith(f"{name}/")
        }

    reader = build_reader(content["reader"])
    weights, own = group("network"), tensors_of(reader)
    if odd := sorted(own.keys() ^ weights.keys()):
        raise ValueError(f"{len(odd)} tensors do not fit, the first {odd[0]}")
    with torch.no_grad():
        for name, tensor in own.items():
            if tensor.shape != weights[name].shape:
                raise ValueError(f"{name} has another shape")
            tensor.copy_(weights[name])
    for name, parameter in reader.named_parameters():
        parameter.requires_grad_(name in set(content["trainable"]))
    stored = {name: value.numpy() for name, value in group("scale").items()}
    outside = {f"outside/{name}": value.numpy() for name, value in group("outside").items()}

    @torch.no_grad()
    def read(image: Tensor) -> Reading:
        reading: Reading = reader(image)
        return reading

    return Model(
        heads=list(reader.heads),
        view=View(**content["view"]),
        scale=Scale.from_tensors(stored, content["scale"]),
        outside=outside_of(outside),
        features=group("features"),
        card=content["card"],
        network=reader,
        read=read,
        max_pixels=int(content["max_pixels"]),
    )


def reader_of_run(run: Path, model: Model) -> tuple[dict[str, Any], Reader]:
    """The reader of a run's model and its description.

    Raises:
        ValueError: no reader computes what the method computes.
    """
    from iqa_lightning.runs.folder import read_config  # noqa: PLC0415
    from iqa_lightning.scoring.describe import reader_of  # noqa: PLC0415  # Lightning

    method: Any = model.network
    return reader_of(method, read_config(run), model.heads)


def bundle_of_run(run: Path, model: Model, path: Path) -> None:
    """Write the bundle of a finished run.

    Raises:
        ValueError: no reader computes what the method computes.
    """
    description, reader = reader_of_run(run, model)
    write_bundle(path, model, description, reader)
