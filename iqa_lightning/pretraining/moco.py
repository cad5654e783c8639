"""MoCo v2 on photographs: what Re-IQA's content branch learns by.

X. Chen et al., "Improved Baselines with Momentum Contrastive Learning",
https://arxiv.org/abs/2003.04297; Re-IQA: https://arxiv.org/abs/2304.00451.
"""

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import functional as vision

from iqa_lightning.images.degradations.chain import ChainSpace
from iqa_lightning.pretraining.contrastive import Patches
from iqa_lightning.pretraining.qpt import QPT


class MoCo(QPT):
    """Two views of one photograph attract, a queue of others repels; quality is varied like colour
    and place, so that it is the content that is learnt.

    Views: a crop of 20 to 100 % of the image (ratio 3:4 to 4:3), scaled to `patch`; with
    probability 0.8 changed in brightness, contrast, saturation (up to 40 %) and hue (up to a
    tenth); 0.2 grey; 0.5 blurred (deviation 0.1 to 2); 0.5 mirrored.

    Args:
        options: see `QPT`; what concerns degradations plays no part.
    """

    def __init__(self, **options: Any) -> None:
        given = {"chains": ChainSpace({"none": ["jpeg"]}), "own_keys_repel": True}
        super().__init__(**{**given, **options, "same_negatives": False})

    def scaled_patches(
        self, images: Sequence[Tensor], draws: Sequence[np.random.Generator]
    ) -> list[tuple[Patches, Patches]]:
        """Two views of each image."""
        pairs = [
            [view(image, self.patch, draw) for _ in range(2)]
            for image, draw in zip(images, draws, strict=True)
        ]
        query, key = (torch.stack([pair[side] for pair in pairs]) for side in range(2))
        return [(query, key)]


def view(image: Tensor, side: int, draw: np.random.Generator) -> Tensor:
    """A view of a photograph, uint8; a pure function of the draws."""
    height, width = image.shape[-2:]
    shown: Tensor = vision.resized_crop(
        image, *crop(height, width, draw), [side, side], antialias=True
    )
    if draw.random() < 0.8:
        changes = [
            (vision.adjust_brightness, draw.uniform(0.6, 1.4)),
            (vision.adjust_contrast, draw.uniform(0.6, 1.4)),
            (vision.adjust_saturation, draw.uniform(0.6, 1.4)),
            (vision.adjust_hue, draw.uniform(-0.1, 0.1)),
        ]
        for k in draw.permutation(len(changes)):
            change, amount = changes[k]
            shown = change(shown, float(amount))
    if draw.random() < 0.2:
        shown = vision.rgb_to_grayscale(shown, 3)
    if draw.random() < 0.5:
        size = 2 * (side // 20) + 1  # a tenth of the side, as SimCLR has it
        shown = vision.gaussian_blur(shown, [size, size], [float(draw.uniform(0.1, 2.0))] * 2)
    return shown.flip(-1) if draw.random() < 0.5 else shown


def crop(height: int, width: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part; of ten tries none that fits gives the whole."""
    for _ in range(10):
        area = height * width * draw.uniform(0.2, 1.0)
        ratio = exp(draw.uniform(log(3 / 4), log(4 / 3)))
        rows, columns = round(sqrt(area / ratio)), round(sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = draw.integers(height - rows + 1), draw.integers(width - columns + 1)
            return int(top), int(left), rows, columns
    return 0, 0, height, width
