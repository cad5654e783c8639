"""How much each parameter matters to what was learnt, and what it costs to change it.

EWC (https://arxiv.org/abs/1612.00796), MAS (https://arxiv.org/abs/1711.09601) and SI
(https://arxiv.org/abs/1703.04200), in the forms that the official code of LwF-KG gives them for pairs of images
(https://github.com/zwx8981/BIQA_CL).

In evaluation mode images do not see each other, so the gradient of anything that depends on a pair's difference of
scores is a number times the difference of two images' score gradients. Those are computed once an image, in batches.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from iqa_lightning.losses.fidelity import fidelity, preference

Parameters = dict[str, Tensor]
ScoreOfOne = Callable[..., Float[Tensor, ""]]
"""Score of one image from the parameters and the image's own tensors, without a batch dimension."""


def score_gradients(score: ScoreOfOne, parameters: Parameters, *images: Tensor, chunk: int = 8) -> Parameters:
    """Gradient of each image's score, (images, *shape) for each parameter; `chunk` images at a time."""
    per_image = vmap(grad(score), in_dims=(None, *(0 for _ in images)), chunk_size=chunk)
    with sdpa_kernel(SDPBackend.MATH):  # the faster forms of attention have no rule for vmap
        gradients: Parameters = per_image(parameters, *images)
    return gradients


def slopes(value: Callable[[Tensor], Tensor], delta: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
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
    gradients: Parameters, slope: Float[Tensor, " pairs"], pairs: Int[Tensor, "pairs 2"], power: int, chunk: int = 16
) -> Parameters:
    """Sum over the pairs of |gradient of the pair|^power, by parameter; `chunk` pairs at a time."""
    return {
        name: sum_powers(images.flatten(1), slope, pairs, power, chunk).view(images.shape[1:])
        for name, images in gradients.items()
    }


def sum_powers(
    images: Float[Tensor, "images size"],
    slope: Float[Tensor, " pairs"],
    pairs: Int[Tensor, "pairs 2"],
    power: int,
    chunk: int,
) -> Float[Tensor, " size"]:
    """The sum for one parameter."""
    total = images.new_zeros(images.shape[1])
    for part, c in zip(pairs.split(chunk), slope.split(chunk), strict=True):  # type: ignore[no-untyped-call]  # torch
        gradient = (images[part[:, 0]] - images[part[:, 1]]) * c[:, None]
        total += (gradient.square() if power == 2 else gradient.abs()).sum(dim=0)
    return total


def si_importance(path: Tensor, change: Tensor, damping: float = 0.1) -> Tensor:
    """SI: what the steps along the path gained, per squared way from start to end; `damping` keeps it finite.

    `path` sums -gradient * change over the steps. Negative values are kept, as the official code does.
    """
    return path / (change.square() + damping)


def penalty(
    parameters: Sequence[Tensor], anchors: Sequence[Tensor], importances: Sequence[Tensor], names: Sequence[str]
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
        bad = next(name for name, term in zip(names, terms, strict=True) if not math.isfinite(term.item()))
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
            raise ValueError(f"the importance of {name!r} is not a finite number: the training of this task diverged")
