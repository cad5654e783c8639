"""Tone and colour: exposure, contrast, saturation, quantisation, misregistered channels."""

import math

import torch
from kornia.color import lab_to_rgb, rgb_to_grayscale, rgb_to_lab

from iqa_lightning.images.degradations.draws import Draws, Images, Strengths, wide

GAMMA = 2.2


def brighten(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Overexposure, with clipped lights; strength: stops, each doubling the light (gamma 2.2)."""
    return image.mul_(wide(2.0 ** (strength / GAMMA)))


def darken(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Underexposure; strength: stops, each halving the light (gamma 2.2)."""
    return image.mul_(wide(2.0 ** (-strength / GAMMA)))


def mean_shift(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """All values moved alike; strength: by how much, of either sign."""
    return image.add_(wide(strength))


def contrast(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Contrast about the mean of the image; strength s: the factor is 1 + s, below 0 for less."""
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return image.sub_(mean).mul_(wide(1 + strength)).add_(mean)


def contrast_curve(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """A sigmoid curve through black and white; strength: its steepness, above 0."""
    gain = wide(strength)
    low, high = torch.sigmoid(-gain / 2), torch.sigmoid(gain / 2)
    return (torch.sigmoid(gain * (image - 0.5)) - low) / (high - low)


def saturation(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Distance from grey; strength: its factor, 0 for grey, below 0 for opposite hues."""
    grey = rgb_to_grayscale(image)
    return image.sub_(grey).mul_(wide(strength)).add_(grey)


def lab_saturation(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Chroma in CIELAB; strength: its factor."""
    lab = rgb_to_lab(image)
    return lab_to_rgb(torch.cat([lab[:, :1], wide(strength) * lab[:, 1:]], dim=1))


def quantisation(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Few values a channel; strength: how many, at least 2."""
    steps = wide(strength.round().clamp_min(2)) - 1
    return image.mul_(steps).round_().div_(steps)


def colour_shift(image: Images, strength: Strengths, draws: Draws) -> Images:
    """The green channel displaced in a random direction; strength: by how many pixels."""
    height, width = image.shape[-2:]
    angle = 2 * math.pi * draws.uniform(1)[:, 0]
    y = torch.arange(height, device=image.device) - (strength * angle.sin()).round().long()[:, None]
    x = torch.arange(width, device=image.device) - (strength * angle.cos()).round().long()[:, None]
    out = image.clone()
    for row, green in enumerate(image[:, 1]):
        out[row, 1] = green[y[row].clamp(0, height - 1)][:, x[row].clamp(0, width - 1)]
    return out
