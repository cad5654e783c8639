"""Backbones with bilinear pooling: of a network's last map with itself (UNIQUE) or with the S-CNN's
(DB-CNN).
"""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from iqa_lightning.models.backbones import Backbone, Encoder, Images, Stages
from iqa_lightning.models.scnn import SCNN


class BilinearBackbone(Backbone):
    """The last map pooled bilinearly with itself, L2-normalised: channels^2 features.

    `signed_root` takes the signed square root of each entry before, as UNIQUE does
    (https://arxiv.org/abs/2005.13983).

    Raises:
        ValueError: `features` is not `last`: bilinear pooling reads the last map alone.
    """

    def __init__(self, signed_root: bool = True, **options: Any) -> None:
        super().__init__(**options)
        if self.features != "last":
            raise ValueError(
                f"backbone.features={self.features}: bilinear pooling reads the last map alone; "
                "use features=last or another backbone"
            )
        self.signed_root = signed_root
        self.width = self.network.num_features * self.partner_channels()

    def partner_channels(self) -> int:
        """Channels of the map that the network's own is pooled with."""
        return int(self.network.num_features)

    def pool(self, last: Tensor, fixed: Tensor | None) -> Float[Tensor, "batch d"]:
        """Bilinear feature of unit length; several branches of the network (`NormSets`) share one
        fixed map.
        """
        if fixed is not None:
            fixed = resized(fixed, last).repeat(len(last) // len(fixed), 1, 1, 1)
        product = bilinear(last, last if fixed is None else fixed).flatten(1)
        return F.normalize(signed_sqrt(product) if self.signed_root else product, dim=1)


class DBCNN(BilinearBackbone):
    """The last map pooled bilinearly with the S-CNN's, which is resized to it and never trained.

    As LwF-KG does (https://arxiv.org/abs/2102.09717): no signed square root. `scnn_weights`: see
    `SCNN`.
    """

    def __init__(self, scnn_weights: str | None, signed_root: bool = False, **options: Any) -> None:
        super().__init__(signed_root, **options)
        self.scnn = SCNN(scnn_weights)

    def partner_channels(self) -> int:
        """The S-CNN's 128."""
        return 128

    def frozen_output(self, image: Images) -> Float[Tensor, "batch 128 height width"]:
        """The S-CNN's map."""
        return self.scnn(image)  # type: ignore[no-any-return]  # modules are untyped

    def with_frozen_stages(
        self, image: Images, fixed: Tensor | None = None, features: str = "last"
    ) -> tuple[Float[Tensor, "batch d"], Stages]:
        """The feature and the average of the S-CNN's map, which is all that there is of it."""
        fixed = self.frozen_output(image) if fixed is None else fixed
        return self(image, fixed), [fixed.mean(dim=(2, 3))]

    def trainable(self) -> list[nn.Parameter]:
        """All but the S-CNN."""
        return list(self.network.parameters())

    def twin(self) -> Backbone:
        """A frozen copy with the same S-CNN."""
        return copy.deepcopy(self, {id(self.scnn): self.scnn}).requires_grad_(False)

    def fixed_encoder(self) -> Encoder:
        """The S-CNN."""
        return self.scnn


def resized(
    x: Float[Tensor, "batch channels h w"], like: Tensor
) -> Float[Tensor, "batch channels height width"]:
    """Bilinear, corner pixels on corner pixels."""
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


EPS = 1e-8


def bilinear(
    one: Float[Tensor, "batch channels_one height width"],
    two: Float[Tensor, "batch channels_two height width"],
) -> Float[Tensor, "batch channels_one channels_two"]:
    """Outer product of the channels, averaged over the positions, which both maps share.

    Source: Lin et al., "Bilinear CNN models for fine-grained visual recognition", ICCV 2015.
    """
    positions = one.shape[2] * one.shape[3]
    return torch.einsum("bchw,bdhw->bcd", one, two) / positions


def signed_sqrt(x: Tensor) -> Tensor:
    """sign(x) sqrt(|x| + 1e-8), entry by entry."""
    return x.sign() * (x.abs() + EPS).sqrt()
