"""LPF: counts of its parameters as the specification's second reading computes them. They are those of
our design: no number of the paper is certified.
"""

import pytest
import timm
import torch
from torch import nn

from iqa_lightning.methods.lpf import LPF
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.lpf_heads import (
    CategoryHead,
    ComparisonHead,
    FeatureEmbedding,
    QualityRegression,
)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_each_part() -> None:
    assert count(FeatureEmbedding(512)) == 131_840
    assert count(CategoryHead()) == 1_028
    assert count(ComparisonHead(kind="network")) == 65_793
    assert count(ComparisonHead(kind="difference")) == 256
    assert count(QualityRegression(components=16)) == 69_920 == 2 * (32_896 + 2_064)


@pytest.mark.parametrize(("comparison", "total"), [("network", 268_581), ("difference", 203_044)])
def test_all_together_on_vgg16(comparison: str, total: int) -> None:
    with torch.device("meta"):
        vgg = timm.create_model("vgg16", num_classes=0)
    assert count(vgg.features) == 14_714_688
    parts = [FeatureEmbedding(512), CategoryHead(), QualityRegression()]
    assert sum(map(count, [*parts, ComparisonHead(kind=comparison)])) == total < 300_000


@pytest.mark.parametrize("per_task", ["nothing", "regression", "all"])
def test_what_a_task_trains_is_light(per_task: str) -> None:
    method = LPF(
        backbone=Backbone("test_efficientnet"),
        tasks=("a", "b"),
        optimizer=torch.optim.Adam,
        per_task=per_task,
    )
    trained = sum(p.numel() for p in [*method.body_parameters(), *method.head_parameters()])
    width = method.backbone.width
    assert trained == 268_581 - 256 * 512 + 256 * width
    added = {"nothing": 1_028, "regression": 1_028 + 69_920, "all": trained}
    assert method.added_parameters() == added[per_task]
