"""How far an image lies from all that was learnt, as a percentile of validation images."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from iqa_lightning.models.gating import LDAGate

OUTSIDE = 99.0
"""The percentile above which an image counts as outside of what was learnt."""


FOLDS = 5


class Outside(nn.Module):
    """Mahalanobis distance to the nearest data set under the shrunk covariance of `LDAGate`, as a
    percentile of the distances of validation images.

    These distances are held out: each image is compared with statistics of the others, by fifths.
    Between two of them the percentile is interpolated; beyond the largest it is 100.

    Args:
        width: of the features.
        sets: number of data sets.
        images: number of validation images.
    """

    def __init__(self, width: int, sets: int, images: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.whitening: Tensor
        self.centres: Tensor
        self.distances: Tensor
        for name, shape in (
            ("mean", (width,)),
            ("whitening", (width, width)),
            ("centres", (sets, width)),
            ("distances", (images,)),
        ):
            self.register_buffer(name, torch.zeros(shape))

    @classmethod
    def fit(cls, features: Mapping[str, Float[Tensor, "images width"]]) -> "Outside":
        """That of validation features by data set; each must have an image, all together two."""
        sets = list(features.values())
        starts = np.cumsum([0, *map(len, sets)])
        folds = [
            (start + torch.arange(len(part))) % FOLDS
            for start, part in zip(starts.tolist(), sets, strict=False)
        ]
        held_out = []
        for fold in range(FOLDS):
            own = [part[k == fold] for part, k in zip(sets, folds, strict=True)]
            rest = [part[k != fold] for part, k in zip(sets, folds, strict=True)]
            rest = [part for part in rest if len(part)]
            if rest and sum(map(len, own)):
                gate = lda(rest)
                stacked = gate.distances([torch.cat(own)], len(rest))[0]
                held_out.append(stacked.amin(dim=1))
        found = cls(sets[0].shape[1], len(sets), sum(map(len, held_out)))
        mean, whitening, centres = lda(sets).solve(len(sets))
        for buffer, value in (
            (found.mean, mean),
            (found.whitening, whitening),
            (found.centres, centres),
            (found.distances, torch.cat(held_out).sort().values),
        ):
            buffer.copy_(value)
        return found

    def distance(self, feature: Float[Tensor, "batch width"]) -> Float[Tensor, "batch sets"]:
        """Mahalanobis distance to each data set, in float64."""
        white = (feature.double() - self.mean.double()) @ self.whitening.double()
        differences = white[:, None] - self.centres.double()
        return differences.square().sum(dim=2).sqrt()

    def forward(self, feature: Float[Tensor, "batch width"]) -> Float[Tensor, " batch"]:
        """Percentiles from 0 to 100, in float64."""
        near, known = self.distance(feature).amin(dim=1), self.distances.double()
        if len(known) < 2:
            return 100.0 * (near > known[:1]).double()
        gaps = known.diff().clamp_min(1e-12)
        passed = ((near[:, None] - known[:-1]) / gaps).clamp(0.0, 1.0)
        return 100.0 * passed.mean(dim=1)


MOST = 256
"""Validation images of a data set whose features are kept with the run."""


def reference_tensors(
    features: Mapping[str, Float[Tensor, "images width"]],
) -> dict[str, NDArray[np.float32]]:
    """What a run keeps to compare new images with: features by data set, evenly picked where there
    are many, and what follows from them.
    """
    kept = {
        name: part[np.unique(np.linspace(0, len(part) - 1, MOST).round().astype(int))]
        for name, part in features.items()
    }
    found = {f"features/{name}": part for name, part in kept.items()}
    found |= {f"outside/{name}": value for name, value in Outside.fit(kept).state_dict().items()}
    return {name: value.cpu().float().contiguous().numpy() for name, value in found.items()}


def outside_of(tensors: Mapping[str, NDArray[np.float32]]) -> Outside | None:
    """What `reference_tensors` gave; none where it is not there."""
    own = {
        name.removeprefix("outside/"): torch.from_numpy(value)
        for name, value in tensors.items()
        if name.startswith("outside/")
    }
    if not own:
        return None
    sets, width = own["centres"].shape
    found = Outside(width, sets, len(own["distances"]))
    found.load_state_dict(own)
    return found


def lda(sets: list[Float[Tensor, "images width"]]) -> LDAGate:
    """The discriminant analysis of some data sets."""
    gate = LDAGate([sets[0].shape[1]], len(sets), stages=1)
    for t, part in enumerate(sets, start=1):
        gate.fit(t, [part])
    return gate
