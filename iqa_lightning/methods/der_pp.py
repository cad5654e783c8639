"""Dark experience replay on scores.

Buzzega et al., "Dark experience for general continual learning: a strong, simple baseline", NeurIPS
2020, https://arxiv.org/abs/2004.07211 (DER++), carried over from class logits to quality scores;
not part of an IQA paper.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.replay import MultiHeadReplay
from iqa_lightning.stream.schedule import Task


class DERpp(MultiHeadReplay):
    """Remembered images come with the scores that their head gave them when their task was learnt.

    Added to the loss of MH-CL-Replay: the mean squared difference between the score of the image's
    own head now and the one kept then. The kept score is that of the whole image, on the scale of
    the training (heads of free norm), while training shows crops of it.

    `rows` (task, slot) says which training image of its task a kept score belongs to, -1 for none;
    both are frozen parameters, which DDP does not send around at each step as it does buffers.

    Args:
        weight: of the ratings of remembered images, for each earlier task.
        score_weight: of the difference to the kept scores.
        options: see `MultiHeadReplay`.
    """

    def __init__(self, weight: float = 0.5, score_weight: float = 0.5, **options: Any) -> None:
        super().__init__(weight=weight, **options)
        self.score_weight = score_weight
        assert self.training_images.replay_memory is not None
        self.replay_memory = self.training_images.replay_memory
        shape = (len(self.tasks), self.replay_memory.capacity)
        self.rows = nn.Parameter(torch.full(shape, -1), requires_grad=False)
        self.scores = nn.Parameter(torch.zeros(shape), requires_grad=False)

    def on_task_end(self, task: Task, images: Iterable[Batch], batches: Iterable[Batch]) -> None:
        """Keep the scores of the images that the memory may hold."""
        super().on_task_end(task, images, batches)
        self.heads.train()  # free norm
        (scores,) = self.collect(images, lambda image: [self.score(image)[:, None]])
        rows = self.replay_memory.order(task.name, len(scores))[: self.replay_memory.capacity]
        with torch.no_grad():
            self.rows[task.t - 1, : len(rows)] = torch.from_numpy(rows).to(self.rows.device)
            self.scores[task.t - 1, : len(rows)] = scores[rows, 0]

    def kept_scores(self, memory: Batch) -> Float[Tensor, " images"]:
        """The kept score of each image of a memory batch."""
        own = memory["task"] - 1
        found = self.rows[own] == memory["index"][:, None]
        return self.scores[own].masked_fill(~found, 0.0).sum(dim=1)

    def replay_loss(
        self, feature: Float[Tensor, "images width"], memory: Batch
    ) -> Float[Tensor, ""]:
        """Loss against the ratings and against the kept scores."""
        heads = torch.stack([self.heads(feature, k) for k in range(self.head())], dim=1)
        own = heads.gather(1, (memory["task"] - 1)[:, None])[:, 0]
        dark = F.mse_loss(own, self.kept_scores(memory))
        return super().replay_loss(feature, memory) + self.score_weight * dark
