"""GRepQ's low-level network: a network from scratch and two linear layers, whose output is the
feature.
"""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.models.backbones import Backbone, read_weights

HEAD = "grepq_head."
"""What the names of the head's tensors start with in a weights file."""


class QualityEncoder(Backbone):
    """A timm network with a head of two linear layers, a ReLU between them; images in [0, 1].

    The feature is the head's output, of any norm. Such a network is a backbone like any other.

    https://arxiv.org/abs/2312.04838, values from its code: ResNet-18 (11,176,512 parameters), 512 -
    512 - 128 (328,320).

    Args:
        name: a timm network.
        weights: as of `Backbone`; a file of `pretraining=grepq` also holds the head, which else
            starts at random.
        hidden: width between the layers; null: that of the network's feature.
        width: of the feature.
        options: of the timm network.

    Raises:
        ValueError: the head in the file is of another size.
    """

    def __init__(
        self,
        name: str = "resnet18",
        weights: str | None = None,
        hidden: int | None = None,
        width: int = 128,
        options: dict[str, Any] | None = None,
    ) -> None:
        black, white = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
        super().__init__(name, weights, black, white, options)
        self.head = projection(self.width, hidden, width)
        self.width = width
        if weights is not None and Path(weights).is_file():
            self.load_head(weights)

    def load_head(self, file: str) -> None:
        """Take the head that a pre-training kept, where the file holds one."""
        found = {
            key.removeprefix(HEAD): value
            for key, value in read_weights(file).items()
            if key.startswith(HEAD)
        }
        if not found:
            return
        wanted = {key: value.shape for key, value in self.head.state_dict().items()}
        if {key: value.shape for key, value in found.items()} != wanted:
            raise ValueError(
                f"backbone.weights={file!r} holds a head of another size: set backbone.hidden and "
                "backbone.width as in its card"
            )
        self.head.load_state_dict(found)

    def kept(self) -> dict[str, Tensor]:
        """Network and head by the names that a weights file has."""
        head = {f"{HEAD}{key}": value for key, value in self.head.state_dict().items()}
        tensors: dict[str, Tensor] = self.network.state_dict() | head
        return tensors

    def pool(self, last: Tensor, fixed: Tensor | None) -> Float[Tensor, "batch width"]:
        """The head's output."""
        return self.head(super().pool(last, fixed))  # type: ignore[no-any-return]  # modules are untyped


def projection(width: int, hidden: int | None = None, out: int = 128) -> nn.Sequential:
    """Two linear layers with a ReLU between them; `hidden` null: as wide as the input."""
    inner = hidden or width
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, out))
