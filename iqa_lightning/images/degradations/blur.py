"""Blur: Gaussian, motion, lens, defocus, median; and sharpening, its contrary."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from kornia.color import rgb_to_ycbcr, ycbcr_to_rgb
from kornia.filters import median_blur
from torch import Tensor

from iqa_lightning.images.degradations.draws import Draws, Images, Strengths, wide
from iqa_lightning.images.degradations.filters import correlate, separable

Filter = Callable[[Images, Tensor, int], Images]


def by_size(image: Images, strength: Tensor, sizes: list[int], apply: Filter) -> Images:
    """`apply(images, strengths, size)` for the images of each kernel size, which only depends on
    their own strength.
    """
    if len(set(sizes)) == 1:
        return apply(image, strength, sizes[0])
    out = torch.empty_like(image)
    for size in sorted(set(sizes)):
        rows = [i for i, own in enumerate(sizes) if own == size]
        out[rows] = apply(image[rows], strength[rows], size)
    return out


def odd(value: float) -> int:
    """The smallest odd whole number that is not below `value`, at least 3."""
    return max(3, 2 * math.ceil((value - 1) / 2) + 1)


def gaussian_blur(image: Images, strength: Strengths, draws: Draws | None = None) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Gaussian kernel; strength: standard deviation in pixels."""

    def apply(image: Images, sigma: Tensor, size: int) -> Images:
        line = torch.exp(
            -((torch.arange(size, device=image.device) - size // 2) ** 2)
            / (2 * sigma[:, None] ** 2)
        )
        return separable(image, line / line.sum(dim=1, keepdim=True))

    return by_size(image, strength, [odd(6 * sigma + 1) for sigma in strength.tolist()], apply)


def motion_blur(image: Images, strength: Strengths, draws: Draws) -> Images:
    """Straight motion in a random direction; strength: its length in pixels, in odd numbers from 3
    on.
    """

    def apply(image: Images, angle: Tensor, size: int) -> Images:
        y, x = offsets(size, image)
        cos, sin = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
        on_line = ((x * sin + y * cos).abs() < 0.5) & ((x * cos - y * sin).abs() < size / 2)
        return correlate(image, normalized(on_line.to(image.dtype)))

    angle = math.pi * draws.uniform(1)[:, 0]
    return by_size(image, angle, [odd(length) for length in strength.tolist()], apply)


def lens_blur(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """A round aperture; strength: radius of the disc in pixels."""

    def apply(image: Images, radius: Tensor, size: int) -> Images:
        y, x = offsets(size, image)
        return correlate(image, aperture(torch.hypot(y, x), radius))

    return by_size(image, strength, [odd(2 * radius + 1) for radius in strength.tolist()], apply)


def defocus_blur(image: Images, strength: Strengths, draws: Draws) -> Images:
    """An aperture of six blades, turned at random; strength: distance of its sides from its centre
    in pixels.
    """
    turn = math.pi / 3 * draws.uniform(1)

    def apply(image: Images, radius_and_turn: Tensor, size: int) -> Images:
        radius, turn = radius_and_turn.unbind(1)
        y, x = offsets(size, image)
        sides = [turn + k * math.pi / 3 for k in range(3)]
        distances = [(x * wide(angle.cos()) + y * wide(angle.sin())).abs() for angle in sides]
        return correlate(image, aperture(torch.stack(distances).amax(dim=0)[:, 0], radius))

    sizes = [odd(2 * radius * 2 / math.sqrt(3) + 1) for radius in strength.tolist()]
    return by_size(image, torch.stack([strength, turn[:, 0]], dim=1), sizes, apply)


def median_filter(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Median of a square in each channel; strength: its side in pixels, odd, from 3 on."""
    sizes = [odd(side) for side in strength.tolist()]
    return by_size(image, strength, sizes, lambda image, _, size: median_blur(image, (size, size)))


def sharpen(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Unsharp mask of standard deviation 1; strength: the multiple of the detail that is added."""
    return image.lerp_(gaussian_blur(image, torch.ones_like(strength)), -wide(strength))


def colour_diffusion(image: Images, strength: Strengths, draws: Draws) -> Images:  # noqa: ARG001  # one signature for all kinds
    """Gaussian blur of the chroma (YCbCr) alone; strength: standard deviation in pixels."""
    ycbcr = rgb_to_ycbcr(image)
    return ycbcr_to_rgb(torch.cat([ycbcr[:, :1], gaussian_blur(ycbcr, strength)[:, 1:]], dim=1))


def offsets(
    size: int, image: Images
) -> tuple[Float[Tensor, "size size"], Float[Tensor, "size size"]]:
    """Row and column of each cell of a kernel, from its centre."""
    line = torch.arange(size, device=image.device, dtype=image.dtype) - size // 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    return y, x


def aperture(
    distance: Float[Tensor, "*batch size size"], radius: Strengths
) -> Float[Tensor, "batch size size"]:
    """Weights by how much of each cell lies within the aperture, to first order."""
    return normalized((radius.view(-1, 1, 1) + 0.5 - distance).clamp(0, 1))


def normalized(kernel: Float[Tensor, "batch size size"]) -> Float[Tensor, "batch size size"]:
    """Weights of sum 1."""
    return kernel / kernel.sum(dim=(1, 2), keepdim=True)
