"""GRepQ's contrast between the versions of one scene: the more alike two look, the more they
attract.

Srinath et al., "Learning generalizable perceptual representations for data-efficient no-reference
image quality assessment", WACV 2024, https://arxiv.org/abs/2312.04838; facts from its code,
https://github.com/suhas-srinath/GRepQ (MIT).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import piq
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from iqa_lightning.images.degradations.chain import degrade, step
from iqa_lightning.images.fragments import draw_offsets, fragments, grid_of

Versions = UInt8[Tensor, "versions 3 height width"]


Encode = Callable[[Float[Tensor, "n 3 side side"]], Float[Tensor, "n width"]]


MODES = ("inside", "outside")


def attraction(
    similarity: Float[Tensor, "*scenes versions versions"],
) -> Float[Tensor, "*scenes versions versions"]:
    """Weight of a pair of versions, from 0 (nothing in common) to 1 (alike): 2 W^2 / (1 + W^2).

    >>> attraction(torch.tensor([0.0, 1.0])).tolist()
    [0.0, 1.0]
    """
    squared = similarity.square()
    return 2 * squared / (1 + squared)


def soft_contrast(
    anchor: Float[Tensor, "scenes versions width"],
    augmented: Float[Tensor, "scenes versions width"],
    similarity: Float[Tensor, "scenes versions versions"],
    temperature: float = 0.5,
    mode: str = "inside",
) -> Float[Tensor, ""]:
    """Loss between two views of the versions of each scene, mean over scenes and versions; lower is
    better.

    Scenes are never compared with one another. With E_ij = exp(cosine(anchor i, augmented j) /
    temperature) and a = `attraction`:

    - `inside`: -log(sum_j a_ij E_ij / sum_j E_ij) over rows and the same over columns, at least 0;
    - `outside`: -a_ij log(E_ij / sum_j E_ij), mean over all i, j, and the same over columns.

    Args:
        anchor: features of one view, of any norm.
        augmented: features of the other view.
        similarity: W, symmetric, in [0, 1], 1 on the diagonal.
        temperature: of the exponentials.
        mode: whether the weights stand inside or outside of the logarithm.

    Raises:
        ValueError: an unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode={mode!r}: choose one of {MODES}")
    wide = torch.promote_types(
        anchor.dtype, torch.float32
    )  # float64 stays, half precision does not
    first, second = (F.normalize(view.to(wide), dim=-1) for view in (anchor, augmented))
    logits = first @ second.mT / temperature
    weights = attraction(similarity.to(wide))
    losses = []
    for axis in (-1, -2):
        share = logits.log_softmax(dim=axis)
        if mode == "inside":
            losses.append(-(weights.log() + share).logsumexp(dim=axis).mean())
        else:
            losses.append(-(weights * share).mean())
    return torch.stack(losses).sum()


def similarity_matrix(
    versions: Versions, side: int | None = None
) -> Float[Tensor, "versions versions"]:
    """FSIM (chromatic, https://doi.org/10.1109/TIP.2011.2109730) of each two versions, in float64; 1
    on the diagonal.

    `side`: the versions are shrunk to this shorter side first, since the cost grows with the area;
    null: at full size, as in the official code.
    """
    pixels = versions.double() / 255
    height, width = pixels.shape[-2:]
    if side is not None and min(height, width) > side:
        scale = side / min(height, width)
        size = [round(height * scale), round(width * scale)]
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True).clamp(0, 1)
    first, second = torch.triu_indices(len(pixels), len(pixels), 1)
    found = piq.fsim(pixels[first], pixels[second], reduction="none", data_range=1.0)
    matrix = torch.eye(len(pixels), dtype=torch.float64, device=pixels.device)
    matrix[first, second] = found
    matrix[second, first] = found
    return matrix


class SceneContrast:
    """The whole loss of whole images: distorted versions, similarity, two views, contrast.

    The official set has an undistorted image and eight distorted versions of each scene, four
    distortions at two levels, which ones is not known: `kinds` and `levels` are design. A version
    is a function of the image alone, so that the similarity of a scene is computed once; `seed` is
    of noise.

    Args:
        kinds: degradations of `images.degradations`.
        levels: strength of each, from 1 to 5.
        grid: cells a side that fragments are taken from, one a cell.
        patch: side of a fragment in pixels; the network sees images of side `grid` * `patch`.
        temperature: of the contrast.
        mode: of the contrast, `inside` or `outside`.
        similarity_side: shorter side at which FSIM is computed; null: full size.
        after_upsampling: whether the grid of a small image that had to be enlarged lies on the
            enlarged one; false: on its upper left corner (the official code).
        seed: of the degradations.
    """

    def __init__(
        self,
        kinds: Sequence[str] = ("gaussian_blur", "gaussian_noise", "jpeg", "jpeg2000"),
        levels: Sequence[float] = (2, 4),
        grid: int = 7,
        patch: int = 32,
        temperature: float = 0.5,
        mode: str = "inside",
        similarity_side: int | None = None,
        after_upsampling: bool = False,
        seed: int = 0,
    ) -> None:
        self.chains = [(), *((step(kind, level),) for kind in kinds for level in levels)]
        self.grid, self.patch, self.temperature, self.mode = grid, patch, temperature, mode
        self.similarity_side, self.after_upsampling = similarity_side, after_upsampling
        self.seed = seed
        self.similarities: dict[int, Tensor] = {}

    def versions(self, image: UInt8[Tensor, "3 height width"]) -> Versions:
        """The image itself and all its distorted versions."""
        count = len(self.chains)
        seeds = [self.seed * count + k for k in range(count)]
        return degrade(image.expand(count, *image.shape), self.chains, seeds)

    def similarity(self, versions: Versions, scene: int | None) -> Float[Tensor, "n n"]:
        """Similarity of the versions of a scene; kept by its number, null: computed anew."""
        if scene is None:
            return similarity_matrix(versions, self.similarity_side)
        if scene not in self.similarities:
            self.similarities[scene] = similarity_matrix(versions, self.similarity_side).cpu()
        return self.similarities[scene].to(versions.device)

    def views(
        self, versions: Versions, draw: np.random.Generator
    ) -> tuple[Float[Tensor, "n 3 side side"], Float[Tensor, "n 3 side side"]]:
        """Fragments of all versions at the same places, twice; the second ones flipped by chance,
        together.
        """
        both = []
        for _ in range(2):
            cells = grid_of(versions.shape[-2:], self.grid, self.patch, self.after_upsampling)
            offsets = draw_offsets(cells, self.patch, draw)
            both.append(fragments(versions, cells, offsets, self.patch))
        anchor, augmented = both
        axes = [axis for axis in (-1, -2) if draw.random() < 0.5]
        return anchor, augmented.flip(axes) if axes else augmented

    def __call__(
        self,
        encode: Encode,
        images: Sequence[UInt8[Tensor, "3 height width"]],
        scenes: Sequence[int | None],
        draws: Sequence[np.random.Generator],
    ) -> Float[Tensor, ""]:
        """Loss of whole images of any sizes.

        Anchors and augmented fragments are two passes, each with its own batch statistics, as in
        the official code.

        Args:
            encode: the network, from images in [0, 255] to features.
            images: one image a scene.
            scenes: number under which the similarity of each is kept; null: not at all.
            draws: random numbers of each scene.
        """
        anchors, augmented, similarities = [], [], []
        for image, scene, draw in zip(images, scenes, draws, strict=True):
            versions = self.versions(image)
            similarities.append(self.similarity(versions, scene))
            first, second = self.views(versions, draw)
            anchors.append(first)
            augmented.append(second)
        shape = (len(anchors), len(self.chains), -1)
        features: list[Any] = [encode(torch.cat(view)).view(shape) for view in (anchors, augmented)]
        likeness = torch.stack(similarities).to(features[0].dtype)
        return soft_contrast(features[0], features[1], likeness, self.temperature, self.mode)
