"""The model of a run folder: its own method with the weights of its last task."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from iqa_lightning.continual.checkpoints import read_checkpoint
from iqa_lightning.datasets.samplers import MAX_PIXELS
from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.methods.readouts import HasFinalHeads, HasGate, Known
from iqa_lightning.metrics.scale import Scale
from iqa_lightning.models.outside import outside_of
from iqa_lightning.records import RunFolder
from iqa_lightning.runs.compose import instantiate
from iqa_lightning.runs.folder import read_config, spelt_order
from iqa_lightning.scoring.card import card_of_run
from iqa_lightning.scoring.model import Model, Reading, column_of
from iqa_lightning.stream.orders import numbered

STARTS = ("weights", "image_weights", "scnn_weights", "prior", "pristine")
"""Keys whose values only say what weights begin with: a finished run has all of them itself."""


def model_of_run(folder: Path) -> Model:
    """The model of a finished run.

    Raises:
        ValueError: it is not finished, or a file is missing or damaged.
    """
    records = RunFolder(folder)
    if not records.finished:
        raise ValueError(
            f"{folder} is not a finished run: type its training command again, which goes on"
        )
    config = read_config(folder)
    method = build_saved_method(folder, config)
    scale = Scale.from_tensors(*records.read_scale())
    tensors = records.read_reference()
    features = {
        name.removeprefix("features/"): torch.from_numpy(value)
        for name, value in tensors.items()
        if name.startswith("features/")
    }
    heads = list(scale.common)

    def read(image: Tensor) -> Reading:
        return read_method(method, heads, image)

    return Model(
        heads=heads,
        view=instantiate(OmegaConf.create(config["view"])),
        scale=scale,
        outside=outside_of(tensors),
        features=features,
        card=card_of_run(folder, config, scale),
        network=method,
        read=read,
        max_pixels=config["stream"].get("max_pixels", MAX_PIXELS),
    )


def build_saved_method(folder: Path, config: dict[str, Any]) -> ContinualMethod:
    """The method of a run after its last task, in evaluation mode."""
    tasks, sources = numbered(spelt_order(config["stream"]))
    names = ["+".join(sets) for sets in tasks]
    datasets = ["+".join(sources[name] for name in sets) for sets in tasks]
    saved = without_starts(config["method"])
    if "cache" in saved and "cache_dir" in saved:
        saved["cache"] = "none"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what starts at random: it does not stay so
        build = instantiate(OmegaConf.create(saved), _partial_=True, _convert_="all")
        backbone = build_backbone(without_starts(config["backbone"]))
        method: ContinualMethod = build(backbone=backbone, tasks=names, task_datasets=datasets)
    weights = read_checkpoint(folder / "tasks" / f"{len(names)}_{names[-1]}.ckpt", folder)
    method.load_state_dict(weights)
    return method.eval()  # what is trainable stays so: torch multiplies such matrices another way


def build_backbone(config: dict[str, Any]) -> Any:
    """The backbone; where the file that a CLIP began with is gone, from its sizes alone."""
    try:
        return instantiate(OmegaConf.create(config))
    except ValueError:
        if config.get("pretrained") is None:
            raise
        return instantiate(OmegaConf.create(config | {"pretrained": None}))


def without_starts(node: Any) -> Any:
    """A config without the files that weights begin with."""
    if isinstance(node, dict):
        return {
            key: None if key in STARTS and isinstance(value, str) else without_starts(value)
            for key, value in node.items()
        }
    return [without_starts(item) for item in node] if isinstance(node, list) else node


@torch.no_grad()
def read_method(method: ContinualMethod, heads: list[str], image: Tensor) -> Reading:
    """What a method says of images, step by step as the evaluations of its run computed it: heads
    that cannot change, one after another.
    """
    known = Known(frozen_output=method.backbone.frozen_output(image))
    if isinstance(method, HasGate) and method.uses_gate:
        known = replace(known, gate_features=method.gate_stages(image))
    final: dict[str, Tensor] = {}
    names = method.final_heads() if isinstance(method, HasFinalHeads) else []
    for t, name in enumerate(names, start=1):
        method.task.fill_(t)
        some = method.head_scores(image, replace(known, final_scores=dict(final)))
        final[name] = some.score[:, t - 1]
    method.task.fill_(len(method.tasks))
    batch = {
        "image": image,
        "owner_task": torch.ones(len(image), dtype=torch.long, device=image.device),
        "mos_std": torch.zeros(len(image), device=image.device),
        "known": replace(known, final_scores=final),
    }
    columns = method.predict_step(batch).columns
    score = torch.stack([columns[column_of("score", head)] for head in heads], dim=1)
    gated = f"gate/{heads[0]}" in columns
    gate = torch.stack([columns[f"gate/{h}"] for h in heads], dim=1) if gated else None
    stages = known.gate_features
    feature = torch.cat(stages, dim=1).float() if stages else method.watched_features(image)
    return Reading(score, gate, feature)
