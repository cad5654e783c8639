"""DP-IQA: a diffusion model's denoiser learns to rate images, and a small network learns from it.

Fu et al., "DP-IQA: Utilizing diffusion prior for blind image quality assessment in the wild",
https://arxiv.org/abs/2405.19996. Written from a description; no line is of the official code. What
is certified and what is design: docs/methods/dp_iqa.md.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.losses.margin_ranking import margin_ranking_loss
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.liqe import prompts
from iqa_lightning.methods.readouts import HeadScores, Known
from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.metrics.liqe_labels import SCENES
from iqa_lightning.models.backbones import Backbone, Images, read_weights
from iqa_lightning.models.clip import CLIP
from iqa_lightning.models.diffusion import BANK, Diffusion
from iqa_lightning.models.dp_iqa import FACTOR, Decoder, DiffusionTeacher, Student
from iqa_lightning.models.ranges import RatedImages, RatingRange
from iqa_lightning.stream.schedule import Position, Task


class Regression(ContinualMethod):
    """What teacher and student share: one network goes from task to task and meets the ratings in
    [0, 1] (by the range of the task's training images); a sum of terms is the loss.

    Args:
        rank_weight: of a ranking loss with a margin. The official code computes it and leaves it
            out.
        options: see `ContinualMethod`.
    """

    readouts = ("single",)

    def __init__(self, rank_weight: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.rank_weight, self.range = rank_weight, RatingRange()

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The losses by name, weighted."""
        raise NotImplementedError

    def rating_terms(
        self, score: Float[Tensor, " batch"], batch: Batch
    ) -> dict[str, Float[Tensor, ""]]:
        """Mean squared error and, if it counts, the ranking loss."""
        target = self.range(batch["mos"])
        terms = {"score": F.mse_loss(score.float(), target)}
        if self.rank_weight:
            terms["rank"] = self.rank_weight * margin_ranking_loss(score, target)
        return terms

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Sum of all terms; pairs of the stream play no part."""
        return torch.stack(list(self.terms(batch).values())).sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # Lightning's signature
        """The loss and its terms, logged: their scales are unrelated."""
        terms, size = self.terms(batch), len(batch["image"])
        for name, value in terms.items():
            self.log(f"train/{name}", value, batch_size=size)
        loss = torch.stack(list(terms.values())).sum()
        self.log("train/loss", loss, batch_size=size)
        return loss

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """The range of the ratings."""
        super().on_task_start(task, images)
        self.range.fit(RatedImages(task.datasets, images))

    def body_parameters(self) -> list[nn.Parameter]:
        """The backbone, but for what is never trained of it."""
        return self.backbone.trainable()


class DPIQATeacher(Regression):
    """The denoiser and a decoder of its maps.

    Args:
        width: channels of the decoder.
        options: see `Regression`.

    Raises:
        ValueError: a backbone that is no diffusion model.
    """

    def __init__(self, width: int = 512, **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(self.backbone, Diffusion):
            raise ValueError(
                "method=dp_iqa_teacher reads maps of a denoiser: set backbone=stable_diffusion (or "
                "diffusion_tiny)"
            )
        side = self.backbone.side // FACTOR
        self.decoder = Decoder(self.backbone.map_channels, side, width)

    @property
    def diffusion(self) -> Diffusion:
        """The backbone."""
        assert isinstance(self.backbone, Diffusion)
        return self.backbone

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score, without bounds."""
        return self.score_at(image, None)

    def score_at(self, image: Images, latent: Tensor | None) -> Float[Tensor, " batch"]:
        """Score of images with these latents, if they are known."""
        score: Tensor = self.decoder(self.diffusion.maps_of(image, latent))[0]
        return score

    def selection_score(self, image: Images, known: Known) -> Float[Tensor, " batch"]:
        """Score, without bounds."""
        return self.score_at(image, known.frozen_output)

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """The only score."""
        return HeadScores(self.score_at(image, known.frozen_output)[:, None])

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The losses on the ratings."""
        return self.rating_terms(self.score(batch["image"]), batch)

    def head_parameters(self) -> list[nn.Parameter]:
        """The decoder."""
        return list(self.decoder.parameters())


class DPIQA(Regression):
    """The student: a convolutional network whose last map is to be like that of a teacher.

    Teachers are trained beforehand, one for each task (`teacher_weights`; the paper's two stages),
    or beside the student in the same steps, going from task to task with it (design).

    Args:
        side: of the squares that images become, in pixels; that of the teacher.
        teacher: a diffusion backbone with its decoder; null: the student learns from ratings alone.
        teacher_weights: by task, a weights file that `method=dp_iqa_teacher` wrote
            (`tasks/1_<task>.ckpt` of its run, of the same split).
        teacher_lr_factor: on the learning rate, of a teacher that is trained beside the student.
        map_weight: of the mean squared error between the maps of student and teacher.
        weight: of the same between the student and itself before the task: learning without
            forgetting, beyond the paper. 0 keeps no copy.
        options: see `Regression`.

    Raises:
        ValueError: a teacher of another size, weights without a teacher or for some tasks alone.
    """

    def __init__(
        self,
        side: int = 512,
        teacher: DiffusionTeacher | None = None,
        teacher_weights: Mapping[str, str] | None = None,
        teacher_lr_factor: float = 0.1,
        map_weight: float = 1.0,
        weight: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.student = Student(self.backbone, side)
        self.teacher, self.teacher_weights = teacher, dict(teacher_weights or {})
        self.teacher_lr_factor = teacher_lr_factor
        self.map_weight, self.weight = map_weight, weight
        check_teacher(teacher, self.teacher_weights, self.tasks, side)
        self.teacher_learns = teacher is not None and not self.teacher_weights
        if teacher is not None and not self.teacher_learns:
            teacher.requires_grad_(False)
        self.previous: Teacher[Backbone, Student] | None = None
        if weight > 0:
            self.previous = Teacher(self.backbone, self.student)

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score, without bounds."""
        return self.student(self.backbone, image)[0]  # type: ignore[no-any-return]  # modules are untyped

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """The only score; the network goes on changing."""
        return HeadScores(self.score(image)[:, None])

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The losses on the ratings and on the maps, and those of the teacher."""
        image = batch["image"]
        score, narrow = self.student(self.backbone, image)
        terms = self.rating_terms(score, batch)
        if self.teacher is not None:
            with torch.set_grad_enabled(self.teacher_learns and torch.is_grad_enabled()):
                rated, wanted = self.teacher(image)
            terms["map"] = self.map_weight * F.mse_loss(narrow, wanted.detach())
            if self.teacher_learns:
                own = self.rating_terms(rated, batch)
                terms |= {f"teacher/{name}": value for name, value in own.items()}
        if self.previous is not None and self.seen > 1:
            with torch.no_grad():
                before = self.previous.heads(self.previous.backbone, image)[1]
            terms["kept"] = self.weight * F.mse_loss(narrow, before)
        return terms

    def head_parameters(self) -> list[nn.Parameter]:
        """What stands on the backbone."""
        return list(self.student.parameters())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Over the student and, with a rate of its own, a teacher that is trained beside it."""
        groups = [(self.body_parameters(), 1.0), (self.head_parameters(), self.head_lr_factor)]
        if self.teacher is not None and self.teacher_learns:
            groups.append((self.teacher.trainable(), self.teacher_lr_factor))
        optimizer = self.optimizer_factory([{"params": params} for params, _ in groups])
        for group, (_, factor) in zip(optimizer.param_groups, groups, strict=True):
            group["initial_lr"] = group["lr"] * factor
        return optimizer

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """The range of the ratings, the task's teacher, and the student as it is now."""
        super().on_task_start(task, images)
        if self.teacher is not None and self.teacher_weights:
            read_teacher(self.teacher, self.teacher_weights[self.tasks[task.t - 1]])
        if self.previous is not None:
            self.previous.take(self.backbone, self.student)

    def on_phase_start(self, position: Position) -> None:
        """A teacher that stands still is in evaluation mode."""
        super().on_phase_start(position)
        if self.teacher is not None:
            self.teacher.train(self.teacher_learns)


def check_teacher(
    teacher: DiffusionTeacher | None, weights: Mapping[str, str], tasks: list[str], side: int
) -> None:
    """Refuse a teacher that cannot teach."""
    if teacher is None:
        if weights:
            raise ValueError("method.teacher_weights need a teacher: set method/teacher=...")
        return
    if teacher.network.side != side:
        raise ValueError(
            f"method.side={side}, and the teacher reads squares of {teacher.network.side} pixels: "
            "maps of student and teacher must have one size"
        )
    if weights and (missing := [task for task in tasks if task not in weights]):
        raise ValueError(f"method.teacher_weights has no file for the task {missing[0]!r}")


def read_teacher(teacher: DiffusionTeacher, file: str) -> None:
    """Let a teacher be as a run of `method=dp_iqa_teacher` left it.

    Raises:
        ValueError: no such file, or one of another teacher.
    """
    if not Path(file).is_file():
        raise ValueError(f"method.teacher_weights: {file} is not there")
    names = {"backbone.": "network.", "decoder.": "decoder."}
    found = {
        key.replace(old, new, 1): value
        for key, value in read_weights(file).items()
        for old, new in names.items()
        if key.startswith(old)
    }
    wanted = teacher.state_dict()
    misfits = [k for k, v in wanted.items() if k not in found or found[k].shape != v.shape]
    if misfits or len(found) != len(wanted):
        raise ValueError(
            f"method.teacher_weights: {file} does not fit the teacher "
            f"({len(misfits)} tensors, first "
            f"{(misfits or sorted(set(found) - set(wanted)))[0]!r}): "
            "give a weights file of method=dp_iqa_teacher with the same backbone and width"
        )
    teacher.load_state_dict(found)


DISTORTIONS = (
    "jpeg2000 compression",
    "jpeg compression",
    "white noise",
    "gaussian blur",
    "fastfading",
    "fnoise",
    "contrast",
    "lens",
    "motion",
    "diffusion",
    "shifting",
    "color quantization",
    "oversaturation",
    "desaturation",
    "white with color",
    "impulse",
    "multiplicative",
    "white noise with denoise",
    "brighten",
    "darken",
    "shifting the mean",
    "jitter",
    "noneccentricity patch",
    "pixelate",
    "quantization",
    "color blocking",
    "sharpness",
    "realistic blur",
    "realistic noise",
    "underexposure",
    "overexposure",
    "realistic contrast change",
    "other realistic",
)
"""Words of DP-IQA's sentences."""


def bank_sentences() -> tuple[str, ...]:
    """The 1,485 sentences of the bank: quality varies slowest, then scene, distortion fastest."""
    return prompts(SCENES, DISTORTIONS)


def write_bank(clip: CLIP, file: str, batch_size: int = 99) -> None:
    """Embed the sentences of the bank, not normalised, and write the table.

    Args:
        clip: the CLIP whose text encoder belongs to the pipeline; of Stable Diffusion 1.5 ViT-L/14.
        file: the safetensors file to write.
        batch_size: sentences at once.
    """
    sentences, rows = bank_sentences(), []
    with torch.no_grad():
        for start in range(0, len(sentences), batch_size):
            tokens = clip.tokenizer(list(sentences[start : start + batch_size]))
            rows.append(clip.network.encode_text(tokens).float().cpu())
    save_file({BANK: torch.cat(rows)}, file)
