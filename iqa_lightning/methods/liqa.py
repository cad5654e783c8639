"""LIQA: lifelong blind image quality assessment that replays generated features instead of old
images.

Liu et al., "LIQA: Lifelong blind image quality assessment", IEEE Transactions on Multimedia 25,
2023, https://arxiv.org/abs/2104.14115. No code is known. Certified by the abstract: distortions
come one after another, without access to earlier data; a distortion-specific generator replays
pseudo features; an auxiliary multi-head regressor labels them (split), all heads are distilled into
one task-agnostic head (merge). **All else here is design**: losses, weights, networks, schedule,
and that features are L2-normalised, as the heads read them.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.distributed import from_all_ranks
from iqa_lightning.losses.distillation import distillation_loss
from iqa_lightning.losses.fidelity import pair_loss
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.feature_generators import FeatureGenerator
from iqa_lightning.methods.finetune import SingleHead
from iqa_lightning.methods.readouts import HeadScores, Prediction, read_out
from iqa_lightning.methods.teacher import Teacher
from iqa_lightning.metrics.correlation import srcc
from iqa_lightning.metrics.frechet import frechet_distance, total_variance
from iqa_lightning.models.heads import AuxiliaryHeads
from iqa_lightning.seeds import seed_of
from iqa_lightning.stream.schedule import Phase, Position, Task

LOSSES = ("fidelity", "huber")


REPEATS = ("reuse", "new")


IMAGES = 1000  # of a task whose features are collected at its end


NARROW = 0.1  # share of the real variance below which replay has collapsed


class LIQA(SingleHead):
    """One head H for all, an auxiliary head A_k and replayed features g_k for each slot k (a
    distortion).

    With features x of the task's images and targets y, k over the other slots learnt so far, pseudo
    labels A-_k(g_k) by the auxiliary heads as they were when the task began:

    - merge: l(H(x), y) + `merge_weight` * mean over k of l(H(g_k), A-_k(g_k));
    - split: l(A_t(x), y) + `split_weight` * sum over k of the mean of |A_k(g_k) - A-_k(g_k)|;
    - stability, in fine-tuning: `stability_weight` * mean of |x - x-|, x- by the network when the
      task began.

    l is `fidelity` on pairs, for replayed features on pairs of one slot, or `huber` on MOS with
    mean 0 and deviation 1 over the task. Auxiliary heads read x without a gradient to the network:
    with the three weights at 0 network and H are those of single-head fine-tuning. Linear ones
    (`hidden` 0) share nothing, so the split loss has nothing to hold: old ones stand still. A head
    in a new slot starts as H.

    Then, in a phase `generator` of its own (also after the last task, so that the run can be
    extended), `replay` learns the features of the best weights. A data set that comes again has its
    old slot (`on_repeat: reuse`) or a `new` one. The readout `single` is H; `oracle` is the
    auxiliary head of the image's own data set, for comparison.

    Raises:
        ValueError: an unknown `loss_type` or `on_repeat`, a trained replay without a phase, `huber`
            on a joint task.
    """

    readouts = ("single", "oracle")
    heads_read_features = False

    def __init__(
        self,
        feature_generator: Callable[[int, int], FeatureGenerator],
        split_weight: float = 1.0,
        merge_weight: float = 10.0,
        stability_weight: float = 1.0,
        replay_size: int = 16,
        loss_type: str = "fidelity",
        on_repeat: str = "reuse",
        hidden: int = 0,
        generator_phase: Mapping[str, Any] | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.automatic_optimization = False
        for key, value, known in (
            ("loss_type", loss_type, LOSSES),
            ("on_repeat", on_repeat, REPEATS),
        ):
            if value not in known:
                raise ValueError(f"method.{key}={value!r}: choose one of {known}")
        self.slots = slots_of(self.task_datasets, on_repeat)
        self.split_weight, self.merge_weight, self.stability_weight = (
            split_weight,
            merge_weight,
            stability_weight,
        )
        self.replay_size, self.loss_type, self.seed = replay_size, loss_type, seed
        width, count = self.backbone.width, 1 + max(self.slots)
        self.auxiliary = AuxiliaryHeads(width, count, hidden)
        self.teacher = Teacher(self.backbone, self.auxiliary)  # whose heads label what is replayed
        self.feature_generator = feature_generator(width, count)
        if self.feature_generator.trained:
            if not generator_phase or not generator_phase["epochs"]:
                raise ValueError(
                    "method.generator_phase has no epochs: this replay is trained in a phase of "
                    "its own"
                )
            self.phases = (Phase("generator", trains="generator", **generator_phase),)
        self.variance = nn.Parameter(torch.zeros(count), requires_grad=False)
        self.mos: Tensor
        self.register_buffer(
            "mos", torch.tensor([0.0, 1.0])
        )  # mean and deviation, of the current task
        self.noise, self.trains = torch.Generator(), "all"

    @property
    def slot(self) -> int:
        """The slot of the current task."""
        return self.slots[self.seen - 1]

    @property
    def others(self) -> list[int]:
        """Slots learnt so far, but for that of the current task."""
        return sorted(set(self.slots[: self.seen - 1]) - {self.slot})

    def head_parameters(self) -> list[nn.Parameter]:
        """H, the slot's auxiliary head and, where auxiliary heads share a layer, that and the old
        ones.
        """
        own = [self.slot, *self.others] if self.auxiliary.shared else [self.slot]
        return [*super().head_parameters(), *self.auxiliary.parameters_of(own)]

    def added_parameters(self) -> int:
        """A new slot adds an auxiliary head and what replay needs for a condition."""
        head: int = self.auxiliary.heads.weight[0].numel()
        return head + self.feature_generator.added_parameters()

    def configure_optimizers(self) -> Any:
        """That of the network and, after it, those of the replay."""
        replay = self.feature_generator.optimizers()
        for group in (group for optimizer in replay for group in optimizer.param_groups):
            group["initial_lr"] = group["lr"]
        main = super().configure_optimizers()
        return [main, *replay] if replay else main

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """What labels, replays and holds the features is the model as it is now."""
        super().on_task_start(task, images)
        if self.slot not in self.slots[: self.seen - 1] and not self.auxiliary.shared:
            self.auxiliary.heads.weight[self.slot].data.copy_(self.heads.weight[0].data)
        self.teacher.take(self.backbone, self.auxiliary)
        self.feature_generator.begin()
        if self.loss_type == "huber":
            if len(task.datasets) > 1:
                raise ValueError(
                    f"method.loss_type=huber cannot pool the scales of {task.datasets}: use "
                    "loss_type=fidelity"
                )
            mos = torch.cat(from_all_ranks(torch.cat([batch["mos"].cpu() for batch in images])))
            self.mos.copy_(torch.stack([mos.mean(), mos.std()]))

    def on_phase_start(self, position: Position) -> None:
        """Noise is a function of the epoch, the same on all ranks; features are generated from a
        still network.
        """
        self.trains = position.phase.trains
        self.backbone.train(self.trains != "generator")
        super().on_phase_start(position)
        self.noise.manual_seed(seed_of(self.seed, "noise", *position.words))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # Lightning's signature
        """One step of the network and its heads or, in its phase, of the replay."""
        main, *replay = found if isinstance(found := self.optimizers(), list) else [found]
        if self.trains == "generator":
            feature = torch.cat(from_all_ranks(self.unit_features(batch["image"]).cpu())).to(
                self.device
            )
            feature = feature[
                feature.sum(dim=1).argsort()
            ]  # in an order that does not depend on the ranks
            terms = self.feature_generator.step(
                feature, self.slot, self.others, replay, self.manual_backward, self.noise
            )
            self.log_dict({f"train/{name}": value for name, value in terms.items()})
            return torch.zeros(())
        terms = self.terms(batch)
        loss = torch.stack(list(terms.values())).sum()
        main.zero_grad()
        self.manual_backward(loss)
        main.step()
        self.log_dict(
            {f"train/{name}": value for name, value in terms.items()} | {"train/loss": loss}
        )
        return loss.detach()

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Sum of all terms."""
        return torch.stack(list(self.terms(batch).values())).sum()

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The losses by name, weighted."""
        fixed = self.backbone.frozen_output(batch["image"])
        feature = self.backbone(batch["image"], fixed)
        unit = unit_norm(feature)
        terms = {
            "single": self.rating_loss(self.heads.free(feature, 0), batch),
            "auxiliary": self.rating_loss(
                self.auxiliary.free(unit.detach(), [self.slot])[:, 0], batch
            ),
        }
        if self.others and (self.split_weight or self.merge_weight):
            terms |= self.replay_terms()
        if self.trains == "all" and self.seen > 1 and self.stability_weight:
            before = unit_norm(self.teacher(batch["image"], fixed))
            terms["stability"] = (
                self.stability_weight * torch.linalg.vector_norm(unit - before, dim=1).mean()
            )
        return terms

    def replay_terms(self) -> dict[str, Float[Tensor, ""]]:
        """Split and merge loss on `replay_size` features of each other slot."""
        others, size = self.others, self.replay_size
        slot = torch.tensor(others, device=self.device).repeat_interleave(size)
        feature, own = (
            unit_norm(self.feature_generator.sample(slot, self.noise)),
            torch.arange(len(others)).to(slot),
        )
        own = own.repeat_interleave(size)[:, None]
        with torch.no_grad():
            label = self.teacher.heads.free(feature, others).gather(1, own)[:, 0]
        merged = self.heads.free(feature, 0)
        if self.loss_type == "huber":
            merge = F.huber_loss(merged, label)
        else:
            merge = distillation_loss(
                merged, label, pairs_within(len(others), size).to(slot), self.link
            )
        terms = {"merge": self.merge_weight * merge}
        if self.auxiliary.shared:
            kept = self.auxiliary.free(feature, others).gather(1, own)[:, 0]
            terms["split"] = self.split_weight * len(others) * (kept - label).abs().mean()
        return terms

    def rating_loss(self, scores: Float[Tensor, " batch"], batch: Batch) -> Float[Tensor, ""]:
        """Loss of one head on the ratings of a batch."""
        if self.loss_type == "huber":
            return F.huber_loss(scores, (batch["mos"] - self.mos[0]) / self.mos[1])
        return pair_loss(scores, batch["pairs"], batch["target"], self.link)

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Prediction:
        """`single`, `oracle`, and the score of the auxiliary head of each task so far."""
        feature = self.backbone(batch["image"])
        heads = HeadScores(self.auxiliary(unit_norm(feature), self.slots[: self.seen]))
        oracle = read_out(heads, batch["owner_task"], int(self.task))["oracle"]
        columns = {"single": self.heads(feature, 0), "oracle": oracle}
        return Prediction(columns | heads.columns(self.tasks[: int(self.task)]))

    @torch.no_grad()
    def unit_features(self, image: Tensor) -> Float[Tensor, "batch width"]:
        """Features as the heads read them."""
        return unit_norm(self.backbone(image))

    def on_task_end(self, task: Task, images: Iterable[Batch], batches: Iterable[Batch]) -> None:
        """Let replay take in the features of the task, and look at how good it is.

        Crops of the last epoch, as the training shows them, at most about a thousand.
        """
        super().on_task_end(task, images, batches)
        parts: list[tuple[Tensor, Tensor]] = []
        for batch in batches:
            parts.append((self.unit_features(batch["image"]).cpu(), batch["mos"].cpu()))
            if sum(len(mos) for _, mos in parts) >= IMAGES:
                break
        shares = [part for share in from_all_ranks(parts) for part in share]
        feature, mos = (torch.cat(column) for column in zip(*shares, strict=True))
        self.feature_generator.fit(feature.to(self.device), self.slot)
        self.health = self.examine(feature.numpy(), mos.numpy())

    @torch.no_grad()
    def examine(self, real: np.ndarray, mos: np.ndarray) -> dict[str, float]:
        """Replay beside the real features (images, width) of the task that ends; warns where it has
        collapsed.

        `frechet`: Frechet distance of the replayed to the real features, from 0; `frechet_share`:
        the same as a share of the variance of the real ones, 1 where replay is no better than the
        mean feature alone. `label_srcc`: SRCC of the pseudo labels with the MOS of the nearest real
        feature. `spread/<task>`: variance of what is replayed of each slot so far, as a share of
        that of its real features when its task ended.
        """
        total = total_variance(real)
        self.variance[self.slot] = total
        name = self.tasks[self.seen - 1]
        fake = self.replayed(self.slot, len(real))
        nearest = (fake @ real.T).argmax(axis=1)  # of unit norm
        label = (
            self.auxiliary.free(torch.from_numpy(fake).to(self.device), [self.slot])[:, 0]
            .cpu()
            .numpy()
        )
        distance = frechet_distance(real, fake)
        health = {
            f"frechet/{name}": distance,
            f"frechet_share/{name}": distance / total,
            f"label_srcc/{name}": srcc(label, mos[nearest]),
        }
        for slot in [*self.others, self.slot]:
            spread = total_variance(self.replayed(slot, len(real))) / float(self.variance[slot])
            first = self.tasks[self.slots.index(slot)]
            health[f"spread/{first}"] = spread
            if not spread > NARROW:
                warnings.warn(
                    f"after task {name!r} the replay of {first!r} has collapsed: its features "
                    f"vary by {spread:.1%} of "
                    "the real ones; train it longer (method.generator_phase.epochs, "
                    "method.feature_generator.steps) or faster "
                    "(method.feature_generator.lr), or use method/feature_generator=gaussian",
                    stacklevel=2,
                )
        return health

    def replayed(self, slot: int, count: int) -> np.ndarray:
        """Replayed features of a slot, (count, width)."""
        slots = torch.full((count,), slot, device=self.device)
        return unit_norm(self.feature_generator.sample(slots, self.noise)).cpu().numpy()


def slots_of(task_datasets: Sequence[str], on_repeat: str) -> list[int]:
    """The slot (from 0) of each task, given what each learns."""
    if on_repeat == "new":
        return list(range(len(task_datasets)))
    first = {name: k for k, name in enumerate(dict.fromkeys(task_datasets))}
    return [first[name] for name in task_datasets]


def unit_norm(feature: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
    """Features of norm 1, in float32."""
    return F.normalize(feature.float(), dim=1)


def pairs_within(groups: int, size: int) -> Int[Tensor, "pairs 2"]:
    """All pairs of rows within each of `groups` blocks of `size` rows."""
    one = torch.combinations(torch.arange(size), 2)
    return torch.cat([one + k * size for k in range(groups)])
