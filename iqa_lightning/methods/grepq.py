"""GRepQ: ridge regression on features that were learnt without scores, and a score without any.

Srinath et al., "Learning generalizable perceptual representations for data-efficient no-reference
image quality assessment", WACV 2024, https://arxiv.org/abs/2312.04838; facts from the official
code, https://github.com/suhas-srinath/GRepQ (MIT). Its way through a stream is design.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.datasets.demo import PHOTOGRAPHS, photograph
from iqa_lightning.distributed import world_size
from iqa_lightning.images.opening import Rule
from iqa_lightning.losses.group_contrast import extreme_groups, group_contrast
from iqa_lightning.losses.scene_contrast import SceneContrast
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.gated import GatedHeads
from iqa_lightning.methods.readouts import NOTHING, HeadScores, Known, Prediction
from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.models.backbones import Backbone, Images, Stages
from iqa_lightning.models.clip import CLIP
from iqa_lightning.models.clip_any_size import prompt_quality
from iqa_lightning.models.gating import Gate
from iqa_lightning.models.naturalness import Naturalness
from iqa_lightning.models.ridge import RidgeStatistics
from iqa_lightning.models.ridge_sums import ridge_of_sums
from iqa_lightning.models.trunk import Trunk
from iqa_lightning.seeds import seed_of
from iqa_lightning.stream.schedule import Position, Task
from iqa_lightning.stream.training_images import TrainingImages


class GRepQ(GatedHeads):
    """Ridge regression on the features of `high` and of the backbone, side by side.

    When a task ends, the sums over its images join those of the earlier tasks: the readout `single`
    is the ridge over all tasks so far, exactly as if all images were there, so with frozen encoders
    nothing is forgotten. `oracle` and `gated` read a ridge of each task's own. Scores of a task go
    to [0, 1] by the range of its training images, since scales differ.

    With `adapts`, the encoders learn the images of each task without their scores, by the two
    losses of the pre-training; then features move under the sums of earlier tasks, and forgetting
    shows. A task's own images stand for the undistorted scenes, distorted as they may be.

    Args:
        high: another backbone, such as CLIP's RN50 in the paper; null: none.
        alphas: strengths of the ridge to choose from, by generalised cross-validation.
        standardize: whether features have unit variance before they are shrunk.
        gate: a class of `models.gating`, as a partial; null: no readout `gated`.
        adapts: whether the encoders learn.
        weight: of keeping the features that the encoders gave when the task began, squared error.
        scenes: images of each batch, over all ranks, that the contrast of distorted versions takes.
        contrast: a partial of `losses.scene_contrast.SceneContrast`.
        divisor: a batch of b images has b // `divisor` best and worst, where `high` is a CLIP.
        seed: of distortions and fragments.
        options: see `ContinualMethod`.

    Raises:
        ValueError: `gate` together with `adapts`, or a joint task.
    """

    readouts: tuple[str, ...] = ("single", "oracle")

    def __init__(
        self,
        backbone: Backbone,
        high: Backbone | None = None,
        alphas: Sequence[float] = (0.1, 1.0, 10.0, 100.0),
        standardize: bool = True,
        gate: Callable[..., Gate] | None = None,
        adapts: bool = False,
        weight: float = 0.0,
        scenes: int = 4,
        contrast: Callable[..., SceneContrast] = SceneContrast,
        divisor: int = 32,
        seed: int = 0,
        **options: Any,
    ) -> None:
        parts = [backbone] if high is None else [high, backbone]
        super().__init__(backbone=Trunk(parts, frozen=not adapts), **options)
        if gate is not None and adapts:
            raise ValueError(
                "method.gate reads features that training must not change: set method.adapts=false "
                "or method.gate=null"
            )
        self.alphas, self.standardize = list(alphas), standardize
        self.adapts, self.weight, self.scenes = adapts, weight, scenes
        self.divisor, self.seed, self.contrast = divisor, seed, contrast(seed=seed)
        self.selects_best = not adapts  # validation says nothing of what learns without scores
        if not adapts:
            self.training_images = TrainingImages("none")
        width = self.backbone.width
        self.sums = RidgeStatistics(width)
        start = width**-0.5 * torch.randn(width + 1, dtype=torch.float64)
        # trainable only so that an optimiser, and DDP, find a parameter
        self.ridge = nn.Parameter(start)
        self.task_ridges = nn.Parameter(start.repeat(len(self.tasks), 1), requires_grad=False)
        self.clip: CLIP | None = high if isinstance(high, CLIP) and adapts else None
        if self.clip is not None:
            self.clip.freeze(self.clip.text_parameters())
            projector = nn.Sequential(nn.Linear(self.clip.width, 128), nn.ReLU())
            self.projector = projector.requires_grad_(False)  # as in the official code
        self.previous: Teacher[Backbone, nn.Module] | None = (
            Teacher(self.backbone) if adapts and weight else None
        )
        self.draws_of: tuple[str, str, int] | None = None
        if gate is not None:
            self.gate = gate(self.backbone, len(self.tasks))
            self.readouts = (*self.readouts, "gated")

    @property
    def low(self) -> Backbone:
        """The network of the contrast between distorted versions: the run's backbone."""
        assert isinstance(self.backbone, Trunk)
        low = self.backbone.encoders[-1]
        assert isinstance(low, Backbone)
        return low

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score by the ridge over all tasks that have ended."""
        return affine(self.backbone(image), self.ridge)

    def selection_score(self, image: Images, known: Known) -> Float[Tensor, " batch"]:
        """`score`."""
        return affine(self.backbone(image, known.frozen_output), self.ridge)

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """Scores by the ridge of each task so far, and their weights if there is a gate."""
        feature = self.backbone(image, known.frozen_output)
        scores = [affine(feature, self.task_ridges[k]) for k in range(self.seen)]
        read = [feature] if self.gate is not None and self.gate.features == "last" else None
        known = replace(known, gate_features=known.gate_features or read)
        return self.weigh_heads(torch.stack(scores, dim=1), image, known, read)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Prediction:
        """Columns of the prediction records; `single` is the ridge over all tasks."""
        known = batch.get("known", NOTHING)
        feature = self.backbone(batch["image"], known.frozen_output)
        known = replace(known, frozen_output=feature)
        said = super().predict_step(batch | {"known": known}, batch_idx)
        columns = said.columns | {"single": affine(feature, self.ridge)}
        return Prediction(columns, said.gate_features)

    def gate_stages(self, image: Images) -> Stages:
        """What the gate reads of the encoders."""
        assert self.gate is not None
        return self.backbone.gate_stages(image, self.gate.features)

    def body_parameters(self) -> list[nn.Parameter]:
        """The encoders, where they learn."""
        return self.backbone.trainable()

    def head_parameters(self) -> list[nn.Parameter]:
        """The ridge, which hooks alone change."""
        return [self.ridge]

    def added_parameters(self) -> int:
        """A task adds a ridge."""
        return self.backbone.width + 1

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Keep the encoders as they are."""
        super().on_task_start(task, images)
        if len(task.datasets) > 1:
            raise ValueError(
                f"method=grepq cannot pool the scales of {', '.join(task.datasets)}: make each a "
                "task of its own, the sums of all tasks are joint all the same"
            )
        if self.previous is not None:
            self.previous.take(self.backbone)

    def on_phase_start(self, position: Position) -> None:
        """Random numbers are a function of epoch and image."""
        super().on_phase_start(position)
        self.draws_of = None
        if self.adapts and position.phase.trains == "all":
            self.draws_of = position.words

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """0 with frozen encoders or in a phase of heads, else the losses of both encoders without
        scores, and what keeps the features.
        """
        if self.draws_of is None:
            return (0.0 * self.ridge.sum()).float()
        count = max(1, min(self.scenes // world_size(), len(batch["image"])))
        draws = [
            np.random.default_rng(seed_of(self.seed, "degradations", *self.draws_of, i))
            for i in batch["index"][:count].tolist()
        ]
        loss = self.contrast(self.low, batch["image"][:count], [None] * count, draws)
        if self.clip is not None:
            feature = self.clip(batch["image"])
            worst, best = extreme_groups(prompt_quality(self.clip, feature.detach()), self.divisor)
            shown = self.projector(feature.float())
            loss = loss + group_contrast(shown[worst], shown[best])
        if self.previous is not None:
            before = self.previous(batch["image"])
            loss = loss + self.weight * F.mse_loss(self.backbone(batch["image"]), before)
        return loss

    def on_task_end(self, task: Task, images: Iterable[Batch], batches: Iterable[Batch]) -> None:
        """Solve for the ridge of the task and for that of all tasks so far; fit the gate."""
        super().on_task_end(task, images, batches)
        mos, (feature, *stages) = self.collect_rated(images, self.read_images)
        low, high = mos.min(), mos.max()
        x, y = feature.cpu().double().numpy(), ((mos - low) / (high - low)).cpu().double().numpy()
        own = RidgeStatistics(self.backbone.width)
        own.add(x, y)
        self.sums.add(x, y)
        for sums, place in ((own, self.task_ridges[task.t - 1]), (self.sums, self.ridge)):
            found, _ = ridge_of_sums(sums, self.alphas, self.standardize)
            place.data.copy_(found)
        if self.gate is not None:
            self.gate.fit(task.t, stages)

    def read_images(self, image: Images) -> list[Float[Tensor, "batch width"]]:
        """The features and what the gate reads."""
        feature = self.backbone(image)
        if self.gate is None:
            return [feature]
        stages = [feature] if self.gate.features == "last" else self.gate_stages(image)
        return [feature, *stages]


class GRepQZeroShot(ContinualMethod):
    """GRepQ without any score: how natural the patches of an image are, plus, where `high` is a
    CLIP, how much it is a good photo rather than a bad one.

    No task changes it: all rows of its matrices are equal. Which pristine images the authors took
    is not known.

    Args:
        high: a CLIP; null: naturalness alone.
        pristine: a folder of pristine photographs; null: those of scikit-image and scikit-learn.
        patch: side of a patch in pixels.
        stride: pixels between the patches of a rated image.
        options: see `ContinualMethod`.

    Raises:
        ValueError: `high` is no CLIP, or there are no pristine images.
    """

    readouts = ("single",)
    training_images = TrainingImages("none")

    def __init__(
        self,
        backbone: Backbone,
        high: Backbone | None = None,
        pristine: str | None = None,
        patch: int = 96,
        stride: int = 48,
        **options: Any,
    ) -> None:
        super().__init__(backbone=ZeroShot(backbone, high, pristine, patch, stride), **options)
        self.idle = nn.Parameter(torch.zeros(()))  # steps are counted, and are taken on this

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Sum of both scores, in (0, 1.5)."""
        return self.backbone(image)[:, 0]  # type: ignore[no-any-return]  # modules are untyped

    def selection_score(self, image: Images, known: Known) -> Float[Tensor, " batch"]:
        """`score`."""
        return self.backbone(image, known.frozen_output)[:, 0]  # type: ignore[no-any-return]

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """The only score."""
        return HeadScores(self.backbone(image, known.frozen_output))

    def body_parameters(self) -> list[nn.Parameter]:
        """None."""
        return []

    def head_parameters(self) -> list[nn.Parameter]:
        """None."""
        return []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Over a number that plays no part."""
        optimizer = self.optimizer_factory([{"params": [self.idle]}])
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """There is nothing to learn."""
        return 0.0 * self.idle


class ZeroShot(Trunk):
    """The zero-shot score as the only feature of a frozen trunk, so that it is computed once an
    image.
    """

    def __init__(
        self, low: Backbone, high: Backbone | None, pristine: str | None, patch: int, stride: int
    ) -> None:
        if high is not None and not isinstance(high, CLIP):
            raise ValueError("method.high has no text encoder: give a CLIP, or null")
        super().__init__([low] if high is None else [high, low])
        self.width, self.stage_widths = 1, [1]
        self.naturalness = Naturalness(low.width, patch, stride)
        low.eval()
        self.naturalness.fit(low, pristine_images(pristine))
        low.train()  # until it is used: Lightning warns of what starts otherwise

    def read_all(self, image: Images) -> Float[Tensor, "batch width"]:
        """The score, (batch, 1)."""
        *high, low = self.encoders
        score = self.naturalness(low, image)
        for clip in high:
            assert isinstance(clip, CLIP)
            score = score + prompt_quality(clip, clip(image))
        return score[:, None]  # type: ignore[no-any-return]  # modules are untyped


def affine(
    feature: Float[Tensor, "batch width"], ridge: Float[Tensor, " width+1"]
) -> Float[Tensor, " batch"]:
    """Scores of a ridge whose last number is the intercept, summed in float64."""
    weights = ridge.double()
    return (feature.double() @ weights[:-1] + weights[-1]).float()


def pristine_images(folder: str | None) -> list[Tensor]:
    """Photographs of a folder, uint8 (3, height, width), or the embedded ones."""
    if folder is None:
        found = [photograph(name) for name in PHOTOGRAPHS]
    else:
        suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
        paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in suffixes)
        if not paths:
            raise ValueError(f"method.pristine={folder!r} holds no image file")
        found = [Rule().load(path, "pristine") for path in paths]
    return [
        torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
        for image in found
    ]
