"""Experience replay: pairs of remembered images, with their ratings, beside those of the current
task.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.finetune import MultiHead, SeparateModels, SingleHead
from iqa_lightning.stream.training_images import ReplayMemory, TrainingImages


class SingleHeadReplay(SingleHead):
    """Remembered pairs of all earlier tasks join the batch of the one head (SH-CL-Replay of
    arXiv:2102.09717).

    There is no replay in the warm-up.

    Args:
        replay_memory: keywords of `ReplayMemory`.
        options: see `SingleHead`.
    """

    def __init__(self, replay_memory: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.training_images = TrainingImages("task", ReplayMemory(**(replay_memory or {})))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Fidelity loss, the mean over all pairs of the batch and its memory."""
        return super().training_step(joined(batch), batch_idx)


class MultiHeadReplay(MultiHead):
    """The head of each earlier task goes on learning from remembered pairs of that task
    (MH-CL-Replay, same paper).

    The loss is that of the current task plus `weight` times the sum, over earlier tasks, of the
    mean fidelity loss of the task's head on its remembered pairs. One forward pass takes the batch
    and its memory. There is no replay in the warm-up.

    Args:
        replay_memory: keywords of `ReplayMemory`.
        weight: of each earlier task.
        options: see `MultiHead`.
    """

    def __init__(
        self, replay_memory: Mapping[str, Any] | None = None, weight: float = 1.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.training_images = TrainingImages("task", ReplayMemory(**(replay_memory or {})))
        self.weight = weight

    def head_parameters(self) -> list[nn.Parameter]:
        """Heads of all tasks so far: the memory trains the earlier ones."""
        return list(self.heads.weight)[: self.seen]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of the current task and of the memory."""
        if "replay" not in batch:
            return super().training_step(batch, batch_idx)
        memory = batch["replay"]
        both = joined(batch)
        with self.pair_passes(both):
            feature = self.backbone(both["image"])
        replay = self.replay_loss(feature[len(batch["image"]) :], memory)
        loss = self.task_loss(feature, batch) + replay
        self.log("train/replay", replay, batch_size=len(memory["pairs"]))
        self.log("train/loss", loss, batch_size=len(batch["pairs"]))
        return loss

    def task_loss(self, feature: Float[Tensor, "images width"], batch: Batch) -> Float[Tensor, ""]:
        """Loss of the current head; features of the batch's images and then of its memory's."""
        own = feature[: len(batch["image"])]
        return pair_loss(self.heads(own, self.head()), batch["pairs"], batch["target"], self.link)

    def replay_loss(
        self, feature: Float[Tensor, "images width"], memory: Batch
    ) -> Float[Tensor, ""]:
        """Loss of the earlier heads, each on the memory of its task, from the features of the
        memory's images.
        """
        terms = [
            pair_loss(
                self.heads(feature, t - 1), memory["pairs"][mine], memory["target"][mine], self.link
            )
            for t, mine in by_task(memory)
        ]
        return self.weight * torch.stack(terms).sum()


def joined(batch: Batch) -> Batch:
    """Images, pairs and targets of a batch and of its memory as one batch."""
    if "replay" not in batch:
        return batch
    memory = batch["replay"]
    pairs = torch.cat([batch["pairs"], memory["pairs"] + len(batch["image"])])
    both = {key: torch.cat([batch[key], memory[key]]) for key in ("image", "target")}
    return both | {"pairs": pairs}


def by_task(memory: Batch) -> Iterator[tuple[int, Int[Tensor, " pairs"]]]:
    """Each task that has images in a memory batch, with the places of its pairs there."""
    owner = memory["task"][memory["pairs"][:, 0]]
    for t in memory["task"].unique().tolist():
        yield t, (owner == t).nonzero()[:, 0]


class GDumb(SeparateModels):
    """At each task the start weights are trained on what the memory holds once that task is part of
    it.

    The best epoch is chosen on the current task's validation part, since the memory holds no
    validation images.

    Args:
        replay_memory: keywords of `ReplayMemory`, of which `shares` has no meaning here.
        options: see `SeparateModels`.
    """

    def __init__(self, replay_memory: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.training_images = TrainingImages(
            "replay_memory", ReplayMemory(**(replay_memory or {}))
        )

    def added_parameters(self) -> int:
        """A task adds nothing: the model is replaced."""
        return 0
