"""Noise: Gaussian, colour, impulse, multiplicative, ISO."""

import torch

from iqa_lightning.images.degradations.draws import Draws, Images, Strengths, wide

# Red, green and blue of luma and the two chromas (ITU-R BT.601).
FROM_YCBCR = ((1.0, 0.0, 1.402), (1.0, -0.344, -0.714), (1.0, 1.772, 0.0))


def gaussian_noise(image: Images, strength: Strengths, draws: Draws) -> Images:
    """White noise, independent in the three channels; strength: its variance."""
    return image.add_(draws.normal(*image.shape[1:]).mul_(wide(strength.sqrt())))


def colour_noise(image: Images, strength: Strengths, draws: Draws) -> Images:
    """White noise on luma and chroma (YCbCr), coloured grain; strength: its variance."""
    mixed = torch.tensor(FROM_YCBCR, device=image.device) * wide(strength.sqrt())[:, 0]
    return image.add_(torch.bmm(mixed, draws.normal(*image.shape[1:]).flatten(2)).view_as(image))


def impulse_noise(image: Images, strength: Strengths, draws: Draws) -> Images:
    """Salt and pepper, independent in the three channels; strength: the share of values that are
    lost, in [0, 1].
    """
    kept = wide(0.5 - strength / 2).clamp_min(1e-6)
    lost = (
        draws.uniform(*image.shape[1:]).sub_(0.5).div_(kept).trunc_()
    )  # -1 and below, or 1 and above, where it is
    return image.add_(lost)


def multiplicative_noise(image: Images, strength: Strengths, draws: Draws) -> Images:
    """Speckle: noise that grows with the value; strength: its variance where the value is 1."""
    return image.addcmul_(draws.normal(*image.shape[1:]).mul_(wide(strength.sqrt())), image)


def iso_noise(image: Images, strength: Strengths, draws: Draws) -> Images:
    """A sensor of high gain: shot noise, whose variance grows with the light, and read noise;
    strength: the gain.

    Variance: gain * (value + gain), the Poisson-Gaussian model of A. Foi et al., IEEE Transactions
    on Image Processing 17(10), 2008, https://doi.org/10.1109/TIP.2008.2001399.
    """
    gain = wide(strength)
    return image + (gain * (image + gain)).sqrt() * draws.normal(*image.shape[1:])
