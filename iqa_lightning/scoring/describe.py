"""From a method to the reader that computes what it computes: its description and its tensors."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.methods.dp_iqa import DPIQA, DPIQATeacher
from iqa_lightning.methods.finetune import MultiHead, SingleHead
from iqa_lightning.methods.grepq import GRepQ, GRepQZeroShot
from iqa_lightning.methods.grmp_iqa import GRMPIQA
from iqa_lightning.methods.liqe import LIQE, QUALITIES, prompts
from iqa_lightning.methods.lpf import LPF
from iqa_lightning.methods.metaiqa import MetaIQA
from iqa_lightning.methods.ridge import Ridge
from iqa_lightning.methods.tsn_iqa import TSNIQA, LoRA
from iqa_lightning.methods.tsn_ridge import TSNRidge
from iqa_lightning.methods.unique import UNIQUE
from iqa_lightning.models.bilinear import DBCNN
from iqa_lightning.models.clip_any_size import PROMPTS
from iqa_lightning.models.diffusion import Diffusion
from iqa_lightning.scoring.building import describe_encoder, describe_gate
from iqa_lightning.scoring.reader import Reader
from iqa_lightning.scoring.readers import build_reader

Parts = dict[str, nn.Module | Tensor]
"""What fills a reader, by the name of its module or parameter."""


def reader_of(
    method: ContinualMethod, config: Mapping[str, Any], heads: list[str]
) -> tuple[dict[str, Any], Reader]:
    """The description of a finished method's reader, and that reader with its weights.

    Raises:
        ValueError: no reader computes what this method computes.
    """
    common: dict[str, Any] = {
        "heads": heads,
        "backbone": encoder_of(method.backbone, config["backbone"], config["method"]),
        "gate": None,
    }
    parts: Parts = {"backbone": method.backbone}
    gate = getattr(method, "gate", None)
    if gate is not None and heads != ["single"]:
        common["gate"], parts["gate"] = describe_gate(config["method"]["gate"]), gate
    elif gate is not None and gate.features == "stages":
        common["watches"] = "statistics"
    kind = kind_of(type(method))
    if kind is None:
        raise ValueError(
            f"method {type(method).__name__} cannot be exported: no reader of iqa_lightning.scoring "
            "computes its scores without its code; score with its run folder instead"
        )
    own, more = DESCRIBED[kind](method, config)
    description = common | own
    reader = build_reader(description)
    fill(reader, parts | more)
    return description, reader


def kind_of(method: type[ContinualMethod]) -> type[ContinualMethod] | None:
    """The kind of method whose reader computes the scores of this one; none where it, or a class
    between the two, scores in a way of its own.
    """
    kind = next((kind for kind in DESCRIBED if issubclass(method, kind)), None)
    readable = [*DESCRIBED, MultiHead, TSNRidge]
    for name in ("all_heads", "feature", "head_scores", "score_feature"):
        known = [getattr(one, name, None) for one in readable]
        if getattr(method, name, None) not in known:
            return None
    return kind


def fill(reader: Reader, parts: Parts) -> None:
    """Give a reader its weights.

    Raises:
        ValueError: one is missing.
    """
    with torch.no_grad():
        for name, part in parts.items():
            own = getattr(reader, name)
            if isinstance(part, Tensor):
                own.copy_(part)
                continue
            trained = {key: one.requires_grad for key, one in part.named_parameters()}
            for key, parameter in own.named_parameters():
                parameter.requires_grad_(trained.get(key, False))
            given = dict(part.named_buffers()) | part.state_dict()
            for key, tensor in (dict(own.named_buffers()) | own.state_dict()).items():
                if key not in given or given[key].shape != tensor.shape:
                    raise ValueError(f"the method has no {name}.{key} that a bundle needs")
                tensor.copy_(given[key])


def encoder_of(
    backbone: nn.Module, config: Mapping[str, Any], method: Mapping[str, Any]
) -> dict[str, Any]:
    """The description of a backbone as a method has it."""
    if type(backbone).__name__ == "Trunk":
        encoders = [config] if method.get("high") is None else [method["high"], config]
        return {
            "class": "Trunk",
            "encoders": [describe_encoder(one) for one in encoders],
            "frozen": True,
            "taps": method.get("taps", "last"),
            "deviation": method.get("deviation", False),
        }
    found = describe_encoder(config)
    if isinstance(backbone, Diffusion):
        networks = {"vae": backbone.vae, "unet": backbone.network}
        found["sizes"] = {
            name: {k: v for k, v in dict(network.config).items() if not k.startswith("_")}
            for name, network in networks.items()
        }
        found["bank"] = len(backbone.text_adapter.bank)
    return found


Described = tuple[dict[str, Any], Parts]


def cosine(method: Any, config: Mapping[str, Any]) -> Described:
    """One head or several on one network."""
    own: dict[str, Any] = {"reader": "cosine", "normalize": method.heads.normalize}
    parts: Parts = {"linear": method.heads}
    if isinstance(method, MultiHead) and method.gate is not None:
        given = config["method"].get("gate_encoder")
        if given is not None:
            own["gate_encoder"] = describe_encoder(given)
        elif isinstance(method.backbone, DBCNN):
            own["gate_encoder"] = {"class": "SCNN"}
        else:
            own["gate_encoder"] = describe_encoder(config["backbone"])
        parts["gate_encoder"] = method.gate_encoder
    return own, parts


def norms(method: Any, _: Mapping[str, Any]) -> Described:
    """Norms of the tasks."""
    own: dict[str, Any] = {"reader": "norms", "normalize": method.heads.normalize}
    parts: Parts = {"linear": method.heads}
    if isinstance(method, LoRA):
        own["low_rank"] = {"rank": method.rank, "alpha": method.alpha}
    if isinstance(method, TSNRidge):
        own["weights"] = method.weights
        parts |= {"maps": method.maps, "centre": method.centre, "spread": method.spread}
    return own, parts


def affine(method: Any, config: Mapping[str, Any]) -> Described:
    """Ridge heads."""
    count = method.projection.count
    projected = count if config["method"].get("projection") else 0
    parts: Parts = {"weight": method.weight, "bias": method.bias}
    if projected:
        parts |= {
            name: getattr(method.projection, name) for name in ("mean", "deviation", "matrix")
        }
    return {"reader": "affine", "features": method.features, "projected": projected}, parts


def embedding(method: Any, config: Mapping[str, Any]) -> Described:
    """Small networks on a trunk."""
    keys = ("hidden", "blocks", "components", "component_weights")
    own = {key: config["method"][key] for key in keys}
    own |= {"reader": "embedding", "embeddings": len(method.embeddings)}
    return own, {"embeddings": method.embeddings, "regressions": method.regressions}


def sentence(method: Any, _: Mapping[str, Any]) -> Described:
    """Likeness to sentences."""
    scenes, distortions = method.scenes, method.distortions(method.seen)
    texts = method.clip.encode_text(prompts(scenes, distortions))
    shape = [len(QUALITIES), max(1, len(scenes)), max(1, len(distortions))]
    return {"reader": "sentence", "shape": shape}, {"texts": texts}


def prompted(method: Any, config: Mapping[str, Any]) -> Described:
    """Learnt tokens."""
    keys = ("words", "context", "visual", "deep", "dropout", "extra_norm")
    given = {key: config["method"][key] for key in keys if key in config["method"]}
    texts = torch.stack([one.text_features(method.clip) for one in method.prompts])
    return {"reader": "prompted", "prompts": given}, {"prompts": method.prompts, "texts": texts}


def zero_shot(method: Any, config: Mapping[str, Any]) -> Described:
    """Naturalness, and the promptings of a CLIP."""
    own: dict[str, Any] = {
        "reader": "zero_shot",
        "backbone": describe_encoder(config["backbone"]),
        **{key: config["method"][key] for key in ("patch", "stride")},
    }
    *high, low = method.backbone.encoders
    parts: Parts = {"backbone": low, "naturalness": method.backbone.naturalness}
    if high:
        own["high"] = describe_encoder(config["method"]["high"])
        parts |= {"high": high[0], "texts": high[0].encode_text(PROMPTS)}
    return own, parts


def student(method: Any, _: Mapping[str, Any]) -> Described:
    """The student of DP-IQA."""
    return {"reader": "map", "side": method.student.side}, {"rest": method.student}


def teacher(method: Any, config: Mapping[str, Any]) -> Described:
    """The denoiser and its decoder."""
    return {"reader": "map", "width": config["method"].get("width", 512)}, {"rest": method.decoder}


DESCRIBED: dict[type[ContinualMethod], Callable[[Any, Mapping[str, Any]], Described]] = {
    SingleHead: cosine,
    TSNIQA: norms,
    Ridge: affine,
    GRepQ: lambda method, _: ({"reader": "trunk"}, {"ridge": method.ridge}),
    GRepQZeroShot: zero_shot,
    GRMPIQA: prompted,
    LIQE: sentence,
    LPF: embedding,
    MetaIQA: lambda method, _: ({"reader": "regression", "kind": "metaiqa"}, {"rest": method.rest}),
    UNIQUE: lambda method, _: ({"reader": "regression", "kind": "unique"}, {"rest": method.head}),
    DPIQA: student,
    DPIQATeacher: teacher,
}
"""A reader for each kind of method; a subclass that scores in a way of its own needs one too."""
