"""The network of MetaIQA, which tells a score instead of ranking
(https://github.com/zhuhancheng/MetaIQA).
"""

from jaxtyping import Float
from torch import Tensor, nn

from iqa_lightning.models.backbones import Backbone, Images, pretrained_network, read_weights

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

    The paper keeps the classifier of ImageNet as that layer (`classifier: imagenet`); a `Backbone`
    has none, so `random` starts it anew.

    Raises:
        ValueError: another `classifier`, or a backbone that does not start from ImageNet's weights.
    """

    def __init__(
        self, backbone: Backbone, dropout: float = 0.5, classifier: str = "random"
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.rest = nn.Sequential(nn.Linear(backbone.width, 1000), RegressionHead(dropout=dropout))
        if classifier not in ("random", "imagenet"):
            raise ValueError(f"method.classifier={classifier!r}: choose random or imagenet")
        if classifier == "imagenet":
            self.rest[0].load_state_dict(imagenet_classifier(backbone).state_dict())

    def forward(self, image: Images) -> Float[Tensor, " batch"]:
        """Scores in (0, 1), higher is better."""
        score: Tensor = self.rest(self.backbone(image))
        return score[:, 0]


def imagenet_classifier(backbone: Backbone) -> nn.Module:
    """The 1000-way layer that belongs to a backbone's ImageNet weights."""
    if backbone.weights != "imagenet":
        raise ValueError(
            f"method.classifier=imagenet goes with backbone.weights=imagenet, not with "
            f"{backbone.weights!r}: set method.classifier=random"
        )
    network = pretrained_network(backbone.name, {}, num_classes=1000)
    classifier: nn.Module = network.get_classifier()
    return classifier


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
