"""LIQE: quality, scene and distortion of an image from its likeness to sentences.

Zhang et al., "Blind image quality assessment via vision-language correspondence: a multitask
learning perspective", CVPR 2023, https://arxiv.org/abs/2303.14968; official code
https://github.com/zwx8981/LIQE.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.distributed import mean_over_ranks
from iqa_lightning.losses.distillation import distillation_loss
from iqa_lightning.losses.multitask import (
    KINDS,
    DynamicWeightAverage,
    Weighting,
    distortion_loss,
    joint_distillation,
    quality_loss,
    scene_loss,
)
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.methods.readouts import HeadScores, Known, Prediction
from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.metrics.liqe_labels import (
    DISTORTIONS,
    SCENES,
    column,
    distortion_index,
    scene_targets,
)
from iqa_lightning.models.backbones import Images
from iqa_lightning.models.clip import CLIP
from iqa_lightning.stream.schedule import Position, Task

Joint = Float[Tensor, "batch qualities scenes distortions"]


LABELS = ("scene", "distortion")
DTYPES = ("float32", "float16_rounded")


class LIQE(ContinualMethod):
    """One vision-language model for all tasks, whose every sentence names a quality, a scene and a
    distortion.

    The likeness of an image to all sentences, averaged over its windows, gives one joint
    distribution; the three predictions are its marginals, and the score is the mean quality, in [1,
    5]. Quality learns by the order of pairs within a data set. Where images carry no label of a
    kind, that loss is left out.

    The paper learns all data sets at once, which is a joint task here: `stream.order=[[a,b,...]]`.
    With single tasks the model is fine-tuned from set to set, and what is meant for continual
    learning goes beyond the paper: `weight`, `freeze` and `new_distortions`. There are no heads: a
    warm-up trains the two projections into the common space.

    Args:
        labels: which of `scene` and `distortion` are learnt beside the quality, and so stand in the
            sentences.
        freeze: the encoder that nothing trains: `text`, `image` or `none`. A frozen text encoder
            reads its sentences once.
        new_distortions: by task, words that join the distortions when it begins: more sentences, no
            more parameters.
        weighting: a partial of `losses.multitask.Weighting`; its learnt weights have
            `head_lr_factor`.
        weight: of learning without forgetting, from the second task on: the joint distribution and
            the preferences of the model as it was before the task are kept. 0 keeps no copy.
        distils: how joint distributions are compared, `fidelity` or `kl`.
        weights_dtype: `float32`, or `float16_rounded`: before the first step and after each, the
            weights that OpenAI's CLIP holds in float16 are rounded to it, as the official code does
            (a step in float32 on weights kept in float16; at 5e-6 many changes round away).
        options: see `ContinualMethod`.

    Raises:
        ValueError: a backbone without a text encoder, or a word that is not one of those above.
    """

    readouts = ("single",)

    def __init__(
        self,
        labels: Sequence[str] = LABELS,
        freeze: str = "none",
        new_distortions: Mapping[str, Sequence[str]] | None = None,
        weighting: Callable[[int], Weighting] = DynamicWeightAverage,
        weight: float = 0.0,
        distils: str = "fidelity",
        weights_dtype: str = "float32",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if weights_dtype not in DTYPES:
            raise ValueError(f"method.weights_dtype={weights_dtype!r}: choose one of {DTYPES}")
        self.rounded = weights_dtype == "float16_rounded"
        self.new_distortions = {
            task: list(words) for task, words in (new_distortions or {}).items()
        }
        check_words(self.backbone, labels, freeze, distils, self.new_distortions, self.tasks)
        self.kinds = [kind for kind in LABELS if kind in labels]
        if freeze != "none":
            self.clip.freeze(
                self.clip.text_parameters() if freeze == "text" else self.clip.image_parameters()
            )
        self.weighting: Weighting = weighting(1 + len(self.kinds))
        self.weight, self.distils = weight, distils
        self.teacher: Teacher[CLIP, nn.Module] | None = Teacher(self.clip) if weight > 0 else None

    @property
    def clip(self) -> CLIP:
        """The backbone."""
        assert isinstance(self.backbone, CLIP)
        return self.backbone

    def distortions(self, t: int) -> list[str]:
        """Words of the distortion axis in task t (from 1); empty where none are learnt."""
        added = [word for task in self.tasks[:t] for word in self.new_distortions.get(task, [])]
        return [*DISTORTIONS, *added] if "distortion" in self.kinds else []

    @property
    def scenes(self) -> list[str]:
        """Words of the scene axis; empty where scenes are not learnt."""
        return list(SCENES) if "scene" in self.kinds else []

    def logits(self, clip: CLIP, image: Images) -> Joint:
        """Likeness of each image to each sentence, the mean over its windows; an axis that is not
        learnt has length 1.

        `image` is (batch, 3, height, width) or (batch, windows, 3, height, width).
        """
        windows = image if image.ndim == 5 else image[:, None]
        distortions = self.distortions(self.seen)
        texts = clip.encode_text(prompts(self.scenes, distortions))
        likeness = clip.similarity(clip(windows.flatten(0, 1)), texts)
        pooled = likeness.view(*windows.shape[:2], -1).mean(dim=1)
        return pooled.view(-1, len(QUALITIES), max(1, len(self.scenes)), max(1, len(distortions)))

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Mean quality, in [1, 5]."""
        return quality(joint(self.logits(self.clip, image)))

    def head_scores(self, image: Images, known: Known) -> HeadScores:
        """The only score."""
        return HeadScores(self.score(image)[:, None])

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Prediction:
        """The score as `single`, and the probability of each scene and distortion."""
        p = joint(self.logits(self.clip, batch["image"]))
        columns = {"single": quality(p)}
        for kind, words, axes in (
            ("scene", self.scenes, (1, 3)),
            ("distortion", self.distortions(self.seen), (1, 2)),
        ):
            columns |= {
                column(kind, word): values
                for word, values in zip(words, p.sum(dim=axes).T, strict=False)
            }
        return Prediction(columns)

    def body_parameters(self) -> list[nn.Parameter]:
        """Both encoders, but for what is frozen of them."""
        return self.clip.trainable()

    def head_parameters(self) -> list[nn.Parameter]:
        """Weights of the losses, where they are learnt; there are no heads."""
        return list(self.weighting.parameters())

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """The model as it is now is the teacher, and the losses are weighed anew."""
        super().on_task_start(task, images)
        self.weighting.reset()
        if self.teacher is not None:
            self.teacher.take(self.clip)

    def on_phase_start(self, position: Position) -> None:
        """The losses of the epoch before weigh those of this one; a warm-up trains the projections
        alone.
        """
        super().on_phase_start(position)
        self.weighting.end_epoch()
        if position.phase.trains == "heads":
            trained = {id(parameter) for parameter in self.body_parameters()}
            for parameter in self.clip.projections():
                parameter.requires_grad_(id(parameter) in trained)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # Lightning's
        """Weights begin rounded, where they are kept so."""
        if self.rounded and batch_idx == 0:
            round_weights(self.clip.network)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # Lightning's
        """Round what the step has moved."""
        if self.rounded:
            round_weights(self.clip.network)

    def task_losses(
        self, logits: Joint, batch: Batch
    ) -> tuple[Float[Tensor, " tasks"], Float[Tensor, " tasks"]]:
        """Losses of quality and of the learnt kinds of labels, and 1 for each that has labels in
        this batch.
        """
        p = joint(logits)
        losses = [
            quality_loss(
                quality(p), batch["pairs"], batch["target"], batch["dataset_index"], self.link
            )
        ]
        present = [len(batch["pairs"]) > 0]
        if "scene" in self.kinds:
            shown = torch.from_numpy(scene_targets(batch["scene"])).to(p.device)
            losses.append(scene_loss(p.sum(dim=(1, 3)), shown))
            present.append(bool(shown.any()))
        if "distortion" in self.kinds:
            words = self.distortions(self.seen)
            classes = torch.tensor(
                [distortion_index(label, words) for label in batch["distortion"]], device=p.device
            )
            losses.append(distortion_loss(p.sum(dim=(1, 2)), classes))
            present.append(bool((classes >= 0).any()))
        return torch.stack(losses), torch.tensor(present, device=p.device).float()

    def kept(self, logits: Joint, batch: Batch) -> Float[Tensor, ""]:
        """Distance to the teacher: of the joint distributions over the sentences it knew, and of
        the preferences.
        """
        assert self.teacher is not None
        with torch.no_grad():
            old = self.logits(self.teacher.backbone, batch["image"])
        known = max(1, len(self.distortions(self.seen - 1)))
        new, old = joint(logits[..., :known]), joint(old[..., :known])
        likeness = joint_distillation(new.flatten(1), old.flatten(1), self.distils)
        return likeness + distillation_loss(quality(new), quality(old), batch["pairs"], self.link)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Weighted sum of the losses, and what keeps the old model."""
        return self.total(batch)[0]

    def total(
        self, batch: Batch
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " tasks"], Float[Tensor, " tasks"]]:
        """The loss, its parts and which of them count."""
        logits = self.logits(self.clip, batch["image"])
        losses, present = self.task_losses(logits, batch)
        loss = self.weighting(losses, present, self.clip.projections()[0])
        if self.teacher is not None and self.seen > 1:
            loss = loss + self.weight * self.kept(logits, batch)
        return loss, losses.detach(), present

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # Lightning's signature
        """`loss` of the batch and its parts, logged."""
        loss, losses, present = self.total(batch)
        self.weighting.observe(mean_over_ranks(losses * present), mean_over_ranks(present))
        size = len(batch["image"])
        for name, value, counts in zip(("quality", *self.kinds), losses, present, strict=True):
            if counts:
                self.log(f"train/{name}", value, batch_size=size)
        self.log("train/loss", loss, batch_size=size)
        return loss


@torch.no_grad()
def round_weights(network: nn.Module) -> None:
    """Round to float16 what OpenAI's CLIP holds in it: of convolutions, linear layers and
    attention, and both projections; embeddings and norms stay.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.MultiheadAttention)):
            held = list(module.parameters(recurse=False))
        else:
            named = dict(module.named_parameters(recurse=False))
            held = [named[key] for key in ("proj", "text_projection") if key in named]
        for parameter in held:
            parameter.copy_(parameter.half().float())


def joint(logits: Joint) -> Joint:
    """Probabilities, which sum to 1 over all three axes of an image."""
    return logits.flatten(1).softmax(dim=1).view_as(logits)


def quality(p: Joint) -> Float[Tensor, " batch"]:
    """Mean of the qualities, scored 1 to 5."""
    scale = torch.arange(1, len(QUALITIES) + 1, device=p.device, dtype=p.dtype)
    return p.sum(dim=(2, 3)) @ scale


def check_words(
    backbone: nn.Module,
    labels: Sequence[str],
    freeze: str,
    distils: str,
    new_distortions: Mapping[str, Sequence[str]],
    tasks: Sequence[str],
) -> None:
    """Refuse what the method cannot do."""
    if not isinstance(backbone, CLIP):
        raise ValueError(
            "method=liqe needs a text encoder: set backbone=clip_vit_b32 (or clip_tiny) and "
            "view=liqe"
        )
    if unknown := [kind for kind in labels if kind not in LABELS]:
        raise ValueError(f"method.labels holds {unknown[0]!r}: choose among {LABELS}")
    if freeze not in ("none", "text", "image"):
        raise ValueError(f"method.freeze={freeze!r}: choose one of none, text, image")
    if distils not in KINDS:
        raise ValueError(f"method.distils={distils!r}: choose one of {KINDS}")
    if unknown := [task for task in new_distortions if task not in tasks]:
        raise ValueError(
            f"method.new_distortions names {unknown[0]!r}, the tasks are {', '.join(tasks)}"
        )
    words = [*DISTORTIONS, *(word for added in new_distortions.values() for word in added)]
    if twice := [word for word in words if words.count(word) > 1]:
        raise ValueError(
            f"method.new_distortions holds {twice[0]!r} twice: a word has one place among the "
            "distortions"
        )


QUALITIES = ("bad", "poor", "fair", "good", "perfect")  # scored 1 to 5


def prompts(scenes: Sequence[str], distortions: Sequence[str]) -> tuple[str, ...]:
    """All sentences: quality varies slowest, then scene, distortion fastest; an empty axis is left
    out of them.
    """
    what = [f" of a {scene}" for scene in scenes] or [""]
    how = [f" with {distortion} artifacts" for distortion in distortions] or [""]
    link = ", which is of" if scenes or distortions else " with"
    return tuple(
        f"a photo{w}{h}{link} {quality} quality" for quality in QUALITIES for w in what for h in how
    )
