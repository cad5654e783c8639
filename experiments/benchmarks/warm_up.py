"""The warm-up of TSN-IQA on four fixed crops an image, whose features are computed once, against
new crops each time.

EfficientNet-Lite0 from a random start, crops of 128x128 pixels, one core. How much is saved is a
matter of how often an epoch shows an image: twice 95,000 pairs of 7,051 images of KonIQ-10k in four
epochs are 108 passes an image, four here. `python experiments/benchmarks/warm_up.py`
"""

from functools import partial

import torch
from measuring.noise import noise_stream
from measuring.sides import HEADER, compared, in_turns, show
from training import ADAM, BATCH, SIDE, train

from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.gating import UniformGate
from iqa_lightning.stream.pairs import SampledPairs
from iqa_lightning.stream.schedule import Phase


def warm_up(fixed_crops: int | None, keeps: bool = True, epochs: int = 4) -> TSNIQA:
    """Epochs of heads alone: 100 pairs of 40 training images, so that each is seen some five times
    an epoch.
    """
    torch.manual_seed(0)
    phases, pairs = (
        [Phase("warmup", epochs, BATCH, trains="heads", fixed_crops=fixed_crops)],
        SampledPairs(100),
    )
    stream = noise_stream([57], SIDE, phases, pairs=pairs)
    method = TSNIQA(
        backbone=Backbone("tf_efficientnet_lite0"), tasks=["t1"], optimizer=ADAM, gate=UniformGate
    )
    method.heads_read_features = keeps
    train(method, stream)
    return method


def main() -> None:
    """Measure, print, write results/warm_up.csv."""
    torch.set_num_threads(1)
    ways = {"kept": partial(warm_up, 4), "passes": partial(warm_up, None)}
    seconds = in_turns(ways, 2, 0)
    rows = [
        HEADER,
        compared("four epochs: features kept / passes", seconds["kept"], seconds["passes"]),
    ]
    one, other = (warm_up(4, keeps, 1).heads.weight[0].detach() for keeps in (True, False))
    largest = float((one - other).abs().max())
    assert largest < 1e-5, f"heads differ by {largest}"
    rows.append(
        [
            "the same crops: largest difference of a head",
            "",
            "",
            f"{largest:.1e}",
            "",
            "<= 1e-05",
            "yes",
        ]
    )
    show("warm_up", rows)


if __name__ == "__main__":
    main()
