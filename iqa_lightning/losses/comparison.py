"""Losses of LPF's three parts: category of an image, comparison of two, score.

After the abstract of https://arxiv.org/abs/2402.12043, whose body could not be read: the forms are
design.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

CATEGORIES = 4
BINS = ("quantile", "width")


def category_bounds(
    target: Float[Tensor, " images"], bins: str = "quantile"
) -> Float[Tensor, " bounds"]:
    """The three values between the four categories of a task, given its training targets in [0, 1].

    Args:
        target: targets of the training images.
        bins: `quantile`: quartiles, which leave no category empty; `width`: 1/4, 1/2, 3/4.

    Raises:
        ValueError: unknown bins.
    """
    if bins not in BINS:
        raise ValueError(f"method.bins={bins!r}: choose one of {BINS}")
    even = torch.arange(1, CATEGORIES) / CATEGORIES
    return even if bins == "width" else torch.quantile(target.float(), even.to(target.device))


def categories(
    target: Float[Tensor, " images"], bounds: Float[Tensor, " bounds"]
) -> Int[Tensor, " images"]:
    """Category of each target, 0 the worst; a target on a bound is in the better one.

    >>> categories(torch.tensor([0.0, 0.25, 1.0]), torch.tensor([0.25, 0.5, 0.75])).tolist()
    [0, 1, 3]
    """
    return torch.bucketize(target, bounds.to(target), right=True)


def comparable_pairs(
    target: Float[Tensor, " images"], pairs: Int[Tensor, "pairs 2"], delta: float = 0.0
) -> Int[Tensor, "kept 2"]:
    """Those of the pairs of a batch whose targets differ by more than `delta`; ties never."""
    apart = (target[pairs[:, 0]] - target[pairs[:, 1]]).abs() > delta
    return pairs[apart]


def comparison_loss(
    logits: Float[Tensor, " pairs"],
    target: Float[Tensor, " images"],
    pairs: Int[Tensor, "pairs 2"],
    spread: float | None = None,
) -> Float[Tensor, ""]:
    """Binary cross-entropy of the first image of each pair being better, mean over the pairs;
    without pairs 0, still connected to the logits.

    Args:
        logits: of the first being better.
        target: in [0, 1].
        pairs: positions in `target`.
        spread: standard deviation of a target, as in Thurstone's model: the wanted probability is
            Phi(difference / (sqrt 2 * spread)); null: 0 or 1.
    """
    difference = target[pairs[:, 0]] - target[pairs[:, 1]]
    if spread is None:
        wanted = (difference > 0).float()
    else:
        wanted = 0.5 * (1 + torch.erf(difference / (2 * spread)))
    summed = F.binary_cross_entropy_with_logits(logits.float(), wanted.float(), reduction="sum")
    return summed / max(1, len(pairs))


def score_loss(
    score: Float[Tensor, " images"], target: Float[Tensor, " images"], kind: str = "l1"
) -> Float[Tensor, ""]:
    """Mean `l1`, `mse` or `smooth_l1` distance of scores and targets, both in [0, 1].

    Raises:
        ValueError: an unknown kind.
    """
    losses = {"l1": F.l1_loss, "mse": F.mse_loss, "smooth_l1": F.smooth_l1_loss}
    if kind not in losses:
        raise ValueError(f"method.score_loss={kind!r}: choose one of {tuple(losses)}")
    return losses[kind](score.float(), target.float())
