"""TSN-Ridge: the norms of a task are trained, its score is then refitted in closed form.

TSN-IQA (https://arxiv.org/abs/2107.13429) with three parts of a score instead of one, and an LDA
gate; all else here is design. Nothing is stored of old images.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.readouts import HeadScores, Known
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.backbones import Images
from iqa_lightning.models.normalization import chunks
from iqa_lightning.models.ridge import fit_ridge, z_scored
from iqa_lightning.stream.schedule import Task

PARTS = ("trained", "own", "frozen")


class TSNRidge(TSNIQA):
    """Norms and a head per task as in TSN-IQA; the score of a task is a weighted sum of three
    parts.

    - `trained`: the head that was trained with the norms;
    - `own`: a ridge head on the stage statistics under the task's own trained norms, solved when
      the task ends;
    - `frozen`: a ridge head on the stage statistics of the network as it starts, as in `ridge`.

    Each part has mean 0 and deviation 1 over the task's training images, so that parts add up and
    heads are on one scale when the gate mixes them. Penalties by exact leave-one-out. A task
    depends on no other one. While a task trains, its epochs are judged by the trained head alone.

    Args:
        weights: of the parts, by name; 0 leaves one out.
        options: of `TSNIQA`.

    Raises:
        ValueError: weights that are not of these parts, negative, or all 0; a joint task.
    """

    def __init__(self, weights: Mapping[str, float], **options: Any) -> None:
        super().__init__(**options)
        values = [float(weights.get(part, -1)) for part in PARTS]
        if set(weights) != set(PARTS) or min(values) < 0 or not any(values):
            raise ValueError(
                f"method.weights={dict(weights)}: give each of {PARTS} a weight of 0 or more, one "
                "of them above 0"
            )
        self.weights = dict(zip(PARTS, values, strict=True))
        count, width = len(self.tasks), self.backbone.statistics_width

        def kept(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=False)

        # of the parts `own` and `frozen` the maps; of each part mean and deviation in training
        self.maps = nn.ParameterDict({part: kept(count, width) for part in PARTS[1:]})
        self.centre, self.spread = kept(len(PARTS), count), kept(len(PARTS), count)

    def on_task_end(self, task: Task, images: Iterable[Batch], batches: Iterable[Batch]) -> None:
        """Solve both ridge heads, and put the parts on one scale."""
        super().on_task_end(task, images, batches)
        if len(task.datasets) > 1:
            raise ValueError(
                f"method=tsn_ridge cannot pool the scales of {task.datasets}: make each a task"
            )
        mos, (trained, own, frozen) = self.collect_rated(images, self.training_features)
        target = z_scored(mos.cpu().double().numpy())
        k = task.t - 1
        with torch.no_grad():
            for part, features in (("own", own), ("frozen", frozen)):
                fit = fit_ridge(features.cpu().double().numpy(), target)
                self.maps[part][k] = torch.from_numpy(fit.weight).to(self.device)
            for i, scores in enumerate(self.parts_of(k, trained, own, frozen)):
                deviation = scores.std(correction=0)
                self.centre[i, k] = scores.mean()
                self.spread[i, k] = torch.where(deviation > 0, deviation, 1.0)

    def training_features(self, image: Images) -> list[Float[Tensor, "batch width"]]:
        """Of the current task: score of its head, statistics under its norms and as the network
        starts.
        """
        self.sets.use(self.seen)
        feature, (own,) = self.backbone.with_stages(image, None, "stages")
        trained = self.heads(feature, self.seen - 1)
        return [trained, own, self.frozen_statistics(image)]

    def frozen_statistics(self, image: Images) -> Float[Tensor, "batch statistics_width"]:
        """Stage statistics of the network as it starts."""
        self.sets.use(0)
        return self.backbone.statistics(image)

    def parts_of(self, k: int, trained: Tensor, own: Tensor, frozen: Tensor) -> list[Tensor]:
        """The parts of the score of a task (from 0), each on its own scale, in float64."""
        maps = self.maps
        return [
            trained.double(),
            own.double() @ maps["own"][k],
            frozen.double() @ maps["frozen"][k],
        ]

    def combined(self, k: int, trained: Tensor, own: Tensor, frozen: Tensor) -> Tensor:
        """The score of a task (from 0)."""
        parts = self.parts_of(k, trained, own, frozen)
        scores = [
            self.weights[part] * (scores - self.centre[i, k]) / self.spread[i, k]
            for i, (part, scores) in enumerate(zip(PARTS, parts, strict=True))
        ]
        return torch.stack(scores).sum(dim=0).float()

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """Scores of all tasks so far and the gate's weights."""
        if self.task == 0:
            return super().head_scores(image, known)
        if (
            self.gate is not None and self.gate.features == "stages"
        ):  # the same features, which are read once
            (frozen,) = known.gate_features or [self.frozen_statistics(image)]
            known = replace(known, gate_features=[frozen])
        else:
            frozen = self.frozen_statistics(image)
        final, tasks = known.final_scores, dict(enumerate(self.tasks[: self.seen], start=1))
        missing = [t for t, task in tasks.items() if task not in final]
        computed = self.statistics_of(image, missing, known.frozen_output)
        found = dict(zip(missing, computed, strict=True))
        columns = [
            final[task] if task in final else self.combined(t - 1, *found[t], frozen)
            for t, task in tasks.items()
        ]
        return self.weigh_heads(torch.stack(columns, dim=1), image, known)

    def statistics_of(
        self, image: Images, tasks: Sequence[int], fixed: Tensor | None
    ) -> list[tuple[Tensor, Tensor]]:
        """Trained score and stage statistics by the norms of several tasks, as many at once as
        pays.
        """
        found: list[tuple[Tensor, Tensor]] = []
        for some in chunks(tasks, image, self.sets.can_branch):
            if len(some) == 1:
                self.sets.use(some[0])
                feature, (statistics,) = self.backbone.with_stages(image, fixed, "stages")
            else:
                with self.sets.branches(some):
                    feature, (statistics,) = self.backbone.with_stages(image, fixed, "stages")
                self.backbone.images_forwarded += (len(some) - 1) * len(image)
            features, rows = feature.chunk(len(some)), statistics.chunk(len(some))
            found += [
                (self.heads(feature, t - 1), row)
                for t, feature, row in zip(some, features, rows, strict=True)
            ]
        return found

    def added_parameters(self) -> int:
        """A task adds norms, a head and two maps."""
        return super().added_parameters() + 2 * self.backbone.statistics_width
