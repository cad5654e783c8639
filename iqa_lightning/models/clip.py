"""CLIP: an image encoder and a text encoder with one space of features, over open_clip.

Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021,
https://arxiv.org/abs/2103.00020; https://github.com/mlfoundations/open_clip.
"""

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import open_clip
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from iqa_lightning.models.backbones import (
    Backbone,
    Encoder,
    Images,
    Stages,
    checked_features,
    load_weights,
    stage_statistics,
)
from iqa_lightning.models.clip_weights import find_weights, read_clip_weights

Features = Float[Tensor, "items width"]


Key = tuple[Any, ...]


class CLIP(Backbone):
    """An open_clip model with its tokenizer and its own normalisation of images; by itself it is a
    backbone for images.

    `logit_scale` is never trained, as in LIQE. Text is encoded in float32 and, where no gradient
    can come back to the text encoder, once for each state of its weights: see `encode_text`.

    Args:
        name: a model of open_clip; those of OpenAI were trained with QuickGELU, hence
            `ViT-B-32-quickgelu`.
        pretrained: null for a random start, a file (the authors' checkpoints of LIQE, OpenAI's or
            open_clip's state dicts), or a tag of open_clip whose file is already on this machine;
            nothing is downloaded.
        options: sizes that replace those of `name`: `embed_dim`, `vision_cfg`, `text_cfg`,
            `init_logit_scale`.
        image_weights: of the image encoder alone, where that is a timm network: `bundled` or a
            file, as in `Backbone`.
        features: what heads read of an image, `last` (CLIP's own feature) or `stages`, as in
            `Backbone`; only the former compares with text.

    Raises:
        ValueError: unknown model, one whose text encoder needs a download, missing or unfitting
            weights.
    """

    def __init__(
        self,
        name: str = "ViT-B-32-quickgelu",
        pretrained: str | None = None,
        options: dict[str, Any] | None = None,
        image_weights: str | None = None,
        features: str = "last",
    ) -> None:
        Encoder.__init__(self)
        self.features = checked_features(features)
        name, options = name.replace("/", "-"), dict(options or {})
        self.network = build_clip(name, options)
        shown = self.network.visual.preprocess_cfg
        if pretrained is not None:
            state = read_clip_weights(find_weights(name, pretrained), self.network.state_dict())
            self.network.load_state_dict(state)
            shown = shown | (open_clip.get_pretrained_cfg(name, pretrained) or {})
        if image_weights is not None:
            load_image_weights(self.network, options, image_weights)
        self.mean: Tensor
        self.std: Tensor
        for key in ("mean", "std"):
            self.register_buffer(
                key, 255.0 * torch.tensor(shown[key]).view(3, 1, 1), persistent=False
            )
        self.embedding_width: int = (
            options.get("embed_dim") or open_clip.get_model_config(name)["embed_dim"]
        )
        self.stage_widths = [self.embedding_width]
        self.images_forwarded = 0
        size = self.network.visual.image_size
        self.image_size: tuple[int, int] = (
            (size, size) if isinstance(size, int) else (size[0], size[1])
        )
        self.width = self.embedding_width if features == "last" else self.statistics_width
        self.tokenizer = open_clip.get_tokenizer(name, context_length=self.network.context_length)
        self.tokens: dict[tuple[str, ...], Tensor] = {}
        self.encoded: tuple[Key, Tensor] | None = None
        self.freeze([self.network.logit_scale])

    def freeze(self, parameters: Sequence[nn.Parameter]) -> None:
        """Let nothing train these parameters any more."""
        for parameter in parameters:
            parameter.requires_grad_(False)
        self._trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]

    def trainable(self) -> list[nn.Parameter]:
        """Both encoders, but for what is frozen."""
        return self._trainable

    def image_parameters(self) -> list[nn.Parameter]:
        """Parameters of the image encoder."""
        return list(self.network.visual.parameters())

    def text_parameters(self) -> list[nn.Parameter]:
        """Parameters of the text encoder."""
        own = [*map(id, self.image_parameters()), id(self.network.logit_scale)]
        return [parameter for parameter in self.network.parameters() if id(parameter) not in own]

    def projections(self) -> list[nn.Parameter]:
        """The last linear maps of both encoders into the common space, that of the images first."""
        ends = ("visual.proj", "visual.head.proj.weight", "text_projection", "text.text_projection")
        own = dict(self.network.named_parameters())
        return [own[name] for name in ends if name in own]

    def twin(self) -> "CLIP":
        """A frozen copy, which shares the tokenizer and what nothing trains."""
        trained = {id(parameter) for parameter in self._trainable}
        shared: dict[int, Any] = {id(self.tokenizer): self.tokenizer}
        shared |= {
            id(parameter): parameter
            for parameter in self.parameters()
            if id(parameter) not in trained
        }
        return copy.deepcopy(self, shared).requires_grad_(False)

    def prepare(self, image: Images) -> Float[Tensor, "batch 3 height width"]:
        """Normalised float images.

        Raises:
            ValueError: they are not of the size that the model reads.
        """
        if tuple(image.shape[-2:]) != self.image_size:
            raise ValueError(
                f"CLIP reads images of {self.image_size[0]}x{self.image_size[1]} pixels and got "
                f"{image.shape[-2]}x{image.shape[-1]}: set view=liqe (or view.evaluation=windows), "
                f"view.crop={self.image_size[0]}"
            )
        return super().prepare(image)

    def pooled(
        self,
        prepared: Float[Tensor, "batch 3 height width"],
        fixed: Tensor | None,  # there is none
    ) -> Float[Tensor, "batch width"]:
        """The image's feature, before it is normalised."""
        if self.features == "stages":
            return stage_statistics(self.maps(prepared)[1])
        return self.network.encode_image(prepared)  # type: ignore[no-any-return]  # open_clip is untyped

    def stages(self, image: Images) -> list[Float[Tensor, "batch stage_width"]]:
        """The image's feature is the only stage."""
        return [self.network.encode_image(self.prepare(image))]

    def maps(
        self, prepared: Float[Tensor, "batch 3 height width"], last: bool = False
    ) -> tuple[Tensor, list[Float[Tensor, "batch channels h w"]]]:
        """The image's feature and the map of every block of the image encoder."""
        found = self.network.visual.forward_intermediates(prepared)
        return found["image_features"], list(found["image_intermediates"])

    def pool(self, last: Tensor, fixed: Tensor | None) -> Float[Tensor, "batch width"]:
        """The image's feature, which is pooled already."""
        return last

    def with_stages(
        self, image: Images, fixed: Tensor | None = None, features: str = "last"
    ) -> tuple[Float[Tensor, "batch width"], Stages]:
        """What `forward` and `gate_stages` say, from one pass."""
        last, maps = self.maps(self.prepare(image))
        read = {"last": last, "stages": last}
        if "stages" in (features, self.features):
            read["stages"] = stage_statistics(maps)
        return read[self.features], [read[features]]

    @cached_property
    def statistics_width(self) -> int:
        """Twice the channels of all maps, which one pass tells."""
        modes = {module: module.training for module in self.network.modules()}
        self.network.eval()  # running statistics stay as they are
        with torch.no_grad():
            maps = self.maps(torch.zeros(1, 3, *self.image_size).to(self.mean))[1]
        for module, mode in modes.items():
            module.training = mode
        return 2 * sum(stage.shape[1] for stage in maps)

    def similarity(self, image: Features, text: Features) -> Float[Tensor, "images texts"]:
        """Scaled cosine of each image with each text, in float32.

        Raises:
            ValueError: the image's features are not of the space that text is encoded into.
        """
        if image.shape[-1] != text.shape[-1]:
            raise ValueError(
                "backbone.features=stages gives no features that compare with text: use "
                "backbone.features=last"
            )
        with torch.autocast(image.device.type, enabled=False):
            scale: Tensor = self.network.logit_scale.float().exp()
            return F.normalize(image.float(), dim=-1) @ text.T * scale

    def encode_text(self, texts: tuple[str, ...]) -> Float[Tensor, "texts width"]:
        """Features of unit length of sentences.

        Encoded anew where a gradient may come back to the text encoder; else kept, and used as long
        as the sentences and the weights are the same.
        """
        trained = any(parameter.requires_grad for parameter in self.text_parameters())
        if torch.is_grad_enabled() and trained:
            return self.encode(texts)
        key = (texts, self.fingerprint())
        if self.encoded is None or self.encoded[0] != key:
            # not in inference mode, whose tensors cannot take part in a later training step
            with torch.inference_mode(False), torch.no_grad():
                self.encoded = key, self.encode(texts)
        return self.encoded[1]

    def encode(self, texts: tuple[str, ...]) -> Float[Tensor, "texts width"]:
        """Features of unit length of sentences, computed now, in float32."""
        tokens = self.tokenize(texts)
        with torch.autocast(self.mean.device.type, enabled=False):
            if not self.looks_back:
                return self.network.encode_text(tokens, normalize=True)  # type: ignore[no-any-return]  # untyped
            length = tokens.shape[1]
            own = {
                "positional_embedding": self.network.positional_embedding[:length],
                "attn_mask": self.network.attn_mask[:length, :length],
            }
            return functional_call(self.network, own, (None, tokens))[1]  # type: ignore[no-any-return]  # untyped

    @property
    def looks_back(self) -> bool:
        """Whether a token sees those before it alone, and the feature is that of the end of the
        sentence.

        What pads the sentences then changes nothing and is left out: those of LIQE fill a quarter
        of what CLIP reads.
        """
        own = self.network
        return getattr(own, "attn_mask", None) is not None and own.text_pool_type in (
            "argmax",
            "eos",
        )

    def fingerprint(self) -> Key:
        """What changes whenever a weight of the text encoder does: its place, its version and the
        sum of its bits.

        Versions alone would not do: fused optimisers and writes through `.data` change weights
        without counting one.
        """
        return tuple(
            (p.data_ptr(), p._version, sum_of_bits(p.detach())) for p in self.text_parameters()
        )

    def tokenize(self, texts: tuple[str, ...]) -> Int[Tensor, "texts length"]:
        """Tokens of sentences, kept; up to the longest sentence where that is enough.

        Raises:
            ValueError: a sentence is longer than the model reads.
        """
        if texts not in self.tokens:
            tokens = checked_tokens(self.tokenizer, texts)
            # the mark of a sentence's end is not 0, what pads it is
            longest = (
                int(tokens.any(dim=0).nonzero().max()) + 1 if self.looks_back else tokens.shape[1]
            )
            self.tokens = {texts: tokens[:, :longest].contiguous()}
        self.tokens[texts] = self.tokens[texts].to(self.mean.device)
        return self.tokens[texts]


def sum_of_bits(weight: Tensor) -> int:
    """All bytes of a tensor, read as one list of integers, summed."""
    flat = weight.contiguous().view(-1)
    wide = flat.numel() * flat.element_size() % 8 == 0
    bits = flat.view(torch.int64 if wide else torch.uint8)
    return int(bits.sum().item())


def checked_tokens(tokenizer: Any, texts: Sequence[str]) -> Int[Tensor, "texts context"]:
    """Tokens of sentences, none of which may be cut off."""
    tokens: Tensor = tokenizer(list(texts))
    full = (tokens[:, -1] != 0).nonzero()[:, 0].tolist()
    cut = next(
        (texts[i] for i in full if len(tokenizer.encode(texts[i])) + 2 > tokens.shape[1]), None
    )
    if cut is not None:
        raise ValueError(
            f"the sentence {cut!r} is longer than the {tokens.shape[1]} tokens that the text "
            "encoder reads: shorten "
            "its words, or raise backbone.options.text_cfg.context_length of a model that starts "
            "at random"
        )
    return tokens


def build_clip(name: str, options: dict[str, Any]) -> Any:
    """The open_clip model `name` with random weights, in float32; nothing is downloaded."""
    config = open_clip.get_model_config(name.replace("/", "-")) if ":" not in name else None
    if config is None:
        near = (
            ", ".join(get_close_matches(name, open_clip.list_models(), 6))
            or "see open_clip.list_models()"
        )
        raise ValueError(f"backbone.name={name!r} is not a model of open_clip (near: {near})")
    text = config["text_cfg"]
    if "hf_model_name" in text or "hf_tokenizer_name" in text:
        raise ValueError(
            f"backbone.name={name!r} needs a text encoder or tokenizer from the Hugging Face hub, "
            "which would be a "
            "download: take a model that open_clip holds whole, such as ViT-B-32-quickgelu"
        )
    with quiet():
        return open_clip.create_model(name, pretrained=None, pretrained_text=False, **options)


def load_image_weights(network: Any, options: dict[str, Any], weights: str) -> None:
    """Let the image encoder start from the weights of a timm network."""
    name = options.get("vision_cfg", {}).get("timm_model_name")
    if name is None:
        raise ValueError(
            f"backbone.image_weights={weights!r} needs "
            "backbone.options.vision_cfg.timm_model_name, as in "
            "backbone=clip_lite0; weights of a whole CLIP are backbone.pretrained"
        )
    load_weights(network.visual.trunk, name, weights)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep open_clip from logging, and from giving the root logger a handler as its first message
    does.
    """
    root = logging.getLogger()
    handlers, stage = list(root.handlers), root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(stage)
        root.handlers[:] = handlers
