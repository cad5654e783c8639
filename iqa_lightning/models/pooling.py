"""Bilinear pooling: which channels of two maps fire together."""

import torch
from jaxtyping import Float
from torch import Tensor

EPS = 1e-8


def bilinear(
    one: Float[Tensor, "batch channels_one height width"], two: Float[Tensor, "batch channels_two height width"]
) -> Float[Tensor, "batch channels_one channels_two"]:
    """Outer product of the channels, averaged over the positions, which both maps share.

    Source: Lin et al., "Bilinear CNN models for fine-grained visual recognition", ICCV 2015.
    """
    positions = one.shape[2] * one.shape[3]
    return torch.einsum("bchw,bdhw->bcd", one, two) / positions


def signed_sqrt(x: Tensor) -> Tensor:
    """sign(x) sqrt(|x| + 1e-8), entry by entry."""
    return x.sign() * (x.abs() + EPS).sqrt()
