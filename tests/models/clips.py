"""Small random CLIPs, and state dicts named as OpenAI names them."""

from typing import Any

import torch
from torch import Tensor

from iqa_lightning.models.clip import CLIP

SIDE, WIDTH, CONTEXT = 32, 64, 32
OPTIONS: dict[str, Any] = {
    "embed_dim": WIDTH,
    "init_logit_scale": 3.0,
    "vision_cfg": {
        "image_size": SIDE,
        "layers": 2,
        "width": WIDTH,
        "head_width": 32,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": 49408,
        "width": WIDTH,
        "heads": 2,
        "layers": 2,
    },
}


def tiny(
    seed: int = 0, pretrained: str | None = None, image_weights: str | None = None, **options: Any
) -> CLIP:
    """A random CLIP of two and two layers, `options` instead of its own."""
    torch.manual_seed(seed)
    return CLIP(
        "ViT-B-32-quickgelu", pretrained, options=OPTIONS | options, image_weights=image_weights
    )


def block(width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a layer."""
    return {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
    }


def openai_names(
    image: int, text: int, embed: int, layers: int, side: int, patch: int, context: int
) -> dict[str, Any]:
    """Names and shapes of OpenAI's state dict of a CLIP with a vision transformer."""
    names: dict[str, Any] = {
        "positional_embedding": (context, text),
        "text_projection": (text, embed),
        "logit_scale": (),
        "visual.class_embedding": (image,),
        "visual.positional_embedding": ((side // patch) ** 2 + 1, image),
        "visual.proj": (image, embed),
        "visual.conv1.weight": (image, 3, patch, patch),
        "token_embedding.weight": (49408, text),
    }
    for norm, width in (("visual.ln_pre", image), ("visual.ln_post", image), ("ln_final", text)):
        names |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for tower, width in (("visual.transformer", image), ("transformer", text)):
        for i in range(layers):
            names |= {
                f"{tower}.resblocks.{i}.{name}": shape for name, shape in block(width).items()
            }
    return names


def released(seed: int = 0) -> dict[str, Tensor]:
    """A state dict as the authors of LIQE release theirs, in the size of `tiny`: fp16 but for norms
    and scale.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in openai_names(WIDTH, WIDTH, WIDTH, 2, SIDE, 16, CONTEXT).items():
        value = 0.1 * torch.randn(shape, generator=generator)
        state[name] = value if "ln_" in name or name == "logit_scale" else value.half()
    return state
