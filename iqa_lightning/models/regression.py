"""The network of MetaIQA, which tells a score instead of ranking
(https://github.com/zhuhancheng/MetaIQA).
"""

from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.models.backbones import Backbone, Images, read_weights

HEAD = "metaiqa_head."
"""What the names of the head's tensors start with in a weights file."""


class RegressionHead(nn.Sequential):
    """The 1000 logits of an ImageNet classifier to one score in (0, 1), higher is better; 1,553,411
    parameters.

    Linear 1024, BatchNorm, PReLU, dropout, Linear 512, BatchNorm, PReLU, dropout, Linear 1,
    sigmoid.
    """

    def __init__(
        self, width: int = 1000, hidden: tuple[int, int] = (1024, 512), dropout: float = 0.5
    ) -> None:
        layers: list[nn.Module] = []
        for inner, outer in zip((width, hidden[0]), hidden, strict=True):
            layers += [
                nn.Linear(inner, outer),
                nn.BatchNorm1d(outer),
                nn.PReLU(),
                nn.Dropout(dropout),
            ]
        super().__init__(*layers, nn.Linear(hidden[1], 1), nn.Sigmoid())


class RegressionNet(nn.Module):
    """Backbone, 1000-way linear layer, regression head.

    The paper keeps the classifier of ImageNet as that layer; a `Backbone` has none, so it starts at
    random here.
    """

    def __init__(self, backbone: Backbone, dropout: float = 0.5) -> None:
        super().__init__()
        self.backbone = backbone
        self.rest = nn.Sequential(nn.Linear(backbone.width, 1000), RegressionHead(dropout=dropout))

    def forward(self, image: Images) -> Float[Tensor, " batch"]:
        """Scores in (0, 1), higher is better."""
        score: Tensor = self.rest(self.backbone(image))
        return score[:, 0]


def load_rest(rest: nn.Module, file: str) -> None:
    """The head that a pre-training kept in its weights file."""
    found = {
        key.removeprefix(HEAD): value
        for key, value in read_weights(file).items()
        if key.startswith(HEAD)
    }
    wanted = {key: value.shape for key, value in rest.state_dict().items()}
    if {key: value.shape for key, value in found.items()} != wanted:
        raise ValueError(
            f"method.prior={file!r} holds no head of MetaIQA for this backbone: give what "
            "pretrain wrote"
        )
    rest.load_state_dict(found)
