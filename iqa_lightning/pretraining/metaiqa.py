"""Meta-learning over distortions: the pre-training of MetaIQA.

H. Zhu et al., "MetaIQA: Deep Meta-learning for No-Reference Image Quality Assessment", CVPR 2020,
https://arxiv.org/abs/2004.05508; what the official code does differently
(https://github.com/zhuhancheng/MetaIQA) is behind switches.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from iqa_lightning.distributed import sum_over_ranks
from iqa_lightning.methods.base import OptimizerFactory
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.regression import HEAD, RegressionNet

OUTER = ("mean", "drift", "interpolate", "second_order")


Batch = dict[str, Tensor]


Episode = dict[str, Any]
"""`support` and `query`, lists of batches, and the name of the `dataset`."""


Loss = Callable[[nn.Module, Batch], Tensor]


def squared_error(model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
    """Mean squared error of the scores, the paper's loss."""
    return F.mse_loss(model(batch["image"]).float(), batch["target"])


class MetaPretraining(pl.LightningModule):
    """Weights from which one step on a distortion's images brings the most.

    An episode is one task: a step on its support images, then one on its query images. `outer` says
    what follows:

    - `mean`: the paper. Every task starts from the shared weights, which then move by the mean of
      where the tasks led (no second derivatives). Running statistics of normalisation move along.
    - `drift`: the official code on TID2013. The worker starts each task from a copy of the shared
      weights that is renewed every k tasks; after every batch the shared weights move by 1/k of the
      worker's whole way from that copy, so that within a task the first steps count twice.
    - `interpolate`: the official code on KADID-10k. After every batch the shared weights move to
      the worker by 1/k of the distance; it starts from them again after every task.

    The rules can be given by the name of a data set, `{tid2013: drift, kadid10k: interpolate}`: the
    released prior goes through the tasks of both in each epoch. The copy that workers start from is
    renewed where the tasks of a data set begin.
    - `second_order`: MAML (https://arxiv.org/abs/1703.03400). The step on the support images is one
      of gradient descent by `inner_lr`, and the optimiser descends the query loss after it through
      that step.

    Args:
        backbone: the network that is to be pre-trained.
        optimizer: builds the optimiser of the steps from two parameter groups, backbone and rest.
        head_lr: learning rate of the rest; that of the backbone is the optimiser's own.
        outer: see above.
        tasks: tasks of a mini-batch over all ranks (k).
        shared_state: whether the optimiser keeps its moments from task to task (the official code).
        decay: the rates are multiplied by decay^floor(epoch / every).
        every: epochs between decays.
        compounding: the official code: the factor multiplies the current rate in every epoch.
        copies: what a worker takes over where it starts, `all`, or the `parameters` alone: the
            running statistics of the official code's worker go on through all restarts.
        output: `meta`, the shared weights, or `worker`, those of the last task (the official code).
        inner_lr: of `second_order`.
        dropout: of the head.
        classifier: how the 1000-way layer starts: `random`, or `imagenet`, with the classifier of
            the backbone's ImageNet weights (the official code).

    Raises:
        ValueError: an unknown `outer` or `output`.
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerFactory,
        head_lr: float = 1e-2,
        outer: str | Mapping[str, str] = "mean",
        tasks: int = 5,
        shared_state: bool = False,
        decay: float = 0.9,
        every: int = 2,
        compounding: bool = False,
        copies: str = "all",
        output: str = "meta",
        inner_lr: float = 1e-2,
        dropout: float = 0.5,
        classifier: str = "random",
    ) -> None:
        super().__init__()
        rules = [outer] if isinstance(outer, str) else list(outer.values())
        released = set(rules) <= {"drift", "interpolate"}
        if not set(rules) <= set(OUTER) or not (released or isinstance(outer, str)):
            raise ValueError(
                f"method.outer={outer!r}: choose one of {OUTER}, or drift or interpolate for each "
                "data set"
            )
        if output not in ("meta", "worker") or copies not in ("all", "parameters"):
            raise ValueError(
                f"method.output={output!r}, copies={copies!r}: choose meta or worker; all or "
                "parameters"
            )
        self.automatic_optimization = False
        self.model = RegressionNet(backbone, dropout, classifier)
        self.worker = copy.deepcopy(self.model)
        self.start = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer_factory, self.head_lr, self.outer, self.tasks = (
            optimizer,
            head_lr,
            outer,
            tasks,
        )
        self.shared_state, self.decay, self.every, self.compounding = (
            shared_state,
            decay,
            every,
            compounding,
        )
        self.output, self.inner_lr, self.copies = output, inner_lr, copies
        self.of_before: int | None = None  # data set of the task before
        self.visited: Tensor
        self.register_buffer("visited", torch.tensor(0))

    def weights(self) -> dict[str, Tensor]:
        """What is kept of the pre-training: the backbone and, as `metaiqa_head.*`, the rest."""
        kept = self.model if self.output == "meta" else self.worker
        rest = {f"{HEAD}{name}": value for name, value in kept.rest.state_dict().items()}
        body: dict[str, Tensor] = kept.backbone.network.state_dict()
        return body | rest

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Over the worker, or over the shared weights where they are descended themselves."""
        model: RegressionNet = self.model if self.outer == "second_order" else self.worker
        body, rest = list(model.backbone.parameters()), list(model.rest.parameters())
        return self.optimizer_factory([{"params": body}, {"params": rest, "lr": self.head_lr}])

    def on_train_epoch_start(self) -> None:
        """The rates of the epoch."""
        (optimizer,) = self.trainer.optimizers
        self.of_before = None
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            factor = decay_factor(self.current_epoch, self.decay, self.every, self.compounding)
            group["lr"] = group["initial_lr"] * factor

    def training_step(self, batch: list[Episode], batch_idx: int) -> None:  # Lightning's signature
        """One mini-batch of tasks."""
        optimizer = self.optimizers()
        if self.outer == "second_order":
            loss = self.maml_step(batch, optimizer)
        elif self.outer == "mean":
            loss = self.mean_step(batch, optimizer)
        else:
            loss = torch.stack([self.released_task(episode, optimizer) for episode in batch]).mean()
        if batch:
            self.log("train/loss", loss, batch_size=len(batch))

    def mean_step(self, batch: Sequence[Episode], optimizer: Any) -> Tensor:
        """The paper's outer step; losses are those of the query images."""
        total = {name: torch.zeros_like(value) for name, value in floats(self.model).items()}
        losses = [torch.zeros((), device=self.device)]
        for episode in batch:
            self.restart(optimizer)
            for support, query in zip(episode["support"], episode["query"], strict=True):
                descend(self.worker, support, optimizer)
                losses.append(descend(self.worker, query, optimizer))
            for name, value in floats(self.worker).items():
                total[name] += value - floats(self.model)[name]
        count = sum_over_ranks(torch.tensor(float(len(batch)), device=self.device))
        for name, value in floats(self.model).items():
            value.add_(sum_over_ranks(total[name]) / count)
        return torch.stack(losses).sum() / max(len(batch), 1)

    def released_task(self, episode: Episode, optimizer: Any) -> Tensor:
        """One task as the official code takes it; there is one process."""
        if self.trainer.world_size > 1:
            raise ValueError(
                f"method.outer={self.outer} goes from task to task and cannot be shared out: one "
                "device"
            )
        rule = self.outer if isinstance(self.outer, str) else self.outer[episode["dataset"]]
        if self.of_before != episode.get("dataset", ""):
            self.of_before = episode.get("dataset", "")
            self.visited.zero_()
        if self.visited % (self.tasks if rule == "drift" else 1) == 0:
            copy_state(self.model, self.start, self.copies)
        copy_state(self.start, self.worker, self.copies)
        if not self.shared_state:
            optimizer.optimizer.state.clear()
        for support, query in zip(episode["support"], episode["query"], strict=True):
            descend(self.worker, support, optimizer)
            loss = descend(self.worker, query, optimizer)
            origin = self.start if rule == "drift" else self.model
            moves = zip(
                self.model.parameters(), self.worker.parameters(), origin.parameters(), strict=True
            )
            with torch.no_grad():
                for shared, worker, old in moves:
                    shared.add_((worker - old) / self.tasks)
        self.visited += 1
        return loss

    def maml_step(self, batch: Sequence[Episode], optimizer: Any) -> Tensor:
        """Descends the mean query loss after one inner step, through that step."""
        parameters = dict(self.model.named_parameters())
        total = [torch.zeros_like(value) for value in parameters.values()]
        losses = [torch.zeros((), device=self.device)]
        for episode in batch:
            loss = adapted_loss(
                self.model, episode["support"][0], episode["query"][0], self.inner_lr, squared_error
            )
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            total = [one + gradient for one, gradient in zip(total, gradients, strict=True)]
            losses.append(loss.detach())
        count = sum_over_ranks(torch.tensor(float(len(batch)), device=self.device))
        for value, gradient in zip(parameters.values(), total, strict=True):
            value.grad = sum_over_ranks(gradient) / count
        optimizer.step()
        return torch.stack(losses).sum() / max(len(batch), 1)

    def restart(self, optimizer: Any) -> None:
        """The worker as the shared weights are, its optimiser as new."""
        copy_state(self.model, self.worker, self.copies)
        if not self.shared_state:
            optimizer.optimizer.state.clear()


def descend(
    model: nn.Module, batch: Batch, optimizer: Any, loss: Loss = squared_error
) -> Float[Tensor, ""]:
    """One step of the optimiser. Not by `backward`, of which DDP would exchange the gradients of
    different tasks.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    value = loss(model, batch)
    for parameter, gradient in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
    return value.detach()


def adapted_loss(
    model: nn.Module, support: Batch, query: Batch, lr: float, loss: Loss
) -> Float[Tensor, ""]:
    """Loss on the query after one step of gradient descent on the support, differentiable through
    that step.
    """
    parameters = dict(model.named_parameters())

    gradients = torch.autograd.grad(
        loss(At(model, parameters), support), list(parameters.values()), create_graph=True
    )
    moved = {
        name: value - lr * g for (name, value), g in zip(parameters.items(), gradients, strict=True)
    }
    return loss(At(model, moved), query)


class At(nn.Module):
    """A model at other parameters than its own."""

    def __init__(self, model: nn.Module, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.models, self.values = (
            [model],
            values,
        )  # in a list, so that its parameters are not this module's

    def forward(self, *inputs: Tensor) -> Tensor:
        """The model's output."""
        output: Tensor = functional_call(self.models[0], dict(self.values), inputs)
        return output


def floats(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and running statistics, detached."""
    return {
        name: value.detach()
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }


def copy_state(source: nn.Module, target: nn.Module, copies: str = "all") -> None:
    """Let a module be as another, or its parameters alone."""
    if copies == "all":
        target.load_state_dict(source.state_dict())
        return
    with torch.no_grad():
        for to, of in zip(target.parameters(), source.parameters(), strict=True):
            to.copy_(of)


def decay_factor(epoch: int, decay: float, every: int, compounding: bool) -> float:
    """Factor on the first rate in an epoch (from 0): decay^floor(epoch / every), or the product of
    all up to it.
    """
    epochs: Iterable[int] = range(1, epoch + 1) if compounding else [epoch]
    factor = 1.0
    for e in epochs:
        factor *= decay ** (e // every)
    return factor
