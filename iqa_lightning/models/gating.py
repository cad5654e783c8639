"""Gates: how much each task's head counts for an image, by how near the image lies to the tasks' training images.

Source: TSN-IQA (https://arxiv.org/abs/2107.13429) and LwF-KG (https://arxiv.org/abs/2102.09717): K-means
on features of a fixed network, softmin of the distance to the nearest centroid.
"""

import torch
from jaxtyping import Float
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F


def softmin(distance: Float[Tensor, "batch tasks"], temperature: float) -> Float[Tensor, "batch tasks"]:
    """Weights in [0, 1] that sum to 1 over the tasks: exp(-temperature * distance), normalised."""
    return torch.softmax(-temperature * distance, dim=1)


def nearest(point: Float[Tensor, "batch width"], centroids: Float[Tensor, "count width"]) -> Float[Tensor, " batch"]:
    """Distance to the nearest centroid, not by the quick product form, which loses small differences."""
    return torch.cdist(point, centroids, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)


class KMeansGate(nn.Module):
    """Gate of nearest centroids over several feature levels, each L2-normalised; weights are averaged over the levels.

    K is capped at a quarter of the task's images (`images_per_cluster`), which the official code does not do: 128
    centroids would memorise sets of a hundred images. 1 switches the cap off (K can then be as large as the set).
    Centroids are frozen parameters, not buffers, so that DDP does not broadcast them at each step.
    """

    def __init__(
        self,
        widths: list[int],
        num_tasks: int,
        clusters: int = 128,
        temperature: float = 32.0,
        restarts: int = 20,
        max_iterations: int = 1000,
        images_per_cluster: int = 4,
        hard: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.centroids = nn.ParameterList(
            nn.Parameter(torch.zeros(num_tasks, clusters, width), requires_grad=False) for width in widths
        )
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(num_tasks, dtype=torch.long))
        self.clusters, self.temperature, self.hard = clusters, temperature, hard
        self.restarts, self.max_iterations, self.images_per_cluster = restarts, max_iterations, images_per_cluster
        self.seed = seed

    @torch.no_grad()
    def fit(self, t: int, levels: list[Float[Tensor, "images width"]]) -> None:
        """Place the centroids of task t (from 1) on the features of its training images."""
        count = max(1, min(self.clusters, len(levels[0]) // self.images_per_cluster))
        for centroids, level in zip(self.centroids, levels, strict=True):
            centroids[t - 1, :count] = self.cluster(F.normalize(level.float(), dim=1), count).to(centroids)
        self.counts[t - 1] = count

    def cluster(self, points: Float[Tensor, "images width"], count: int) -> Float[Tensor, "count width"]:
        """K-means with k-means++ starts. One thread: the order of a threaded sum would change the last bits."""
        means = KMeans(count, n_init=self.restarts, max_iter=self.max_iterations, random_state=self.seed)
        with threadpool_limits(limits=1):
            return torch.from_numpy(means.fit(points.cpu().double().numpy()).cluster_centers_).float()

    def distances(self, levels: list[Float[Tensor, "batch width"]], seen: int) -> Float[Tensor, "levels batch tasks"]:
        """Euclidean distance to the nearest centroid of each of the first `seen` tasks, at each level."""
        rows = []
        for centroids, level in zip(self.centroids, levels, strict=True):
            point = F.normalize(level.float(), dim=1)
            near = [nearest(point, centroids[t, : int(self.counts[t])]) for t in range(seen)]
            rows.append(torch.stack(near, dim=1))
        return torch.stack(rows)

    def forward(self, levels: list[Float[Tensor, "batch width"]], seen: int) -> Float[Tensor, "batch tasks"]:
        """Weights of the first `seen` heads for each image; they sum to 1."""
        distance = self.distances(levels, seen)
        weights = torch.stack([softmin(level, self.temperature) for level in distance]).mean(dim=0)
        return F.one_hot(weights.argmax(dim=1), seen).to(weights) if self.hard else weights
