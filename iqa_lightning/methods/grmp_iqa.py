"""GRMP-IQA: prompts in CLIP, learnt from few ratings, with a rule for the gradient of the quality.

Li et al., "Few-shot image quality assessment via adaptation of vision-language models", ICCV 2025,
https://arxiv.org/abs/2409.05381; official code https://github.com/LXDxmu/GRMP-IQA. The prompts
start from those of `pretraining/grmp_iqa.py`. What is certified and what is design:
docs/methods/grmp_iqa.md.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.losses.soft_labels import (
    RULES,
    adjust_gradient,
    soft_class_loss,
    soft_label_loss,
)
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.gated import GatedHeads
from iqa_lightning.methods.readouts import HeadScores, Known
from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.metrics.liqe_labels import SCENES
from iqa_lightning.models.backbones import Images, Stages
from iqa_lightning.models.clip import CLIP
from iqa_lightning.models.gating import Gate
from iqa_lightning.models.prompted_clip import Prompts, read_prompts, use_statistics
from iqa_lightning.models.ranges import RatedImages, RatingRange
from iqa_lightning.stream.schedule import Task

TRAINS = ("context", "prompts", "blocks")


KEEPS = ("semantics", "scores", "none")


SCENE_TEXTS = tuple(f"a photo of a {scene}" for scene in SCENES)


class GRMPIQA(GatedHeads):
    """The score of an image is the probability that CLIP gives to "high quality" against "low
    quality".

    The loss is the cross-entropy to the ratings in [0, 1] (by the range of the task's training
    images). In each step a second loss gives a second gradient, and a `rule` changes the first by
    it, tensor by tensor. The official code: what agrees with keeping the scenes that plain CLIP
    sees is taken out of the gradient, five times.

    There are no heads: a warm-up trains the text context alone.

    Args:
        trains: `context` (of the text), `prompts` (and the visual tokens, CLIP frozen) or `blocks`
            (the official fine-tuning: the context and the last blocks of both encoders; visual
            tokens stand still).
        last_blocks: of each encoder, where `trains` is `blocks`.
        per_task: tokens of its own for each task, each from the start; a gate weighs them. Not
            with `blocks`.
        gate: a class of `models.gating`, as a partial, which reads the feature of plain CLIP; null
            for none.
        keeps: what the second loss keeps: `semantics` (the scenes by plain CLIP, the paper),
            `scores` (of the model before the task, from the second task on) or `none`.
        rule: `remove_agreeing` (the paper), `remove_conflicting` (what protects earlier tasks) or
            `none`.
        strength: lambda, how many times the component is taken away.
        weight: of the second gradient in the step. The paper: 0, it is only a direction.
        temperature: of the scenes.
        prior: weights file of `pretrain pretraining=grmp_iqa`; null: tokens start at random.
        words: what the two classes are called, the better one first.
        context: number of text tokens.
        visual: number of visual tokens of a block.
        deep: visual tokens in all blocks, or in the first alone.
        dropout: of the visual tokens in training, also where they stand still (the official code).
        extra_norm: one LayerNorm more after the last block.
        statistics: what images are normalised by, `imagenet` (the official code) or `clip`.
        options: see `ContinualMethod`.

    Raises:
        ValueError: a backbone without places for tokens, an unknown choice, a `prior` that does not
            fit.
    """

    readouts: tuple[str, ...] = ("single",)

    def __init__(
        self,
        trains: str = "blocks",
        last_blocks: int = 4,
        per_task: bool = False,
        gate: Callable[..., Gate] | None = None,
        keeps: str = "semantics",
        rule: str = "remove_agreeing",
        strength: float = 5.0,
        weight: float = 0.0,
        temperature: float = 1.0,
        prior: str | None = None,
        words: Sequence[str] = ("high quality", "low quality"),
        context: int = 4,
        visual: int = 100,
        deep: bool = True,
        dropout: float = 0.1,
        extra_norm: bool = True,
        statistics: str = "imagenet",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_choices(trains, per_task, keeps, rule, gate is not None)
        start = Prompts(self.backbone, words, context, visual, deep, dropout, extra_norm)  # type: ignore[arg-type]  # it refuses others
        use_statistics(self.clip, statistics)
        if prior is not None:
            read_prompts(start, prior)
        self.trains, self.per_task, self.keeps = trains, per_task, keeps
        self.rule, self.strength, self.weight = rule, strength, weight
        self.temperature, self.last_blocks = temperature, last_blocks
        self.freeze_rest(start)
        count = len(self.tasks) if per_task else 1
        self.prompts = nn.ModuleList([start, *(start.twin() for _ in range(count - 1))])
        self.teacher: Teacher[CLIP, Prompts] | None = None
        if keeps == "scores" or (keeps == "semantics" and trains == "blocks"):
            self.teacher = Teacher(self.clip, start if keeps == "scores" else None)
        self.range = RatingRange()
        self.second_gradient: list[Tensor] | None = None
        if per_task:
            self.independent_tasks = True
            self.readouts = ("latest", "oracle")
        if gate is not None:
            self.gate = gate(self.backbone, len(self.tasks))
            self.readouts = (*self.readouts, "gated")

    def freeze_rest(self, prompts: Prompts) -> None:
        """Leave trainable what `trains` names, before anything is copied."""
        trained = {id(parameter) for parameter in self.blocks()}
        self.clip.freeze([p for p in self.clip.parameters() if id(p) not in trained])
        prompts.requires_grad_(False)
        prompts.context.requires_grad_(True)
        prompts.visual.requires_grad_(self.trains == "prompts")

    def blocks(self) -> list[nn.Parameter]:
        """The last blocks of both encoders with their LayerNorm, where those are trained."""
        if self.trains != "blocks":
            return []
        network = self.clip.network
        tower, last = network.visual, -self.last_blocks
        parts = [*network.transformer.resblocks[last:], network.ln_final]
        parts += [*tower.transformer.resblocks[last:], tower.ln_post]
        return [parameter for part in parts for parameter in part.parameters()]

    @property
    def clip(self) -> CLIP:
        """The backbone."""
        assert isinstance(self.backbone, CLIP)
        return self.backbone

    def prompts_of(self, t: int) -> Prompts:
        """The tokens of task t (from 1)."""
        prompts = self.prompts[t - 1 if self.per_task else 0]
        assert isinstance(prompts, Prompts)
        return prompts

    @property
    def current(self) -> Prompts:
        """The tokens of the current task."""
        return self.prompts_of(self.seen)

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Probability of the better class, in [0, 1]."""
        return self.score_of(image, self.seen)

    def score_of(self, image: Images, t: int) -> Float[Tensor, " batch"]:
        """Score by the tokens of task t."""
        return quality(self.clip, self.prompts_of(t), image).softmax(dim=1)[:, 0]

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """The only score, or those of all tasks so far with the weights of the gate, if any."""
        if not self.per_task:
            return HeadScores(self.score(image)[:, None])
        final = known.final_scores
        tasks = enumerate(self.tasks[: self.seen], start=1)
        columns = [final[name] if name in final else self.score_of(image, t) for t, name in tasks]
        return self.weigh_heads(torch.stack(columns, dim=1), image, known)

    def gate_stages(self, image: Images) -> Stages:
        """Features of plain CLIP, which is frozen where there is a gate."""
        assert self.gate is not None
        return self.clip.gate_stages(image, self.gate.features)

    def final_heads(self) -> list[str]:
        """Tokens of earlier tasks are never touched again."""
        return self.tasks[: self.seen - 1] if self.per_task else []

    def body_parameters(self) -> list[nn.Parameter]:
        """The last blocks, or the visual tokens."""
        return [self.current.visual] if self.trains == "prompts" else self.clip.trainable()

    def head_parameters(self) -> list[nn.Parameter]:
        """The text context."""
        return [self.current.context]

    def added_parameters(self) -> int:
        """A task adds its tokens, or nothing."""
        own = [*self.head_parameters(), *self.body_parameters()]
        return sum(parameter.numel() for parameter in own) if self.per_task else 0

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """The range of the ratings, the gate, and the model whose scores are to be kept."""
        super().on_task_start(task, images)
        rated = RatedImages(task.datasets, images)
        if self.gate is not None:
            self.gate.fit(task.t, self.collect(rated, self.gate_stages))
        self.range.fit(rated)
        if self.teacher is not None and self.keeps == "scores":
            self.teacher.take(self.clip, self.current)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Cross-entropy to the ratings, mean over the images; pairs play no part."""
        logits = quality(self.clip, self.current, batch["image"])
        return soft_label_loss(logits, self.range(batch["mos"]))

    def second_loss(
        self, image: Images, feature: Float[Tensor, "batch width"]
    ) -> Float[Tensor, ""] | None:
        """Distance of the image's feature to what is to be kept; none where nothing is yet."""
        clip = self.clip
        plain = clip if self.teacher is None else self.teacher.backbone
        if self.keeps == "semantics":
            with torch.no_grad():
                wanted = plain.similarity(plain(image), plain.encode_text(SCENE_TEXTS))
            scenes = clip.similarity(feature, clip.encode_text(SCENE_TEXTS))
            return soft_class_loss(scenes, wanted, self.temperature)
        if self.keeps == "scores" and self.seen > 1:
            assert self.teacher is not None
            with torch.no_grad():
                before = quality(plain, self.teacher.heads, image).softmax(dim=1)[:, 0]
            return soft_label_loss(self.current.logits(clip, feature), before)
        return None

    def trained(self) -> list[nn.Parameter]:
        """What the current phase trains."""
        own = [*self.body_parameters(), *self.head_parameters()]
        return [parameter for parameter in own if parameter.requires_grad]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # Lightning's signature
        """Loss of the ratings, logged; the gradient of the second loss is put aside."""
        image, size = batch["image"], len(batch["image"])
        feature = self.current.image_feature(self.clip, image)
        logits = self.current.logits(self.clip, feature)
        loss = soft_label_loss(logits, self.range(batch["mos"]))
        second, self.second_gradient = self.second_loss(image, feature), None
        if second is not None:
            self.log("train/kept", second, batch_size=size)
            if second.requires_grad:
                self.second_gradient = self.gradients_of(second)
        self.log("train/loss", loss, batch_size=size)
        return loss

    def gradients_of(self, second: Float[Tensor, ""]) -> list[Tensor]:
        """Gradients of the second loss, over all ranks; zeros where it does not reach. Not by
        `backward`, which DDP would take for the step's own.
        """
        trained = self.trained()
        found = torch.autograd.grad(second, trained, retain_graph=True, allow_unused=True)
        pairs = zip(trained, found, strict=True)
        flat = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in pairs])
        mean: Tensor = self.trainer.strategy.reduce(flat, reduce_op="mean")
        pieces = torch.split(mean, [parameter.numel() for parameter in trained])
        return [piece.view_as(p) for piece, p in zip(pieces, trained, strict=True)]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Change the gradient, which is averaged over the ranks and unscaled by now."""
        if self.second_gradient is None:
            return
        for parameter, other in zip(self.trained(), self.second_gradient, strict=True):
            own = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            changed = adjust_gradient(own, other, self.strength, self.rule)
            parameter.grad = changed + self.weight * other
        self.second_gradient = None


def quality(clip: CLIP, prompts: Prompts, image: Images) -> Float[Tensor, "batch 2"]:
    """Logits of the two classes."""
    return prompts.logits(clip, prompts.image_feature(clip, image))


def check_choices(trains: str, per_task: bool, keeps: str, rule: str, gate: bool) -> None:
    """Refuse what the method cannot do."""
    for key, value, known in (
        ("trains", trains, TRAINS),
        ("keeps", keeps, KEEPS),
        ("rule", rule, RULES),
    ):
        if value not in known:
            raise ValueError(f"method.{key}={value!r}: choose one of {known}")
    if per_task and (trains == "blocks" or keeps == "scores"):
        raise ValueError(
            f"method.per_task=true goes with trains=context or prompts and keeps=semantics or "
            f"none, not with trains={trains} and keeps={keeps}: tokens of a task are its own"
        )
    if gate and not per_task:
        raise ValueError(
            "method.gate weighs the tokens of several tasks: set method.per_task=true, or "
            "method.gate=null"
        )
