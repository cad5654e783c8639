"""GRMP-IQA: golden values and counts of its specification, at full size and in the small model given
there.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from iqa_lightning.losses.soft_labels import adjust_gradient, soft_label_loss
from iqa_lightning.methods.grmp_iqa import GRMPIQA, SCENE_TEXTS
from iqa_lightning.models.clip import CLIP
from iqa_lightning.models.prompted_clip import Prompts
from iqa_lightning.pretraining.grmp_iqa import GroupSampler, PromptPretraining, in_batches
from tests.walks import ROOT

SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 24, "patch_size": 8, "head_width": 8},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 3,
    },
}


@pytest.fixture(scope="module")
def full() -> CLIP:
    """CLIP ViT-B/16 with random weights."""
    return CLIP("ViT-B-16-quickgelu")


def count(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def sequence(clip: CLIP, prompts: Prompts) -> tuple[int, tuple[int, ...]]:
    """Tokens that the last block reads, and the shape of the feature of two images."""
    lengths = []
    block = clip.network.visual.transformer.resblocks[-1]
    handle = block.register_forward_hook(lambda _, given, __: lengths.append(given[0].shape[1]))
    with torch.no_grad():
        side = clip.image_size[0]
        feature = prompts.eval().image_feature(clip, torch.zeros(2, 3, side, side))
    handle.remove()
    return lengths[0], tuple(feature.shape)


@pytest.mark.slow
def test_counts_at_full_size(full: CLIP) -> None:
    assert count(full.parameters()) == 149_620_737
    assert count(full.image_parameters()) == 86_192_640
    first = PromptPretraining(full, torch.optim.Adam)
    assert count(p for p in first.parameters() if p.requires_grad) == 1_515_776
    prompts = first.worker
    assert prompts.context.shape == (4, 512)
    assert prompts.visual.shape == (12, 100, 768)
    assert prompts.project.weight.shape == (768, 768)
    assert float(prompts.visual.detach().abs().max()) <= 0.0625
    assert float(prompts.visual.detach().abs().max()) > 0.0624
    assert float(prompts.context.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert float(prompts.project.weight.detach().std()) == pytest.approx(
        math.sqrt(2 / 768), rel=0.05
    )
    assert sequence(full, prompts) == (297, (2, 512))


@pytest.mark.slow
def test_counts_of_the_fine_tuning(full: CLIP) -> None:
    for parameter in full.parameters():
        parameter.requires_grad_(True)
    method = GRMPIQA(backbone=full, tasks=["a"], optimizer=torch.optim.SGD)
    network = method.clip.network
    parts = {
        "text blocks": (network.transformer.resblocks[8:], 12_609_536),
        "text norm": (network.ln_final, 1_024),
        "visual blocks": (network.visual.transformer.resblocks[8:], 28_351_488),
        "visual norm": (network.visual.ln_post, 1_536),
    }
    for name, (module, expected) in parts.items():
        assert count(p for p in module.parameters() if p.requires_grad) == expected, name
    assert count([method.current.context]) == 2_048
    assert count(p for p in method.parameters() if p.requires_grad) == 40_965_632
    assert method.added_parameters() == 0


def test_small_model() -> None:
    clip = CLIP("ViT-B-16-quickgelu", options=SMALL)
    prompts = Prompts(clip, visual=5)
    assert sequence(clip, prompts) == (22, (2, 16))
    prompts.train()
    image = torch.randint(0, 256, (2, 3, 32, 32)).to(torch.uint8)
    logits = prompts.logits(clip, prompts.image_feature(clip, image))
    logits.square().sum().backward()
    for name, parameter in prompts.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_end_of_the_sentences_is_at_position_8() -> None:
    clip = CLIP("ViT-B-16-quickgelu", options=SMALL)
    prompts = Prompts(clip)
    assert prompts.tokens.argmax(dim=1).tolist() == [8, 8]
    start, *rest = prompts.tokens[0].tolist()
    assert (start, len(set(rest[:4])), rest[-1]) == (49406, 1, 49407)
    assert clip.tokenizer.decode(rest[4:7]).strip() == "high quality ."


def test_gradient_rule() -> None:
    one, along = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])
    assert adjust_gradient(one, along, 1.0).tolist() == [0.0, 1.0]
    assert adjust_gradient(one, along, 5.0).tolist() == [-4.0, 1.0]
    assert adjust_gradient(-one, along, 5.0).tolist() == [-1.0, -1.0]


def test_soft_label_loss() -> None:
    logits, target = [[2.0, 0.0], [0.0, 1.0]], [0.8, 0.3]
    found = soft_label_loss(torch.tensor(logits), torch.tensor(target)).item()
    assert found == pytest.approx(0.570094883, abs=1e-7)
    q = [math.exp(a) / (math.exp(a) + math.exp(b)) for a, b in logits]
    hand = [-(y * math.log(p) + (1 - y) * math.log(1 - p)) for y, p in zip(target, q, strict=True)]
    assert found == pytest.approx(sum(hand) / 2, abs=1e-7)


def test_steps_of_the_first_stage() -> None:
    """TID2013: 24 tasks of 125 images; KADID-10k: 24 of 405 in the official code."""
    config = OmegaConf.load(ROOT / "conf" / "pretraining" / "grmp_iqa.yaml")
    sizes = {}
    for name, images in (("tid", 125), ("kadid", 405)):
        support = round(config.data.support_share * images)
        parts = [
            in_batches(np.arange(rows), size)
            for rows, size in (
                (support, config.data.support_batch),
                (images - support, config.data.query_batch),
            )
        ]
        sizes[name] = [[len(batch) for batch in part] for part in parts]
    assert sizes == {"tid": [[75, 25], [25]], "kadid": [[75, 75, 75, 75, 24], [50, 31]]}
    tasks = [0] * 24 + [1] * 24
    keys = [key for batch in GroupSampler(tasks, 0, 0) for key in batch]
    steps = sum(2 * len(sizes["tid" if tasks[task] == 0 else "kadid"][0]) for task, _, _ in keys)
    assert (steps, config.epochs * steps) == (336, 16_800)
    assert config.epochs * len(set(tasks)) == 100


def test_configured_values() -> None:
    method = OmegaConf.load(ROOT / "conf" / "method" / "grmp_iqa.yaml")
    assert (method.optimizer._target_, method.optimizer.lr) == ("torch.optim.SGD", 1e-3)
    assert (method.optimizer.weight_decay, "momentum" in method.optimizer) == (1e-4, False)
    assert (method.strength, method.temperature, method.weight) == (5.0, 1.0, 0.0)
    phases = OmegaConf.load(ROOT / "conf" / "schedule" / "grmp_iqa_paper.yaml")
    rates = [method.optimizer.lr * p.lr_factor for p in phases.values() if p.epochs]
    assert sum(phase.epochs for phase in phases.values()) == 210
    assert rates == pytest.approx([1e-3 * 0.3**k for k in range(7)])
    assert all(phase.batch_size == 192 for phase in phases.values())
    assert 1e-3 * 0.3**7 < 5e-7 < rates[-1]
    pairs = OmegaConf.load(ROOT / "conf" / "pairs" / "few_shots.yaml")
    assert pairs.shots == 50


def test_scene_sentences() -> None:
    assert SCENE_TEXTS[0] == "a photo of a animal"
    assert SCENE_TEXTS[7] == "a photo of a still_life"
    assert len(SCENE_TEXTS) == 9
