"""Ratings of a task in [0, 1], for methods that meet scores instead of ranking images."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.distributed import from_all_ranks


class RatingRange(nn.Module):
    """The lowest and the highest rating among a task's training images, which become 0 and 1.

    Ratings of other images may lie outside. The two numbers are saved with the weights, so that a
    resumed run finds them.
    """

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(1.0))

    def fit(self, rated: "RatedImages") -> None:
        """Take in the ratings of all training images, over all ranks.

        Raises:
            ValueError: the task joins several data sets, whose scales differ, or has one rating.
        """
        names = ", ".join(rated.datasets)
        if len(rated.datasets) > 1:
            raise ValueError(
                f"this method meets scores and cannot pool the scales of {names}: make each of "
                "them a task of its own in stream.order"
            )
        mos = torch.cat(from_all_ranks(rated.mos()))
        if mos.min() == mos.max():
            raise ValueError(
                f"all training images of {names} have the rating {mos.min():g}: there is nothing "
                "to learn"
            )
        self.low.fill_(mos.min())
        self.high.fill_(mos.max())

    def forward(self, mos: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Ratings, 0 the worst and 1 the best of the training images."""
        return (mos.float() - self.low) / (self.high - self.low)


class RatedImages:
    """Batches of images that are gone through once; their ratings (`mos`) are noted on the way."""

    def __init__(self, datasets: tuple[str, ...], images: Iterable[dict[str, Any]]) -> None:
        self.datasets, self.images = datasets, iter(images)
        self.noted: list[Tensor] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """What is left of the batches."""
        for batch in self.images:
            self.noted.append(batch["mos"].cpu())
            yield batch

    def mos(self) -> Float[Tensor, " images"]:
        """Ratings of all images, after going through what is left of them; a rank may have none."""
        for _ in self:
            pass
        return torch.cat([torch.empty(0), *self.noted])
