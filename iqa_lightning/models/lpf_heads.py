"""LPF's parts on frozen features.

After the abstract of https://arxiv.org/abs/2402.12043 and summaries by third parties; depths, widths
and the form of each part are design.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

CATEGORIES = 4  # as in `losses.comparison`
COMPARISONS = ("network", "difference")
GATES = ("softmax", "sigmoid")


class FeatureEmbedding(nn.Sequential):
    """FEN: blocks of linear layer, ReLU, LayerNorm, dropout; 131,840 parameters from 512 to 256."""

    def __init__(
        self, width: int, hidden: int = 256, blocks: int = 1, dropout: float = 0.1
    ) -> None:
        layers: list[nn.Module] = []
        for k in range(blocks):
            layers += [
                nn.Linear(hidden if k else width, hidden),
                nn.ReLU(),
                nn.LayerNorm(hidden),
                nn.Dropout(dropout),
            ]
        super().__init__(*layers)


class CategoryHead(nn.Linear):
    """Logits of the four categories; 1,028 parameters from 256."""

    def __init__(self, hidden: int = 256) -> None:
        super().__init__(hidden, CATEGORIES)


class ComparisonHead(nn.Module):
    """Logit of the first of two images being better.

    `network`: two layers on both latents, 65,793 parameters from 256 each. `difference`: linear in
    the difference of the latents, 256 parameters; then c(i, j) = -c(j, i), and the comparison is a
    second score, linear in the latents.

    Raises:
        ValueError: another kind.
    """

    def __init__(self, hidden: int = 256, kind: str = "network", inner: int = 128) -> None:
        super().__init__()
        if kind not in COMPARISONS:
            raise ValueError(f"method.comparison={kind!r}: choose one of {COMPARISONS}")
        self.kind = kind
        if kind == "network":
            self.layers: nn.Module = nn.Sequential(
                nn.Linear(2 * hidden, inner), nn.ReLU(), nn.Linear(inner, 1)
            )
        else:
            self.layers = nn.Linear(hidden, 1, bias=False)

    def forward(
        self, latent: Float[Tensor, "batch hidden"], pairs: Int[Tensor, "pairs 2"]
    ) -> Float[Tensor, " pairs"]:
        """One logit a pair."""
        first, second = latent[pairs[:, 0]], latent[pairs[:, 1]]
        network = self.kind == "network"
        both = torch.cat([first, second], dim=1) if network else first - second
        return self.layers(both)[:, 0]  # type: ignore[no-any-return]  # modules are untyped


class QualityRegression(nn.Module):
    """DaQRN: a stream of scores and one of weights, one of each for a component of distortion,
    multiplied and summed; 69,920 parameters from 256.

    `softmax`: weights sum to 1, so that the score is in [0, 1]. `sigmoid`: they do not.

    Raises:
        ValueError: another gate.
    """

    def __init__(
        self, hidden: int = 256, components: int = 16, gate: str = "softmax", inner: int = 128
    ) -> None:
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"method.component_weights={gate!r}: choose one of {GATES}")
        self.gate = gate
        self.scores, self.weights = (
            nn.Sequential(nn.Linear(hidden, inner), nn.ReLU(), nn.Linear(inner, components))
            for _ in range(2)
        )

    def forward(self, latent: Float[Tensor, "batch hidden"]) -> Float[Tensor, " batch"]:
        """Scores, higher is better."""
        weights = self.weights(latent).float()
        weights = weights.softmax(dim=1) if self.gate == "softmax" else weights.sigmoid()
        return (weights * self.scores(latent).float().sigmoid()).sum(dim=1)  # type: ignore[no-any-return]
