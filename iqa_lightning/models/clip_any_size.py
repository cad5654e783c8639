"""CLIP's residual networks for images of any size: attention pooling without positions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.models.backbones import Backbone, Images
from iqa_lightning.models.clip import CLIP

PROMPTS = ("A good photo.", "A bad photo.")
"""GRepQ's, https://arxiv.org/abs/2312.04838; CLIP's tokenizer does not see the case of letters."""


class AnySizeCLIP(CLIP):
    """A CLIP with a residual image encoder that reads images of any size in evaluation.

    In evaluation the attention pool adds no positions (the official code of GRepQ asks its users to
    delete that line of CLIP); in training it does, and images must have the model's size.

    Raises:
        ValueError: the image encoder is no residual network with an attention pool.
    """

    def __init__(
        self,
        name: str = "RN50-quickgelu",
        pretrained: str | None = None,
        options: dict[str, object] | None = None,
    ) -> None:
        super().__init__(name, pretrained, options)
        if not hasattr(self.network.visual, "attnpool"):
            raise ValueError(
                f"backbone.name={name!r} has no attention pool over a map: take a CLIP with a "
                "residual network, such as RN50-quickgelu"
            )

    def prepare(self, image: Images) -> Float[Tensor, "batch 3 height width"]:
        """Normalised float images."""
        return super().prepare(image) if self.training else Backbone.prepare(self, image)

    def pooled(
        self, prepared: Float[Tensor, "batch 3 height width"], fixed: Tensor | None
    ) -> Float[Tensor, "batch width"]:
        """The image's feature, before it is normalised."""
        visual = self.network.visual
        if self.training:
            return visual(prepared)  # type: ignore[no-any-return]  # open_clip is untyped
        last = visual.stem(prepared)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            last = layer(last)
        return pool_without_positions(visual.attnpool, last)


def pool_without_positions(
    pool: nn.Module, last: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch width"]:
    """What an attention pool of CLIP makes of a map of any size, positions left out: the mean asks,
    mean and places answer.
    """
    places = last.flatten(2).mT
    tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)
    query = pool.q_proj(tokens[:, :1])  # type: ignore[operator]  # modules are untyped
    key, value = pool.k_proj(tokens), pool.v_proj(tokens)  # type: ignore[operator]
    split = [x.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2) for x in (query, key, value)]
    found = F.scaled_dot_product_attention(*split)
    return pool.c_proj(found.transpose(1, 2).flatten(2))[:, 0]  # type: ignore[no-any-return, operator]


def prompt_quality(
    clip: CLIP, feature: Float[Tensor, "batch width"], scale: float = 10.0
) -> Float[Tensor, " batch"]:
    """Probability in (0, 1) that an image is a good photo rather than a bad one, from its feature:
    logistic(10 * (cosine with the one - cosine with the other)).
    """
    texts = clip.encode_text(PROMPTS)
    good, bad = (F.normalize(feature.float(), dim=-1) @ texts.T.float()).unbind(dim=-1)
    return preference_of(good, bad, scale)


def preference_of(
    good: Float[Tensor, " batch"], bad: Float[Tensor, " batch"], scale: float = 10.0
) -> Float[Tensor, " batch"]:
    """logistic(scale * (good - bad)) of two cosines.

    >>> round(float(preference_of(torch.tensor(0.25), torch.tensor(0.2))), 6)
    0.622459
    """
    return torch.sigmoid(scale * (good - bad))
