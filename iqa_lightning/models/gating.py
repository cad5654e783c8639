"""Gates: how much each task's head counts for an image, by how near the image lies to the tasks'
training images.

All read features of a network that no training changes, at one or more stages, each L2-normalised,
and give the softmin of a distance to each task, averaged over the stages. Sources: TSN-IQA
(https://arxiv.org/abs/2107.13429) and LwF-KG (https://arxiv.org/abs/2102.09717). An oracle needs no
gate: it is a readout of its own.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.models.backbones import Encoder

Stages = list[Float[Tensor, "batch width"]]


def nearest(
    point: Float[Tensor, "batch width"], centroids: Float[Tensor, "count width"]
) -> Float[Tensor, " batch"]:
    """Distance to the nearest centroid, not by the quick product form, which loses small
    differences.
    """
    return torch.cdist(point, centroids, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)


def frozen(*shape: int) -> nn.Parameter:
    """Zeros that are saved and never trained. No buffer, which DDP would broadcast at each step."""
    return nn.Parameter(torch.zeros(shape), requires_grad=False)


class Gate(nn.Module):
    """What all gates share: `fit` a task, then weigh the heads of the tasks seen so far.

    Args:
        widths: of the feature stages, or the network that the gate will read.
        num_tasks: of the whole stream.
        temperature: what distances are multiplied with; of `LDAGate`, what they are divided by.
        hard: whether the nearest task gets all weight.
        stages: how many of the last stages it reads: 2 in TSN-IQA.
        features: what these are: `last`, the pooled last stages of the network, or `stages`, the
            statistics of all its stages as one; whatever the heads read.

    Raises:
        ValueError: `stages` is below 1.
    """

    independent: bool = True
    """Whether the nearness of a task depends on no other task."""

    def __init__(
        self,
        widths: list[int] | Encoder,
        num_tasks: int,
        temperature: float = 32.0,
        hard: bool = False,
        stages: int = 2,
        features: str = "last",
    ) -> None:
        super().__init__()
        if not isinstance(widths, list):
            widths = widths.gate_widths(features)
        self.features = features
        if stages < 1:
            raise ValueError(f"method.gate.stages={stages}: a gate reads 1 stage or more")
        self.widths, self.num_tasks, self.temperature, self.hard = (
            widths[-stages:],
            num_tasks,
            temperature,
            hard,
        )

    def fit(self, t: int, stages: Stages) -> None:
        """Take in task t (from 1), given the features of its training images."""
        raise NotImplementedError

    def distances(self, stages: Stages, seen: int) -> Float[Tensor, "stages batch tasks"]:
        """Distance of each image to each of the first `seen` tasks, at each stage."""
        points = enumerate(self.points(stages))
        return torch.stack(
            [
                torch.stack([self.distance(i, point, t) for t in range(seen)], dim=1)
                for i, point in points
            ]
        )

    def points(self, stages: Stages) -> Stages:
        """The stages that the gate reads, each L2-normalised."""
        return [F.normalize(stage.float(), dim=1) for stage in stages[-len(self.widths) :]]

    def distance(
        self, stage: int, point: Float[Tensor, "batch width"], task: int
    ) -> Float[Tensor, " batch"]:
        """Distance of L2-normalised features to a task (from 0), at one stage."""
        raise NotImplementedError

    def nearness(self, stages: Stages, seen: int) -> Float[Tensor, "stages batch tasks"]:
        """Distances times minus the temperature: what the softmax over any of the tasks is taken
        of, stage by stage.
        """
        return -self.temperature * self.distances(stages, seen)

    def weigh(self, nearness: Float[Tensor, "stages batch tasks"]) -> Float[Tensor, "batch tasks"]:
        """Weights of the heads for each image: the softmin of the distances, mean over the stages;
        they sum to 1.
        """
        weights = torch.stack([torch.softmax(stage, dim=1) for stage in nearness]).mean(dim=0)
        return (
            F.one_hot(weights.argmax(dim=1), weights.shape[1]).to(weights) if self.hard else weights
        )

    def forward(self, stages: Stages, seen: int) -> Float[Tensor, "batch tasks"]:
        """Weights of the first `seen` heads for each image; they sum to 1."""
        return self.weigh(self.nearness(stages, seen))


class KMeansGate(Gate):
    """Euclidean distance to the nearest of K centroids of the task.

    K is capped at a quarter of the task's images (`images_per_cluster`), which the official code
    does not do: 128 centroids would memorise sets of a hundred images. 1 switches the cap off (K
    can then be as large as the set).
    """

    def __init__(
        self,
        widths: list[int] | Encoder,
        num_tasks: int,
        clusters: int = 128,
        temperature: float = 32.0,
        restarts: int = 20,
        max_iterations: int = 1000,
        images_per_cluster: int = 4,
        hard: bool = False,
        seed: int = 0,
        stages: int = 2,
        features: str = "last",
    ) -> None:
        super().__init__(widths, num_tasks, temperature, hard, stages, features)
        self.centroids = nn.ParameterList(
            frozen(num_tasks, clusters, width) for width in self.widths
        )
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(num_tasks, dtype=torch.long))
        self.clusters, self.images_per_cluster = clusters, images_per_cluster
        self.restarts, self.max_iterations, self.seed = restarts, max_iterations, seed

    @torch.no_grad()
    def fit(self, t: int, stages: Stages) -> None:
        """Place the centroids of task t (from 1) on the features of its training images."""
        count = max(1, min(self.clusters, len(stages[0]) // self.images_per_cluster))
        for centroids, points in zip(self.centroids, self.points(stages), strict=True):
            centroids[t - 1, :count] = self.cluster(points, count).to(centroids)
        self.counts[t - 1] = count

    def cluster(
        self, points: Float[Tensor, "images width"], count: int
    ) -> Float[Tensor, "count width"]:
        """K-means with k-means++ starts. One thread: the order of a threaded sum would change the
        last bits.
        """
        from sklearn.cluster import KMeans  # noqa: PLC0415  # slow to import, and only fitting needs it
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        means = KMeans(
            count, n_init=self.restarts, max_iter=self.max_iterations, random_state=self.seed
        )
        with threadpool_limits(limits=1):
            return torch.from_numpy(
                means.fit(points.cpu().double().numpy()).cluster_centers_
            ).float()

    def distance(
        self, stage: int, point: Float[Tensor, "batch width"], task: int
    ) -> Float[Tensor, " batch"]:
        """Euclidean distance to the nearest centroid."""
        return nearest(point, self.centroids[stage][task, : int(self.counts[task])])


class MeanFeatureGate(Gate):
    """Mean squared difference to the task's mean feature, itself L2-normalised."""

    def __init__(
        self,
        widths: list[int] | Encoder,
        num_tasks: int,
        temperature: float = 32.0,
        hard: bool = False,
        stages: int = 2,
        features: str = "last",
    ) -> None:
        super().__init__(widths, num_tasks, temperature, hard, stages, features)
        self.means = nn.ParameterList(frozen(num_tasks, width) for width in self.widths)

    @torch.no_grad()
    def fit(self, t: int, stages: Stages) -> None:
        """Mean of the normalised features of task t (from 1)."""
        for means, points in zip(self.means, self.points(stages), strict=True):
            means[t - 1] = F.normalize(points.mean(dim=0), dim=0)

    def distance(
        self, stage: int, point: Float[Tensor, "batch width"], task: int
    ) -> Float[Tensor, " batch"]:
        """Mean squared difference."""
        difference: Tensor = point - self.means[stage][task]
        return difference.square().mean(dim=1)


class ExpertGate(Gate):
    """Mean squared error of an auto-encoder of the task: width - `hidden` - width, ReLUs, output
    L2-normalised.

    Trained when the task starts by Adam with L2 weight decay; the learning rate falls to a tenth
    every `decay_epochs`. The values are those of the official code of LwF-KG, whose last partial
    batch is fitted to its own output: here every batch is fitted to its input. A feature with
    negative entries cannot be met exactly, by the last ReLU.
    """

    def __init__(
        self,
        widths: list[int] | Encoder,
        num_tasks: int,
        hidden: int = 64,
        temperature: float = 32.0,
        epochs: int = 20,
        decay_epochs: int = 10,
        batch_size: int = 16,
        lr: float = 3e-3,
        weight_decay: float = 5e-4,
        hard: bool = False,
        seed: int = 0,
        stages: int = 2,
        features: str = "last",
    ) -> None:
        super().__init__(widths, num_tasks, temperature, hard, stages, features)
        starts = [auto_encoder(width, hidden) for width in self.widths]
        self.experts = nn.ModuleList(
            nn.ModuleList(copy.deepcopy(start) for _ in range(num_tasks)) for start in starts
        ).requires_grad_(False)
        self.hidden, self.epochs, self.decay_epochs, self.batch_size = (
            hidden,
            epochs,
            decay_epochs,
            batch_size,
        )
        self.lr, self.weight_decay, self.seed = lr, weight_decay, seed

    def fit(self, t: int, stages: Stages) -> None:
        """Train the auto-encoders of task t (from 1)."""
        for experts, points in zip(self.experts, self.points(stages), strict=True):
            trained = self.train_expert(points.cpu())
            experts[t - 1].load_state_dict(trained.state_dict())  # type: ignore[index]  # modules are untyped

    def train_expert(self, points: Float[Tensor, "images width"]) -> nn.Module:
        """A new auto-encoder fitted to L2-normalised features, with random numbers of its own."""
        from threadpoolctl import threadpool_limits  # noqa: PLC0415

        with torch.random.fork_rng(devices=[]), torch.enable_grad(), threadpool_limits(limits=1):
            torch.manual_seed(self.seed)
            expert = auto_encoder(points.shape[1], self.hidden)
            optimizer = torch.optim.Adam(
                expert.parameters(), lr=self.lr, weight_decay=self.weight_decay
            )
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, self.decay_epochs, gamma=0.1)
            for _ in range(self.epochs):
                for batch in torch.split(points[torch.randperm(len(points))], self.batch_size):
                    optimizer.zero_grad()
                    reconstruction_error(expert, batch).mean().backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                schedule.step()
        return expert

    def distance(
        self, stage: int, point: Float[Tensor, "batch width"], task: int
    ) -> Float[Tensor, " batch"]:
        """Mean squared error of the task's auto-encoder."""
        return reconstruction_error(self.experts[stage][task], point)  # type: ignore[index]  # modules are untyped


def auto_encoder(width: int, hidden: int) -> nn.Sequential:
    """Two linear layers, each with a ReLU."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.ReLU())


def reconstruction_error(
    expert: nn.Module, point: Float[Tensor, "batch width"]
) -> Float[Tensor, " batch"]:
    """Mean squared difference between a feature and its L2-normalised reconstruction."""
    return (F.normalize(expert(point), dim=1) - point).square().mean(dim=1)


class LDAGate(Gate):
    """Linear discriminant analysis with a shrunk covariance that all tasks share.

    Features are not normalised image by image but standardised by mean and deviation of all images
    so far; the stages stand one behind the other. Kept are n and the sum of each task and the
    scatter within tasks, in float64: exact, without images, the same in any order but for rounding.
    With S the scatter over n, C = (1 - `shrinkage`) S + `shrinkage` mean(eigenvalues of S) I and
    equal priors, the weights are the softmax of -d^2 / (2 `temperature`), d the Mahalanobis
    distance to the mean of a task: that of the discriminants z' C^-1 m - m' C^-1 m / 2 over
    `temperature`. The defaults were chosen by cross-validation on training images alone.

    Source: Friedman, "Regularized discriminant analysis", JASA 84, 1989.

    Raises:
        ValueError: `shrinkage` is not in [0, 1], or the temperature not above 0.
    """

    independent = False

    def __init__(
        self,
        widths: list[int] | Encoder,
        num_tasks: int,
        shrinkage: float = 0.9,
        temperature: float = 16.0,
        hard: bool = False,
        stages: int = 2,
        features: str = "last",
    ) -> None:
        super().__init__(widths, num_tasks, temperature, hard, stages, features)
        if not 0 <= shrinkage <= 1 or not temperature > 0:
            raise ValueError(
                f"method.gate: shrinkage={shrinkage}, temperature={temperature}: expected a "
                "shrinkage from 0 to 1 and a temperature above 0"
            )
        width = sum(self.widths)
        self.shrinkage = shrinkage
        self.counts, self.sums, self.scatter = (
            nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=False)
            for shape in ((num_tasks,), (num_tasks, width), (width, width))
        )
        self.solved: tuple[tuple[int, ...], tuple[Tensor, ...]] | None = None

    def points(self, stages: Stages) -> Stages:
        """All stages in one, as they are."""
        return [torch.cat(stages[-len(self.widths) :], dim=1).double()]

    @torch.no_grad()
    def fit(self, t: int, stages: Stages) -> None:
        """Count in the images of task t (from 1)."""
        (points,) = self.points(stages)
        self.counts[t - 1], self.sums[t - 1] = len(points), points.sum(dim=0)
        centred = points - points.mean(dim=0)
        self.scatter.add_(centred.T @ centred)

    def distances(self, stages: Stages, seen: int) -> Float[Tensor, "stages batch tasks"]:
        """Mahalanobis distance of each image to the mean of each task."""
        (points,) = self.points(stages)
        mean, whitening, centres = self.solve(seen)
        white = (points - mean) @ whitening
        return torch.stack([(white - centre).norm(dim=1) for centre in centres], dim=1)[
            None
        ].float()

    def nearness(self, stages: Stages, seen: int) -> Float[Tensor, "stages batch tasks"]:
        """-d^2 / (2 temperature), up to what all tasks share."""
        squares = self.distances(stages, seen).double().square()
        return (-(squares - squares.amin(dim=2, keepdim=True)) / (2 * self.temperature)).float()

    def solve(self, seen: int) -> tuple[Tensor, ...]:
        """Mean of all images, the map that makes the shrunk covariance 1, and the means of the
        tasks under it; kept until the sums change.
        """
        state = (self.counts, self.sums, self.scatter)
        key = (seen, *(mark for part in state for mark in (part.data_ptr(), part._version)))
        if self.solved is None or self.solved[0] != key:
            self.solved = key, self.decompose(seen)
        return self.solved[1]

    def decompose(self, seen: int) -> tuple[Tensor, ...]:
        """What `solve` keeps, computed on the processor."""
        counts, sums, scatter = (
            part.detach().cpu() for part in (self.counts[:seen], self.sums[:seen], self.scatter)
        )
        total, means = counts.sum(), sums / counts[:, None]
        mean = sums.sum(dim=0) / total
        between = (counts[:, None] * (means - mean).square()).sum(dim=0)
        variance = (scatter.diagonal() + between) / total
        deviation = torch.where(variance > 0, variance, 1.0).sqrt()
        values, vectors = torch.linalg.eigh(scatter / total / torch.outer(deviation, deviation))
        shrunk = (1 - self.shrinkage) * values + self.shrinkage * values.mean()
        # directions without any variance tell nothing
        root = torch.where(shrunk > 0, shrunk, torch.inf).sqrt()
        whitening = vectors / root / deviation[:, None]
        found = (mean, whitening, (means - mean) @ whitening)
        return tuple(part.to(self.scatter.device) for part in found)


class UniformGate(Gate):
    """All heads count the same: what a gate must beat."""

    def __init__(
        self,
        widths: list[int] | Encoder,
        num_tasks: int,
        stages: int = 2,
        features: str = "last",
    ) -> None:
        super().__init__(widths, num_tasks, stages=stages, features=features)

    def fit(self, t: int, stages: Stages) -> None:
        """Nothing to learn."""

    def distance(
        self, stage: int, point: Float[Tensor, "batch width"], task: int
    ) -> Float[Tensor, " batch"]:
        """Every task is equally near."""
        return point.new_zeros(len(point))
