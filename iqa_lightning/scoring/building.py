"""Backbones and gates from their descriptions: a class of a short list, and plain values."""

import warnings
from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from typing import Any

from torch import nn

ENCODERS = {
    "Backbone": "backbones",
    "BilinearBackbone": "bilinear",
    "DBCNN": "bilinear",
    "CLIP": "clip",
    "AnySizeCLIP": "clip_any_size",
    "Diffusion": "diffusion",
    "QualityEncoder": "quality_encoder",
    "SCNN": "scnn",
    "Trunk": "trunk",
}
"""Classes of networks, and the module of `models/` where each is."""


GATES = ("ExpertGate", "KMeansGate", "LDAGate", "MeanFeatureGate", "UniformGate")


EMPTY = {
    "AnySizeCLIP": ("pretrained",),
    "Backbone": ("weights",),
    "BilinearBackbone": ("weights",),
    "CLIP": ("pretrained", "image_weights"),
    "DBCNN": ("weights", "scnn_weights"),
    "Diffusion": ("folder",),
    "QualityEncoder": ("weights",),
    "SCNN": ("weights",),
}
"""Arguments that name files of weights: what is built begins at random."""


FORBIDDEN = ("pretrained", "checkpoint_", "weights", "hub", "url", "cache", "file", "path", "hf_")
"""Parts of names of options that let a library read files or fetch them."""


def named(
    description: Mapping[str, Any], key: str, known: Collection[str]
) -> tuple[str, dict[str, Any]]:
    """What a description names under `key`, and its other entries.

    Raises:
        ValueError: it names none of the known ones.
    """
    options = dict(description)
    name = options.pop(key, None)
    if name not in known:
        raise ValueError(f"{key}={name!r} is not one of {', '.join(known)}")
    return name, options


def build_encoder(description: Mapping[str, Any]) -> Any:
    """A network for images, with random weights.

    Raises:
        ValueError: a class or an option that no version of this package writes.
    """
    name, options = named(description, "class", ENCODERS)
    if name == "Trunk":
        options["encoders"] = [build_encoder(one) for one in options["encoders"]]
    elif bad := next((word for word in words_of(options) if is_forbidden(*word)), None):
        raise ValueError(
            f"{': '.join(bad)} is no option of a bundle: it could make a library fetch a file"
        )
    options |= dict.fromkeys(EMPTY.get(name, ()))
    kind = getattr(import_module(f"iqa_lightning.models.{ENCODERS[name]}"), name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of random weights, which do not stay
        return kind(**options)


def is_forbidden(key: str, value: str) -> bool:
    """Whether an option could make a library read a file or fetch one."""
    return any(part in key.lower() for part in FORBIDDEN) or any(sign in value for sign in ":/\\")


def words_of(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All keys of nested mappings and lists, each with its value where that is a text."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from words_of(value, str(name))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from words_of(value, key)
    yield key, node if isinstance(node, str) else ""


def build_gate(description: Mapping[str, Any], encoder: Any, tasks: int) -> Any:
    """A gate that reads an encoder.

    Raises:
        ValueError: a class that no version of this package writes.
    """
    from iqa_lightning.models import gating  # noqa: PLC0415  # scikit-learn

    name, options = named(description, "class", GATES)
    return getattr(gating, name)(encoder, tasks, **options)


TEXT = (
    *("transformer", "token_embedding", "ln_final", "text_projection", "positional_embedding"),
    "text",
)
"""Parts of an open_clip model that read text."""


def drop_text_encoders(network: nn.Module) -> None:
    """Leave a CLIP its image encoder alone: the features of its texts are kept instead."""
    for module in list(network.modules()):
        if type(module).__name__ in ("CLIP", "AnySizeCLIP") and hasattr(module, "text_parameters"):
            for name in TEXT:
                if hasattr(module.network, name):
                    setattr(module.network, name, None)
            module._trainable = []  # type: ignore[assignment]  # a plain list of CLIP


def describe_encoder(config: Mapping[str, Any]) -> dict[str, Any]:
    """The description of what a config builds.

    Raises:
        ValueError: a class that is not on the list.
    """
    options = {key: value for key, value in config.items() if key not in ("_target_", "_convert_")}
    name = str(config["_target_"]).rpartition(".")[2]
    if name not in ENCODERS:
        raise ValueError(f"{config['_target_']} is no network that a bundle can hold")
    for key in EMPTY.get(name, ()):
        options.pop(key, None)
    return {"class": name, **options}


def describe_gate(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The description of the gate that a config builds; none where there is none.

    Raises:
        ValueError: a class that is not on the list.
    """
    if config is None:
        return None
    name = str(config["_target_"]).rpartition(".")[2]
    if name not in GATES:
        raise ValueError(f"{config['_target_']} is no gate that a bundle can hold")
    options = {k: v for k, v in config.items() if k not in ("_target_", "_partial_", "_convert_")}
    return {"class": name, **options}
