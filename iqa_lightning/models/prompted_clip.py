"""CLIP with learnt tokens: a context before the class words and tokens beside the patches.

The model of GRMP-IQA (https://arxiv.org/abs/2409.05381): the context is that of CoOp
(https://arxiv.org/abs/2109.01134), the visual tokens those of VPT
(https://arxiv.org/abs/2203.12119).
"""

import copy
from collections.abc import Sequence
from math import sqrt
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.models.backbones import Images, read_weights
from iqa_lightning.models.clip import CLIP, checked_tokens

PREFIX = "grmp_iqa."
"""What the names of the prompts' tensors start with in a weights file."""


STATISTICS = {"imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "clip": None}
"""Mean and deviation of the input in [0, 1]; null: those that the backbone has."""


class Prompts(nn.Module):
    """Learnt tokens for a CLIP whose image encoder is a vision transformer.

    The text is `context` learnt tokens, the class words and a full stop; its feature is read at the
    end of the text. Into the image encoder go `visual` tokens between the class token and the
    patches, through a linear map that all blocks share: those of a block replace those of the block
    before. After the last block comes a LayerNorm more, then CLIP's own.

    The CLIP itself is handed to each call and is no part of this module.

    Args:
        clip: the model whose sizes the tokens have.
        words: what the two classes are called, the better one first.
        context: number of text tokens.
        visual: number of visual tokens of a block.
        deep: tokens for all blocks, or for the first alone.
        dropout: of the visual tokens in training.
        extra_norm: the LayerNorm after the last block.

    Raises:
        ValueError: an image encoder that is no vision transformer, a text encoder that looks ahead.
    """

    def __init__(
        self,
        clip: CLIP,
        words: Sequence[str] = ("high quality", "low quality"),
        context: int = 4,
        visual: int = 100,
        deep: bool = True,
        dropout: float = 0.1,
        extra_norm: bool = True,
    ) -> None:
        super().__init__()
        check(clip)
        if len(words) != 2 or context < 1 or visual < 0:
            raise ValueError(
                f"method.words={list(words)}, context={context}, visual={visual}: two classes, 1 "
                "text token or more, 0 visual tokens or more"
            )
        tower = clip.network.visual
        width, depth, patch = (
            tower.transformer.width,
            len(tower.transformer.resblocks),
            tower.patch_size,
        )
        bound = sqrt(6 / (3 * patch[0] * patch[1] + width))
        self.context = nn.Parameter(0.02 * torch.randn(context, clip.network.transformer.width))
        self.visual = nn.Parameter(
            torch.empty(depth if deep else 1, visual, width).uniform_(-bound, bound)
        )
        self.project = nn.Linear(width, width)
        nn.init.kaiming_normal_(self.project.weight, a=0, mode="fan_out")
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=1e-6) if extra_norm else nn.Identity()
        sentences = [f"{' '.join(['X'] * context)} {word}." for word in words]
        tokens = checked_tokens(clip.tokenizer, sentences)
        self.tokens: Int[Tensor, "2 length"]
        longest = int(tokens.any(dim=0).nonzero().max()) + 1
        self.register_buffer("tokens", tokens[:, :longest].contiguous(), persistent=False)

    def image_feature(self, clip: CLIP, image: Images) -> Float[Tensor, "batch width"]:
        """Features of images, before they are normalised."""
        tower = clip.network.visual
        x = tower._embeds(clip.prepare(image))  # private to open_clip, used here alone
        count = self.visual.shape[1]
        for i, block in enumerate(tower.transformer.resblocks):
            if i < len(self.visual):
                own = self.project(self.visual[i]).expand(len(x), -1, -1)
                patches = x[:, 1:] if i == 0 else x[:, 1 + count :]
                x = torch.cat([x[:, :1], self.dropout(own), patches], dim=1)
            x = block(x)
        feature: Tensor = tower.ln_post(self.norm(x[:, 0])) @ tower.proj
        return feature

    def text_features(self, clip: CLIP) -> Float[Tensor, "2 width"]:
        """Features of unit length of the two classes, in float32."""
        network, length = clip.network, self.tokens.shape[1]
        with torch.autocast(self.context.device.type, enabled=False):
            x = network.token_embedding(self.tokens).float()
            context = self.context.float().expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], context, x[:, 1 + context.shape[1] :]], dim=1)
            x = x + network.positional_embedding[:length]
            x = network.transformer(x, attn_mask=network.attn_mask[:length, :length])
            ends = network.ln_final(x)[torch.arange(len(x)), self.tokens.argmax(dim=1)]
            return F.normalize(ends @ network.text_projection, dim=-1)

    def logits(self, clip: CLIP, feature: Float[Tensor, "batch width"]) -> Float[Tensor, "batch 2"]:
        """Scaled cosine of image features with the two classes."""
        return clip.similarity(feature, self.text_features(clip))

    def twin(self) -> "Prompts":
        """A copy with tokens of its own, which shares the linear map and the LayerNorm."""
        shared: dict[int, Any] = {id(part): part for part in (self.project, self.norm)}
        return copy.deepcopy(self, shared)


def check(clip: nn.Module) -> None:
    """Refuse a backbone that takes no tokens."""
    if not isinstance(clip, CLIP):
        raise ValueError(
            "method=grmp_iqa needs CLIP: set backbone=clip_vit_b16 (or clip_tiny) and view=grmp_iqa"
        )
    tower = clip.network.visual
    plain = getattr(tower, "pool_type", None) == "tok" and tower.attn_pool is None
    if (
        not plain
        or not clip.looks_back
        or not isinstance(clip.network.text_projection, nn.Parameter)
    ):
        raise ValueError(
            "method=grmp_iqa puts tokens into a vision transformer that is read at its class "
            "token: "
            "set backbone=clip_vit_b16 (or clip_tiny)"
        )


def read_prompts(prompts: Prompts, file: str) -> None:
    """Let prompts start from those that a pre-training wrote.

    Raises:
        ValueError: the file holds none, or none of this size.
    """
    found = {
        key.removeprefix(PREFIX): value
        for key, value in read_weights(file).items()
        if key.startswith(PREFIX)
    }
    wanted = {key: tuple(value.shape) for key, value in prompts.state_dict().items()}
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    if shapes != wanted:
        differing = next(key for key in [*wanted, *shapes] if wanted.get(key) != shapes.get(key))
        raise ValueError(
            f"method.prior={file!r}: {differing!r} is {shapes.get(differing)} there and "
            f"{wanted.get(differing)} here; give what `pretrain pretraining=grmp_iqa` wrote for "
            "this backbone and these numbers of tokens"
        )
    prompts.load_state_dict(found)


def use_statistics(clip: CLIP, name: str) -> None:
    """Let a CLIP normalise images by other statistics than its own.

    Raises:
        ValueError: an unknown name.
    """
    if name not in STATISTICS:
        raise ValueError(f"method.statistics={name!r}: choose one of {tuple(STATISTICS)}")
    if (values := STATISTICS[name]) is not None:
        for buffer, value in zip((clip.mean, clip.std), values, strict=True):
            buffer.copy_(255.0 * torch.tensor(value).view(3, 1, 1))
