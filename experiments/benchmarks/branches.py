"""Norm sets of TSN-IQA in one pass against a pass each: where it pays, and that the numbers are the
same.

One core, five sets, networks from a random start whose sets differ. The budget `PIXELS_AT_ONCE` of
`models/normalization.py` was read off this table. `python experiments/benchmarks/branches.py`
"""

from functools import partial

import torch
from measuring.sides import HEADER, compared, in_turns, show, slope
from torch import Tensor

from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.normalization import PIXELS_AT_ONCE, NormSets

SHAPES = ((1, 64, 64), (1, 128, 128), (1, 192, 192), (4, 128, 128), (16, 128, 128), (1, 384, 512))
SETS = 5
TOLERANCE = 1e-5


def different(name: str, count: int = SETS) -> tuple[Backbone, NormSets]:
    """A network whose norm sets differ."""
    torch.manual_seed(0)
    backbone = Backbone(name).eval().requires_grad_(False)
    norms = NormSets(backbone.network, count)
    for index in range(count):
        for parameter in norms.parameters(index):
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return backbone, norms


@torch.no_grad()
def apart(backbone: Backbone, norms: NormSets, image: Tensor, sets: int = SETS) -> Tensor:
    """A pass each."""
    features = []
    for index in range(sets):
        norms.use(index)
        features.append(backbone(image))
    return torch.cat(features)


def together(backbone: Backbone, norms: NormSets, image: Tensor, sets: int = SETS) -> Tensor:
    """One pass."""
    with norms.branches(range(sets)):
        return backbone(image)


def main() -> None:
    """Measure, print, write results/branches.csv."""
    torch.set_num_threads(1)
    rows = [HEADER]
    for name in ("resnet18", "tf_efficientnet_lite0"):
        backbone, norms = different(name)
        for shape in SHAPES:
            image = torch.randint(0, 256, (shape[0], 3, *shape[1:]), dtype=torch.uint8)
            one, other = together(backbone, norms, image), apart(backbone, norms, image)
            difference = float((one - other).abs().max() / other.abs().max())
            assert difference < TOLERANCE, f"{name} {shape}: features differ by {difference}"
            ways = {
                "one": partial(together, backbone, norms, image),
                "each": partial(apart, backbone, norms, image),
            }
            seconds = in_turns(ways, 5, 1)
            used = SETS * image[:, 0].numel() <= PIXELS_AT_ONCE["cpu"]
            what = f"{name} {shape[0]} x {shape[1]}x{shape[2]}{', at once' if used else ''}"
            rows.append(compared(what, seconds["one"], seconds["each"], 1.0 if used else None))
    backbone, norms = different("resnet18", 8)
    image, counts = torch.randint(0, 256, (1, 3, 96, 96), dtype=torch.uint8), [2, 4, 8]
    for label, way in (("one pass", together), ("a pass each", apart)):
        times = in_turns({str(k): partial(way, backbone, norms, image, k) for k in counts}, 7)
        growth = slope(counts, [sorted(times[str(k)])[3] for k in counts])
        rows.append([f"slope over heads (2, 4, 8), {label}", "", "", f"{growth:.2f}", "", "", ""])
    show("branches", rows)


if __name__ == "__main__":
    main()
