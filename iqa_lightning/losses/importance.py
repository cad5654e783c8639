"""How much each parameter matters to what was learnt, and what it costs to change it.

EWC (https://arxiv.org/abs/1612.00796), MAS (https://arxiv.org/abs/1711.09601) and SI
(https://arxiv.org/abs/1703.04200), in the forms that the official code of LwF-KG gives them for
pairs of images (https://github.com/zwx8981/BIQA_CL).

In evaluation mode images do not see each other, so the gradient of anything that depends on a
pair's difference of scores is a number times the difference of two images' score gradients. Those
are computed once an image.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from iqa_lightning.losses.fidelity import fidelity, preference

Parameters = dict[str, Tensor]


ScoreOfOne = Callable[..., Float[Tensor, ""]]
"""Score of one image from the parameters and the image's own tensors, without a batch dimension."""


def score_gradients(score: ScoreOfOne, parameters: Parameters, *images: Tensor) -> Parameters:
    """Gradient of each image's score, (images, *shape) for each parameter.

    One image after another: `torch.func.vmap` over the gradients took as long here and four times
    the memory.
    """
    leaves = {
        name: parameter.detach().requires_grad_(True) for name, parameter in parameters.items()
    }
    with torch.enable_grad():
        rows = [
            torch.autograd.grad(score(leaves, *image), list(leaves.values()))
            for image in zip(*images, strict=True)
        ]
    return {
        name: torch.stack(column)
        for name, column in zip(leaves, zip(*rows, strict=True), strict=True)
    }


def slopes(
    value: Callable[[Tensor], Tensor], delta: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Derivative of a function of each pair's difference of scores."""
    delta = delta.detach().requires_grad_(True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(value(delta).sum(), delta)
    return slope


def ewc_slopes(
    delta: Float[Tensor, " pairs"], target: Float[Tensor, " pairs"], link: str = "phi"
) -> Float[Tensor, " pairs"]:
    """EWC: of the fidelity loss of each pair."""
    return slopes(lambda d: fidelity(preference(d, link), target), delta)


def mas_slopes(delta: Float[Tensor, " pairs"], link: str = "phi") -> Float[Tensor, " pairs"]:
    """MAS: of the squared preference probability of each pair."""
    return slopes(lambda d: preference(d, link).square(), delta)


def sum_over_pairs(
    gradients: Parameters, slope: Float[Tensor, " pairs"], pairs: Int[Tensor, "pairs 2"], power: int
) -> Parameters:
    """Sum over the pairs of |gradient of the pair|^power (1 or 2), by parameter."""
    total = {1: sum_absolutes, 2: sum_squares}[power]
    return {
        name: total(images.flatten(1), slope, pairs).view(images.shape[1:])
        for name, images in gradients.items()
    }


def sum_squares(
    images: Float[Tensor, "images size"],
    slope: Float[Tensor, " pairs"],
    pairs: Int[Tensor, "pairs 2"],
) -> Float[Tensor, " size"]:
    """Of squares: with the Laplacian L of the graph of pairs, weighted by slope^2, it is g' L g for
    each number g.

    In double precision, since gradients of a pair may be much alike.
    """
    weights = images.new_zeros(len(images), len(images), dtype=torch.float64)
    weights.index_put_((pairs[:, 0], pairs[:, 1]), slope.double().square(), accumulate=True)
    weights += weights.T.clone()
    laplacian = torch.diag(weights.sum(dim=1)) - weights
    wide = images.double()
    return (wide * (laplacian @ wide)).sum(dim=0).clamp_min(0.0).to(images)


def sum_absolutes(
    images: Float[Tensor, "images size"],
    slope: Float[Tensor, " pairs"],
    pairs: Int[Tensor, "pairs 2"],
) -> Float[Tensor, " size"]:
    """Of absolute values, pair by pair."""
    total = images.new_zeros(images.shape[1])
    for (first, second), weight in zip(pairs.tolist(), slope.abs(), strict=True):
        total += (images[first] - images[second]).abs_() * weight
    return total


def si_importance(path: Tensor, change: Tensor, damping: float = 0.1) -> Tensor:
    """SI: what the steps along the path gained, per squared way from start to end; `damping` keeps
    it finite.

    `path` sums -gradient * change over the steps. Negative values are kept, as the official code
    does.
    """
    return path / (change.square() + damping)


def penalty(
    parameters: Sequence[Tensor],
    anchors: Sequence[Tensor],
    importances: Sequence[Tensor],
    names: Sequence[str],
) -> Float[Tensor, ""]:
    """Sum of importance * (parameter - anchor)^2, without a factor 1/2.

    Raises:
        ValueError: it is not a number for a parameter, which the message names.
    """
    terms = [
        (importance * (parameter - anchor).square()).sum()
        for parameter, anchor, importance in zip(parameters, anchors, importances, strict=True)
    ]
    if not terms:
        return torch.zeros(())
    total = torch.stack(terms).sum()
    if not math.isfinite(total.item()):
        bad = next(
            name for name, term in zip(names, terms, strict=True) if not math.isfinite(term.item())
        )
        raise ValueError(
            f"the penalty on {bad!r} is not a finite number: its value or its importance is not; "
            "the training has diverged, lower method.optimizer.lr or method.weight"
        )
    return total


def check_finite(importances: Sequence[Tensor], names: Sequence[str]) -> None:
    """Refuse an importance that is not a number.

    Raises:
        ValueError: naming the parameter.
    """
    for name, importance in zip(names, importances, strict=True):
        if not torch.isfinite(importance).all():
            raise ValueError(
                f"the importance of {name!r} is not a finite number: the training of this task "
                "diverged"
            )
