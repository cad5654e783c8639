"""TSN-IQA: task-specific normalisation with a K-means gate.

Zhang et al., "Task-specific normalization for continual learning of blind image quality models", IEEE TIP 33, 2024,
https://arxiv.org/abs/2107.13429. The published command does not run; this follows what its code intends.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.data.stream import Position, Task
from iqa_lightning.methods.base import Batch, ContinualMethod
from iqa_lightning.models.backbones import Images
from iqa_lightning.models.gating import KMeansGate
from iqa_lightning.models.heads import CosineHeads
from iqa_lightning.models.normalization import NormSets

INITS = ("pretrained", "previous", "nearest")
LEVELS = ("level/3", "level/4")  # of a residual network; the last two stages of any


class TSNIQA(ContinualMethod):
    """Frozen convolutions; each task has its own norms (affine and running statistics) and its own head.

    Norm set 0 is the pretrained one: with it the network is the fixed feature extractor of the gate. At test time set k
    gives score k, and the gate weighs the scores by how near the image lies to the training images of each task.

    `init` says where the norms and the head of a new task start: `pretrained` (the paper: no task learns from another),
    `previous` (the task before) or `nearest` (the earlier task to whose centroids the new images lie nearest). The two
    latter go beyond the paper; they forget nothing either, since the earlier sets are only read. `gate` holds keywords
    of `KMeansGate`, which reads the last `gate_levels` stages: 2 in the paper, 1 for the last alone.

    Which norms the authors' gate network held (a file `distortion_bn`) is not known; the pretrained ones are used.

    Raises:
        ValueError: an unknown `init`, `gate_levels` other than 1 and 2, a backbone without norms.
    """

    readouts = ("latest", "oracle", "gated")

    def __init__(
        self,
        gate: Mapping[str, Any] | None = None,
        gate_levels: int = 2,
        init: str = "pretrained",
        normalize_heads: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if init not in INITS:
            raise ValueError(f"method.init={init!r}: choose one of {INITS}")
        if gate_levels not in (1, 2):
            raise ValueError(f"method.gate_levels={gate_levels}: the gate reads the last 1 or the last 2 stages")
        self.init, self.levels = init, LEVELS[-gate_levels:]
        self.backbone.requires_grad_(False)
        self.norms = NormSets(self.backbone.network, 1 + len(self.tasks))
        for t in range(1, 1 + len(self.tasks)):
            for parameter in self.norms.parameters(t):
                parameter.requires_grad_(True)
        self.heads = CosineHeads(self.backbone.width, len(self.tasks), normalize_heads)
        self.gate = KMeansGate(self.backbone.level_widths[-gate_levels:], len(self.tasks), **(gate or {}))

    def score(self, image: Images) -> Float[Tensor, " batch"]:
        """Score by the current task's norms and head."""
        return self.score_of(image, self.seen)

    def score_of(self, image: Images, t: int) -> Float[Tensor, " batch"]:
        """Score by the norms and head of task t."""
        self.norms.use(t)
        return self.heads(self.backbone(image), t - 1)  # type: ignore[no-any-return]  # modules are untyped

    def gate_levels(self, image: Images) -> list[Float[Tensor, "batch width"]]:
        """Features of the fixed pretrained network at the levels that the gate reads."""
        self.norms.use(0)
        return self.backbone.levels(image)[-len(self.levels) :]

    def final_heads(self) -> list[str]:
        """Every earlier task: its norms and its head are never touched again."""
        return self.tasks[: self.seen - 1]

    def head_scores(self, image: Images, known: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "batch heads"]]:
        """Scores of all heads so far and the gate's weights; one head needs no gate."""
        tasks = enumerate(self.tasks[: self.seen], start=1)
        columns = [known[task] if task in known else self.score_of(image, t) for t, task in tasks]
        scores = torch.stack(columns, dim=1)
        if not self.uses_gate:
            return {"score": scores, "gate": torch.ones_like(scores)}
        levels = [known[name] for name in self.levels] if self.levels[0] in known else self.gate_levels(image)
        return {"score": scores, "gate": self.gate(levels, self.seen)}

    @property
    def uses_gate(self) -> bool:
        """From the second task on."""
        return self.seen > 1

    def gate_features(self, image: Images) -> dict[str, Float[Tensor, "batch width"]]:
        """The stages that the gate reads."""
        return dict(zip(self.levels, self.gate_levels(image), strict=True))

    def body_parameters(self) -> list[nn.Parameter]:
        """Norms of the current task."""
        return self.norms.parameters(self.seen)

    def head_parameters(self) -> list[nn.Parameter]:
        """Head of the current task."""
        return [self.heads.weight[self.seen - 1]]

    def added_parameters(self) -> int:
        """A task adds a set of norms and a head."""
        return sum(p.numel() for p in [*self.norms.parameters(1), self.heads.weight[0]])

    def on_task_start(self, task: Task, images: Iterable[Batch]) -> None:
        """Fit the gate of the new task, then start its norms and head.

        The gate reads the fixed network only, so that it can be fitted before the training; `nearest` needs it there.
        """
        super().on_task_start(task, images)
        levels = self.collect(images, self.gate_levels)
        self.gate.fit(task.t, levels)
        source = self.start_from(task.t, levels)
        self.norms.copy(source, task.t)
        if source > 0:
            self.heads.weight[task.t - 1].data.copy_(self.heads.weight[source - 1].data)

    def start_from(self, t: int, levels: list[Float[Tensor, "images width"]]) -> int:
        """The norm set that task t starts from."""
        if self.init == "pretrained" or t == 1:
            return 0
        if self.init == "previous":
            return t - 1
        return 1 + int(self.gate.distances(levels, t - 1).mean(dim=(0, 1)).argmin())

    def on_phase_start(self, position: Position) -> None:
        """Only the current task's norms are ever in training mode."""
        super().on_phase_start(position)
        current = set(self.norms.layers(self.seen))
        for norm in self.norms.norms:
            for layer in norm.sets:
                if layer not in current:
                    layer.eval()
