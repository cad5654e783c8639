"""Continual learning of blind image quality assessment with PyTorch Lightning and Hydra."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqa_lightning.scoring.scorer import Scorer

__all__ = ["Scorer"]


def __getattr__(name: str) -> Any:
    """`Scorer`, imported when it is asked for: importing the package stays cheap."""
    if name != "Scorer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from iqa_lightning.scoring.scorer import Scorer  # noqa: PLC0415  # torch

    return Scorer
