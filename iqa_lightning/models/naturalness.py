"""How far the features of an image's patches lie from those of pristine photographs, without any
score.

GRepQ's zero-shot part, after NIQE (https://doi.org/10.1109/LSP.2012.2227726); facts from
https://github.com/suhas-srinath/GRepQ (MIT).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.models.gating import frozen

Patches = Float[Tensor, "patches 3 side side"]


Encode = Callable[[Patches], Float[Tensor, "patches width"]]


GREY = (0.2989, 0.587, 0.114)
CHUNK = 64  # patches that the network sees at once


class Naturalness(nn.Module):
    """Mean and covariance of the features of pristine patches, and the distance of an image to
    them.

    Args:
        width: of a feature.
        patch: side of a patch in pixels.
        stride: pixels between the patches of a rated image.
        sharp: share of its sharpest patch that a pristine image's patches must exceed.
        colourful: of these, share of the most colourful one that they must exceed.
        regularization: what is added to the diagonal of the covariance.
        scale: distance that the logistic function of the score takes as 1.
    """

    def __init__(
        self,
        width: int,
        patch: int = 96,
        stride: int = 48,
        sharp: float = 0.75,
        colourful: float = 0.8,
        regularization: float = 1e-3,
        scale: float = 100.0,
    ) -> None:
        super().__init__()
        self.mean, self.covariance = frozen(width), frozen(width, width)
        self.patch, self.stride, self.sharp, self.colourful = patch, stride, sharp, colourful
        self.regularization, self.scale = regularization, scale

    @torch.no_grad()
    def fit(self, encode: Encode, images: Sequence[UInt8[Tensor, "3 height width"]]) -> int:
        """Take the statistics of the selected patches of pristine images; their number.

        Raises:
            ValueError: fewer than two patches are selected.
        """
        kept = []
        for image in images:
            patches = cut_patches(image, self.patch, self.patch)
            kept.append(patches[select(patches / 255, self.sharp, self.colourful)])
        count = sum(map(len, kept))
        if count < 2:
            raise ValueError(
                f"{len(images)} pristine images give {count} patches of {self.patch} pixels that "
                "are sharp and colourful enough: name more images with method.pristine"
            )
        mean, covariance = statistics(encoded(encode, torch.cat(kept)))
        self.mean.copy_(mean)
        self.covariance.copy_(covariance)
        return count

    @torch.no_grad()
    def forward(
        self, encode: Encode, images: UInt8[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, " batch"]:
        """Scores in (0, 0.5], higher is better: 1 - logistic(distance / `scale`)."""
        scores = []
        for image in images:
            features = encoded(encode, cut_patches(image, self.patch, self.stride))
            found = distance(self.mean, self.covariance, *statistics(features), self.regularization)
            scores.append(1 - torch.sigmoid(found / self.scale))
        return torch.stack(scores).float()


def distance(
    mean: Float[Tensor, " width"],
    covariance: Float[Tensor, "width width"],
    other_mean: Float[Tensor, " width"],
    other_covariance: Float[Tensor, "width width"],
    regularization: float = 1e-3,
) -> Float[Tensor, ""]:
    """Distance of two means by the mean of both covariances, from 0, in float64."""
    difference = (mean - other_mean).double()
    both = (covariance.double() + other_covariance.double()) / 2
    both = both + regularization * torch.eye(len(difference)).to(both)
    squared: Tensor = difference @ torch.linalg.solve(both, difference)
    return squared.clamp_min(0).sqrt()


def statistics(
    features: Float[Tensor, "patches width"],
) -> tuple[Float[Tensor, " width"], Float[Tensor, "width width"]]:
    """Mean and unbiased covariance; of a single patch the covariance is 0, where the official code
    divides by 0.
    """
    mean = features.mean(dim=0)
    centred = features - mean
    return mean, centred.T @ centred / max(1, len(features) - 1)


def encoded(encode: Encode, patches: Patches) -> Float[Tensor, "patches width"]:
    """Features of patches in [0, 255], in float64."""
    return torch.cat([encode(some) for some in torch.split(patches, CHUNK)]).double()


def cut_patches(image: UInt8[Tensor, "3 height width"], patch: int, stride: int) -> Patches:
    """All whole patches, `stride` pixels apart, in [0, 255]; an image that holds none is enlarged
    until it does, where the official code finds nothing.
    """
    shown = image[None].float()
    short = min(image.shape[-2:])
    if short < patch:
        size = [max(patch, round(side * patch / short)) for side in image.shape[-2:]]
        shown = F.interpolate(shown, size, mode="bilinear", align_corners=False)
    cells = shown[0].unfold(1, patch, stride).unfold(2, patch, stride)
    return cells.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def select(patches: Patches, sharp: float, colourful: float) -> Bool[Tensor, " patches"]:
    """Which patches of one image, in [0, 1], are sharp enough and, of these, colourful enough."""
    sharpness = sharpness_of(patches)
    kept = sharpness > sharp * sharpness.max()
    colours = colourfulness_of(patches)
    # a grey image has no colour to exceed; the official code keeps none of its patches either
    most = colours[kept].max() if kept.any() else torch.inf
    return kept & (colours > colourful * most)


def sharpness_of(patches: Patches) -> Float[Tensor, " patches"]:
    """Sum of the local standard deviation of the grey patch: Gaussian window of 7 pixels, deviation
    7/6, zeros around the patch.
    """
    weights = torch.tensor(GREY).to(patches).view(1, 3, 1, 1)
    grey = (patches * weights).sum(dim=1, keepdim=True)
    line = torch.exp(-0.5 * (torch.arange(-3, 4).to(patches) / (7 / 6)) ** 2)
    window = torch.outer(line, line)
    window = (window / window.sum()).view(1, 1, 7, 7)
    mean = F.conv2d(grey, window, padding=3)
    square = F.conv2d(grey.square(), window, padding=3)
    return (square - mean.square()).abs().sqrt().sum(dim=(1, 2, 3))


def colourfulness_of(patches: Patches) -> Float[Tensor, " patches"]:
    """sqrt(var rg + var yb) + sqrt(mean rg^2 + mean yb^2), of rg = |R - G|, yb = |(R + G) / 2 - B|,
    variances unbiased.

    Hasler and Suesstrunk's measure has no absolute values and weighs the second term with 0.3; this
    is GRepQ's.
    """
    red, green, blue = patches.flatten(2).unbind(dim=1)
    both = torch.stack([(red - green).abs(), (0.5 * (red + green) - blue).abs()])
    return both.var(dim=2).sum(dim=0).sqrt() + both.mean(dim=2).square().sum(dim=0).sqrt()
