"""Small random diffusion pipelines, in memory and as folders of the layout of Stable Diffusion 1.5."""

import json
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from iqa_lightning.models.diffusion import Diffusion
from tests.walks import ROOT

OPTIONS: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
    OmegaConf.load(ROOT / "conf" / "backbone" / "diffusion_tiny.yaml")
)
OPTIONS = {key: value for key, value in OPTIONS.items() if key != "defaults"}


def diffusion(seed: int = 0, **options: Any) -> Diffusion:
    """A random diffusion backbone of 64 pixels, `options` instead of its own."""
    torch.manual_seed(seed)
    return Diffusion(**(OPTIONS | options))


def write_pipeline(folder: Path, seed: int = 0) -> Path:
    """A folder as `StableDiffusionPipeline.save_pretrained` leaves it, generated, of random parts;
    those that are not read are named alone.
    """
    import diffusers

    torch.manual_seed(seed)
    parts = {
        "vae": diffusers.AutoencoderKL(**OPTIONS["sizes"]["vae"]),
        "unet": diffusers.UNet2DConditionModel(**OPTIONS["sizes"]["unet"]),
        "scheduler": diffusers.PNDMScheduler(),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.6.0",
        **{name: ["diffusers", type(part).__name__] for name, part in parts.items()},
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    for name in ("text_encoder", "tokenizer", "feature_extractor", "safety_checker"):
        (folder / name).mkdir()
    return folder
