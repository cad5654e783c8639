"""The naive protocol of evaluation, a reference to compare with: written from the description in
the specifications.

For each readout (latest, oracle, gated) apart, for each image by itself: the file is decoded; for
each head that the readout needs the norms of the task are loaded and the image passes the network;
the gate takes one more pass and reads the centroids of each task from files. After each epoch of
training, every image of the sets seen so far passes with the current norms and head. Nothing is
shared, batched or remembered. Independent of the package's evaluation: decoding is Pillow, heads
and gate are NumPy from their formulas.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from iqa_lightning.methods.tsn_iqa import TSNIQA

READOUTS = ("latest", "oracle", "gated")
TEMPERATURE = 32.0


class Naive:
    """Scores of a TSN-IQA model as it stands, one image, one head, one readout at a time; counts
    its passes.
    """

    def __init__(self, method: TSNIQA, folder: Path) -> None:
        self.method, self.folder, self.passes = method, folder, 0
        gate: Any = method.gate
        for level, centroids in enumerate(gate.centroids):
            for k, count in enumerate(gate.counts.tolist(), start=1):
                np.save(
                    folder / f"{level}_{k}.npy", centroids[k - 1, :count].detach().double().numpy()
                )

    def load(self, index: int) -> None:
        """Load the norms of a task into the network."""
        self.method.norms.use(index)

    def head(self, image: Tensor, k: int) -> float:
        """Score of head k (from 1): the cosine of feature and head."""
        self.load(k)
        self.passes += 1
        feature = self.method.backbone(image[None])[0].double().numpy()
        weight = self.method.heads.weight[k - 1].detach().double().numpy()
        return float(feature @ weight / np.linalg.norm(weight) / np.linalg.norm(feature))

    def gate(self, image: Tensor, t: int) -> NDArray[np.float64]:
        """Weights of heads 1..t: the mean over two levels of the softmin of distances to the
        nearest centroid.
        """
        self.load(0)
        self.passes += 1
        weights = []
        for level, value in enumerate(self.method.backbone.stages(image[None])):
            point = value[0].double().numpy()
            point /= np.linalg.norm(point)
            stored = [np.load(self.folder / f"{level}_{k}.npy") for k in range(1, t + 1)]
            nearest = np.array(
                [np.linalg.norm(centroids - point, axis=1).min() for centroids in stored]
            )
            raw = np.exp(-TEMPERATURE * (nearest - nearest.min()))
            weights.append(raw / raw.sum())
        return np.mean(weights, axis=0)

    def read(self, file: Path) -> Tensor:
        """A file, decoded."""
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)

    def in_training(self, file: Path, t: int) -> float:
        """One score of an image after an epoch of task t."""
        return self.head(self.read(file), t)

    def score(self, file: Path, readout: str, t: int, owner: int) -> float:
        """One score of an image after task t (0: the head as it starts); `owner` is the task that
        learns its set.
        """
        image = self.read(file)
        if readout == "oracle":
            return self.head(image, owner) if owner <= t else float("nan")
        if readout == "latest" or t < 2:
            return self.head(image, max(t, 1))
        scores = np.array([self.head(image, k) for k in range(1, t + 1)])
        return float(self.gate(image, t) @ scores)
