"""Noise: Gaussian, colour, impulse, multiplicative, ISO."""

import torch
from kornia.color import rgb_to_ycbcr, ycbcr_to_rgb

from iqa_lightning.data.degradations.draws import Draws, Images, Strengths, wide


def gaussian_noise(image: Images, strength: Strengths, draws: Draws) -> Images:
    """White noise, independent in the three channels; strength: its variance."""
    return draws.normal(*image.shape[1:]).mul_(wide(strength.sqrt())).add_(image)


def colour_noise(image: Images, strength: Strengths, draws: Draws) -> Images:
    """White noise on luma and chroma (YCbCr), which makes coloured grain; strength: its variance."""
    return ycbcr_to_rgb(rgb_to_ycbcr(image) + wide(strength.sqrt()) * draws.normal(*image.shape[1:]))


def impulse_noise(image: Images, strength: Strengths, draws: Draws) -> Images:
    """Salt and pepper, independent in the three channels; strength: the share of values that are lost, in [0, 1]."""
    u, half = draws.uniform(*image.shape[1:]), wide(strength) / 2
    return torch.where(u < half, 0.0, torch.where(u >= 1 - half, 1.0, image))


def multiplicative_noise(image: Images, strength: Strengths, draws: Draws) -> Images:
    """Speckle: noise that grows with the value; strength: its variance where the value is 1."""
    return image + wide(strength.sqrt()) * draws.normal(*image.shape[1:]) * image


def iso_noise(image: Images, strength: Strengths, draws: Draws) -> Images:
    """A sensor of high gain: shot noise, whose variance grows with the light, and read noise; strength: the gain.

    Variance: gain * (value + gain), the Poisson-Gaussian model of A. Foi et al., IEEE Transactions on Image Processing
    17(10), 2008, https://doi.org/10.1109/TIP.2008.2001399.
    """
    gain = wide(strength)
    return image + (gain * (image + gain)).sqrt() * draws.normal(*image.shape[1:])
