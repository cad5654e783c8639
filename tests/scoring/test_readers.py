"""Readers read no picture twice for the same features."""

from typing import Any

import pytest
import torch

from iqa_lightning.scoring.readers import build_reader

TWO = {
    "heads": ["a", "b"],
    "backbone": {"class": "Backbone", "name": "test_efficientnet"},
}
SUMMED = {"weights": {"trained": 1.0, "own": 1.0, "frozen": 1.0}}


@pytest.mark.parametrize(
    ("kind", "own", "gate", "passes"),
    [
        ("affine", {}, "stages", 1),
        ("affine", {}, "last", 2),
        ("affine", {"features": "last"}, "stages", 2),
        ("norms", SUMMED, "stages", 3),  # under each task's norms, and of the start
        ("norms", SUMMED, "last", 4),
        ("norms", {}, "stages", 3),
    ],
)
def test_what_gate_and_heads_both_read_is_read_once(
    kind: str, own: dict[str, Any], gate: str, passes: int
) -> None:
    told = {"class": "MeanFeatureGate", "features": gate, "stages": 1}
    reader = build_reader(TWO | own | {"reader": kind, "gate": told})
    with torch.no_grad():
        for parameter in reader.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(0))
        image = torch.randint(0, 256, (3, 3, 40, 48), dtype=torch.uint8)
        reading = reader(image)
        assert reader.backbone.images_forwarded == passes * len(image)
        assert reader.score(image).std() > 0
        assert torch.equal(reading.score, reader.score(image))
