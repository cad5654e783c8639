"""Meta-learning of prompts over distortions: the first stage of GRMP-IQA.

Li et al., "Few-shot image quality assessment via adaptation of vision-language models", ICCV 2025,
https://arxiv.org/abs/2409.05381; official code https://github.com/LXDxmu/GRMP-IQA.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from iqa_lightning.losses.soft_labels import soft_label_loss
from iqa_lightning.methods.base import OptimizerFactory
from iqa_lightning.models.clip import CLIP
from iqa_lightning.models.prompted_clip import PREFIX, Prompts, use_statistics
from iqa_lightning.pretraining.episodes import DistortionTasks, Episodes, Key, split
from iqa_lightning.pretraining.metaiqa import copy_state, descend, floats
from iqa_lightning.seeds import seed_of

ADAM = ("official", "carry", "per_task")


class PromptPretraining(pl.LightningModule):
    """Prompts from which few images of a distortion, or of a new data set, are enough. CLIP stands
    still.

    A batch is one task. A worker takes a step of the optimiser on each batch of its support images
    and one on a batch of its query images. After the last task of a group (the distortions of one
    data set) the shared prompts move by `outer_lr` times the mean of how far the worker was from
    them after each task.

    Args:
        backbone: a CLIP with a vision transformer.
        optimizer: builds the optimiser of the steps.
        outer_lr: see above.
        reset_inner: whether the worker starts from the shared prompts at each task, which is
            Reptile and what the paper describes; false: it never does (the official code), so that
            the shared prompts are a slow average of one long training.
        adam: when the optimiser forgets its moments: `per_task`, never (`carry`), or at each task
            of all groups but the first (`official`).
        words: what the two classes are called, the better one first.
        context: number of text tokens.
        visual: number of visual tokens of a block.
        deep: visual tokens in all blocks, or in the first alone.
        dropout: of the visual tokens.
        extra_norm: one LayerNorm more after the last block.
        statistics: what images are normalised by, `imagenet` (the official code) or `clip`.

    Raises:
        ValueError: an unknown choice, or a backbone without places for tokens.
    """

    def __init__(
        self,
        backbone: CLIP,
        optimizer: OptimizerFactory,
        outer_lr: float = 0.01,
        reset_inner: bool = False,
        adam: str = "official",
        words: Sequence[str] = ("high quality", "low quality"),
        context: int = 4,
        visual: int = 100,
        deep: bool = True,
        dropout: float = 0.1,
        extra_norm: bool = True,
        statistics: str = "imagenet",
    ) -> None:
        super().__init__()
        if adam not in ADAM:
            raise ValueError(f"method.adam={adam!r}: choose one of {ADAM}")
        self.automatic_optimization = False
        self.prompts = Prompts(backbone, words, context, visual, deep, dropout, extra_norm)
        self.worker = Prompts(backbone, words, context, visual, deep, dropout, extra_norm)
        copy_state(self.prompts, self.worker)
        self.prompts.requires_grad_(False)
        self.clip = backbone.requires_grad_(False)
        use_statistics(self.clip, statistics)
        self.optimizer_factory, self.outer_lr = optimizer, outer_lr
        self.reset_inner, self.adam = reset_inner, adam
        self.moved: dict[str, Tensor] = {}  # sums over the tasks of a group; none between epochs
        self.visited = 0

    def weights(self) -> dict[str, Tensor]:
        """The shared prompts."""
        return {f"{PREFIX}{name}": value for name, value in self.prompts.state_dict().items()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Over the worker."""
        return self.optimizer_factory([{"params": list(self.worker.parameters())}])

    def on_train_epoch_start(self) -> None:
        """Groups begin with an epoch."""
        if self.trainer.world_size > 1:
            raise ValueError(
                "pretraining=grmp_iqa goes from task to task and cannot be shared out: one device"
            )
        self.moved, self.visited = {}, 0

    def training_step(self, batch: list[dict[str, Any]], batch_idx: int) -> None:  # Lightning's
        """One task, and after the last of its group the outer step."""
        (episode,) = batch
        self.log("train/loss", self.learn(episode, self.optimizers()), batch_size=1)

    def learn(self, episode: dict[str, Any], optimizer: Any) -> Float[Tensor, ""]:
        """Steps on one task; the loss of its last query batch."""
        if self.reset_inner:
            copy_state(self.prompts, self.worker)
        if self.adam == "per_task" or (self.adam == "official" and episode["group"] > 0):
            optimizer.optimizer.state.clear()
        for support, query in zip(episode["support"], episode["query"], strict=True):
            descend(self.worker, support, optimizer, self.loss)
            loss = descend(self.worker, query, optimizer, self.loss)
        shared = floats(self.prompts)
        for name, value in floats(self.worker).items():
            self.moved[name] = self.moved.get(name, torch.zeros_like(value)) + value - shared[name]
        self.visited += 1
        if self.visited == episode["tasks"]:
            for name, value in shared.items():
                value.add_(self.outer_lr * self.moved[name] / self.visited)
            self.moved, self.visited = {}, 0
        return loss

    def loss(self, prompts: nn.Module, batch: dict[str, Tensor]) -> Float[Tensor, ""]:
        """Cross-entropy of the probability of the better class to the rating in [0, 1]."""
        assert isinstance(prompts, Prompts)
        feature = prompts.image_feature(self.clip, batch["image"])
        return soft_label_loss(prompts.logits(self.clip, feature), batch["target"])


class PromptEpisodes(Episodes):
    """Episodes that go through all support images once, the last batch being what is left; query
    batches start again where they end.

    An item also says its `group` (from 0) and how many `tasks` that has.
    """

    def __init__(self, episodes: Episodes, groups: Sequence[int]) -> None:
        vars(self).update(vars(episodes))
        self.groups = list(groups)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """The episode of a key; a pure function of it."""
        task, shape = key[0], self.shape
        visit = seed_of(self.seed, "episode", "", "pretrain", key[1], task, key[2])
        generator = np.random.default_rng(visit)
        support, query = split(self.codes[task], shape.support_share, generator)
        supports = in_batches(support, shape.support_batch)
        queries = islice(cycle(in_batches(query, shape.query_batch)), len(supports))
        group = self.groups[task]
        return {
            "support": [self.batch(task, rows, generator) for rows in supports],
            "query": [self.batch(task, rows, None) for rows in queries],
            "group": group,
            "tasks": self.groups.count(group),
        }


class GroupSampler(Sampler[list[Key]]):
    """One task at a time: all of the first group in a new order, then all of the next."""

    def __init__(self, groups: Sequence[int], seed: int, epoch: int) -> None:
        self.groups, self.seed, self.epoch = np.array(groups), seed, epoch

    def __iter__(self) -> Iterator[list[Key]]:
        """Keys of the tasks."""
        generator = np.random.default_rng(seed_of(self.seed, "batches", "", "pretrain", self.epoch))
        for group in np.unique(self.groups):
            for task in generator.permutation(np.flatnonzero(self.groups == group)).tolist():
                yield [(task, self.epoch, 0)]

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.groups)


class PromptTasks(DistortionTasks):
    """The training images of distortion data sets as episodes, one task a batch; those of one kind
    of data set are a group.

    Args:
        options: see `DistortionTasks`, without `tasks`, `visits` and `batches`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        kinds = [type(data).__name__ for data in self.data]
        order = list(dict.fromkeys(kinds))
        self.groups = [order.index(kind) for kind in kinds]

    def setup(self, stage: str | None = None) -> None:  # there is training only
        """Read all tasks."""
        super().setup(stage)
        assert self.episodes is not None, "set by the line above"
        if not isinstance(self.episodes, PromptEpisodes):
            self.episodes = PromptEpisodes(self.episodes, self.groups)

    def train_dataloader(self) -> DataLoader[Any]:
        """Tasks of the current epoch."""
        trainer = self.trainer
        assert trainer is not None, "not attached to a trainer"
        assert self.episodes is not None, "setup() comes first"
        return DataLoader(
            self.episodes,
            batch_sampler=GroupSampler(self.groups, self.seed, trainer.current_epoch),
            collate_fn=list,
            num_workers=self.num_workers,
            generator=torch.Generator(),
        )


def in_batches(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Consecutive batches, the last being what is left."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]
