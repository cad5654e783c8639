"""Compression by real codecs: JPEG, JPEG2000, WebP. The values become 8-bit ones on the way."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, features
from torch import Tensor

from iqa_lightning.images.degradations.draws import Draws, Images, Strengths

MODULES = {"JPEG": "jpg", "JPEG2000": "jpg_2000", "WEBP": "webp"}


def jpeg(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """JPEG by libjpeg, chroma at half the resolution; strength: its quality, 1 to 100.

    By Pillow, since torchvision 0.29 deprecates its own encoder, which was no faster.
    """
    return _each(image, strength, lambda one, quality: _pillow(one, "JPEG", quality=round(quality)))


def jpeg2000(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """JPEG2000 by OpenJPEG, irreversible; strength: how much smaller than the raw pixels the file
    is.
    """
    height, width = image.shape[-2:]
    options = {
        "irreversible": True,
        "num_resolutions": min(6, int(np.log2(min(height, width))) + 1),
    }

    def code(one: UInt8[Tensor, "3 height width"], ratio: float) -> UInt8[Tensor, "3 height width"]:
        return _pillow(one, "JPEG2000", quality_mode="rates", quality_layers=[ratio], **options)

    return _each(image, strength, code)


def webp(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Lossy WebP in its fastest mode; strength: its quality, 0 to 100."""
    return _each(
        image, strength, lambda one, quality: _pillow(one, "WEBP", quality=round(quality), method=0)
    )


Codec = Callable[[UInt8[Tensor, "3 height width"], float], UInt8[Tensor, "3 height width"]]


def _each(image: Images, strength: Strengths, code: Codec) -> Images:
    pixels = to_bytes(image).cpu()
    coded = torch.stack([code(one, s) for one, s in zip(pixels, strength.tolist(), strict=True)])
    return to_floats(coded.to(image.device))


def to_bytes(image: Float[Tensor, "*batch"]) -> UInt8[Tensor, "*batch"]:
    """Values in [0, 1] as 8-bit numbers."""
    return (
        image.mul(255).add_(0.5).to(torch.int16).to(torch.uint8)
    )  # three times as fast on CPUs as in one go


def to_floats(pixels: UInt8[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """And back."""
    return pixels.float().div_(255)


def _pillow(
    image: UInt8[Tensor, "3 height width"], kind: str, **options: Any
) -> UInt8[Tensor, "3 height width"]:
    """Through a file of Pillow's.

    Raises:
        ValueError: this Pillow was built without the codec.
    """
    if not features.check(MODULES[kind]):
        raise ValueError(
            f"this Pillow has no {kind}: take it out of the degradations, or install a wheel from "
            "PyPI"
        )
    file = io.BytesIO()
    Image.merge("RGB", [Image.fromarray(channel) for channel in image.numpy()]).save(
        file, kind, **options
    )
    with Image.open(file, formats=[kind]) as coded:
        return torch.stack(
            [torch.from_numpy(np.array(channel)) for channel in coded.convert("RGB").split()]
        )
