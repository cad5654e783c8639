"""LIQE: marginals and losses in NumPy, its variants, what is trained, what is kept, and that it
learns.
"""

from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.stats import norm, spearmanr

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.losses.multitask import GradNorm, Weighting
from iqa_lightning.methods.liqe import LIQE, joint, prompts, quality
from iqa_lightning.metrics.liqe_labels import (
    DISTORTIONS,
    SCENES,
    distortion_accuracy,
    scene_accuracy,
)
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.stream.schedule import Phase
from tests.methods.steps import FINETUNE, WARMUP, at, start, step
from tests.models.clips import OPTIONS, SIDE, tiny
from tests.walks import ROOT

TASKS = ("a", "b", "c")
ADAMW = partial(torch.optim.AdamW, lr=1e-3, weight_decay=1e-3)


def build(seed: int = 0, **options: Any) -> LIQE:
    return LIQE(backbone=tiny(seed), tasks=TASKS, optimizer=ADAMW, bn_stats="frozen", **options)


def rated(seed: int, count: int = 6, windows: int = 3) -> dict[str, Any]:
    """A batch of two data sets, the second without labels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, windows, 3, SIDE, SIDE)
    source = torch.tensor([0] * (count // 2) + [1] * (count - count // 2))
    pairs = torch.combinations(torch.arange(count), 2)
    pairs = pairs[source[pairs[:, 0]] == source[pairs[:, 1]]]
    labels = {
        "distortion": ["lens", "realistic noise", "fastfading"],
        "scene": ["night", "human+indoor", "animal"],
    }
    return {
        "image": torch.randint(0, 256, shape, generator=generator).to(torch.uint8),
        "pairs": pairs,
        "target": torch.randint(0, 2, (len(pairs),), generator=generator).float(),
        "dataset_index": source,
        "index": torch.arange(count),
        **{
            key: (words * count)[: count // 2] + [""] * (count - count // 2)
            for key, words in labels.items()
        },
    }


def marginals(
    method: LIQE, image: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Joint distribution and its three marginals from open_clip's features, with loops: (images, 5,
    9, 11), ...
    """
    network = method.clip.network
    sentences = prompts(SCENES, DISTORTIONS)
    with torch.no_grad():
        pixels = (image.flatten(0, 1).float() - method.clip.mean) / method.clip.std
        f = network.encode_image(pixels).double().numpy()
        t = network.encode_text(method.clip.tokenizer(list(sentences))).double().numpy()
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    scale = np.exp(float(network.logit_scale))
    windows = image.shape[1]
    everything = np.zeros((len(image), 5, 9, 11))
    for i in range(len(image)):
        logits = (
            sum(scale * t @ f[i * windows + u] for u in range(windows)) / windows
        )  # pooled before the softmax
        e = np.exp(logits - logits.max())
        for q, s, d in product(range(5), range(9), range(11)):
            everything[i, q, s, d] = e[99 * q + 11 * s + d] / e.sum()
    return everything, everything.sum((2, 3)), everything.sum((1, 3)), everything.sum((1, 2))


def test_scores_against_numpy() -> None:
    method, batch = build(), rated(1)
    everything, c, s, d = marginals(method, batch["image"])
    with evaluation_mode(method), torch.no_grad():
        p = joint(method.logits(method.clip, batch["image"]))
        found = method.predict_step(batch).columns
        torch.testing.assert_close(found["single"], method.score(batch["image"]))
    np.testing.assert_allclose(p, everything, atol=1e-6)
    np.testing.assert_allclose(found["single"], c @ np.arange(1, 6), atol=1e-4)
    assert np.ptp(c @ np.arange(1, 6)) > 1e-3, "the images differ"
    for k, word in enumerate(SCENES):
        np.testing.assert_allclose(found[f"scene/{word}"], s[:, k], atol=1e-6)
    for k, word in enumerate(DISTORTIONS):
        np.testing.assert_allclose(
            found[f"distortion/{word.replace(' ', '_')}"], d[:, k], atol=1e-6
        )
    assert len(found) == 1 + 9 + 11


def losses_by_hand(method: LIQE, batch: dict[str, Any]) -> np.ndarray:
    _, c, s, d = marginals(method, batch["image"])
    score, e = c @ np.arange(1, 6), 1e-8
    i, j = batch["pairs"].numpy().T
    p, g = norm.cdf(score[i] - score[j]), batch["target"].numpy()
    pairs = 1 - np.sqrt(p * g + e) - np.sqrt((1 - p) * (1 - g) + e)
    first = batch["dataset_index"].numpy()[i] == 0
    shown = [{5}, {2, 3}, {0}]
    scene = [
        np.mean(
            [
                1 - np.sqrt((k in labels) * p + e) - np.sqrt((k not in labels) * (1 - p) + e)
                for k, p in enumerate(row)
            ]
        )
        for row, labels in zip(s, shown, strict=False)
    ]
    kind = [
        1 - sum(np.sqrt((k == label) * row[k] + e) for k in range(11))
        for row, label in zip(d, [3, 2, 0], strict=False)
    ]
    return np.array(
        [(pairs[first].mean() + pairs[~first].mean()) / 2, np.mean(scene), np.mean(kind)]
    )


def test_losses_against_numpy() -> None:
    """Of six images three have labels: the others are left out of those two losses."""
    method, batch = build(), rated(2)
    losses, present = method.task_losses(method.logits(method.clip, batch["image"]), batch)
    by_hand = losses_by_hand(method, batch)
    np.testing.assert_allclose(losses.detach(), by_hand, atol=1e-4)
    assert present.tolist() == [1, 1, 1]
    assert method.loss(batch).item() == pytest.approx(by_hand.sum(), abs=3e-4)
    bare = batch | {"distortion": [""] * 6, "scene": ["beach"] * 6}
    assert method.task_losses(method.logits(method.clip, batch["image"]), bare)[1].tolist() == [
        1,
        0,
        0,
    ]
    assert method.loss(bare).item() == pytest.approx(by_hand[0], abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "sentences", "columns"),
    [([], 5, 1), (["scene"], 45, 10), (["distortion"], 55, 12), (["scene", "distortion"], 495, 21)],
)
def test_variants(labels: list[str], sentences: int, columns: int) -> None:
    method, batch = build(labels=labels), rated(3)
    method.total(batch)[0].backward()
    assert len(next(iter(method.clip.tokens))) == sentences
    with evaluation_mode(method), torch.no_grad():
        found = method.predict_step(batch).columns
    assert len(found) == columns
    assert (found["single"] >= 1).all()
    assert (found["single"] <= 5).all()
    for kind in labels:
        total = sum(values for name, values in found.items() if name.startswith(f"{kind}/"))
        torch.testing.assert_close(total, torch.ones(6))


def test_one_window_is_an_image() -> None:
    method = build()
    images = rated(4, windows=1)["image"]
    with torch.no_grad():
        torch.testing.assert_close(method.score(images), method.score(images[:, 0]))


def test_new_words_need_no_parameters() -> None:
    plain, method = build(), build(new_distortions={"b": ["ringing"], "c": ["moire", "banding"]})
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in method.state_dict().items()
    }
    assert method.added_parameters() == 0
    assert method.distortions(1) == list(DISTORTIONS)
    assert method.distortions(3) == [*DISTORTIONS, "ringing", "moire", "banding"]
    batch = rated(5) | {"distortion": ["ringing"] * 6, "owner_task": torch.ones(6)}
    start(method, 1)
    assert method.task_losses(method.logits(method.clip, batch["image"]), batch)[1].tolist() == [
        1,
        1,
        0,
    ]
    start(method, 2)
    assert method.task_losses(method.logits(method.clip, batch["image"]), batch)[1].tolist() == [
        1,
        1,
        1,
    ]
    with evaluation_mode(method), torch.no_grad():
        assert len(method.predict_step(batch).columns) == 1 + 9 + 12


def test_what_is_trained_when() -> None:
    method = build()
    start(method, 1)
    method.on_phase_start(at(WARMUP))
    method.loss(rated(6)).backward()
    names = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert names == {"backbone.network.visual.proj", "backbone.network.text_projection"}
    method.on_phase_start(at(FINETUNE))
    method.loss(rated(6)).backward()
    without = {name for name, parameter in method.named_parameters() if parameter.grad is None}
    assert without == {"backbone.network.logit_scale"}


@pytest.mark.parametrize("freeze", ["text", "image"])
def test_a_frozen_encoder_stays(freeze: str) -> None:
    method = build(freeze=freeze)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    start(method, 1)
    for phase in (WARMUP, FINETUNE):
        method.on_phase_start(at(phase))
        step(method, rated(7))
    changed = {
        name
        for name, tensor in method.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    seen = [name for name in changed if name.startswith("backbone.network.visual.")]
    assert bool(seen) == (freeze == "text")
    assert bool({n for n in changed if "network" in n} - set(seen)) == (freeze == "image")


def test_the_teacher_keeps_joint_and_preferences() -> None:
    method = build(weight=10.0, new_distortions={"b": ["ringing"]}, weighting=Weighting)
    start(method, 1)
    method.on_phase_start(at(FINETUNE))
    step(method, rated(8))
    assert method.loss(rated(9)).item() == pytest.approx(
        losses_by_hand(method, rated(9)).sum(), abs=3e-4
    )
    start(method, 2)  # the model as it is now
    method.on_phase_start(at(FINETUNE, 2))
    batch = rated(9)
    assert method.kept(method.logits(method.clip, batch["image"]), batch).item() == pytest.approx(
        0.0, abs=2e-4
    )
    old = marginals(method, batch["image"])
    step(method, rated(10))
    step(method, rated(11))
    new = marginals(method, batch["image"])  # over the 11 words that the teacher knew
    likeness = np.mean([1 - np.sqrt(a * b).sum() for a, b in zip(old[0], new[0], strict=True)])
    i, j = batch["pairs"].numpy().T
    p, g = (norm.cdf((x[1] @ np.arange(1, 6))[i] - (x[1] @ np.arange(1, 6))[j]) for x in (new, old))
    order = np.mean(1 - np.sqrt(p * g + 1e-8) - np.sqrt((1 - p) * (1 - g) + 1e-8))
    with torch.no_grad():
        logits = method.logits(method.clip, batch["image"])
        kept = method.kept(logits, batch).item()
        assert kept == pytest.approx(likeness + order, rel=0.02)
        assert kept > 1e-3
        alone = method.task_losses(logits, batch)[0].sum().item()
        assert method.loss(batch).item() == pytest.approx(alone + 10 * kept, rel=1e-4)


def test_weights_follow_the_losses_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    method = build()
    monkeypatch.setattr(method, "log", lambda *args, **kwargs: None)
    start(method, 1)
    means = []
    for epoch in range(2):
        method.on_phase_start(at(FINETUNE, 1, epoch))
        losses = []
        method.trainer.world_size = 1
        for k in range(2):
            losses.append(losses_by_hand(method, rated(20 + k)))
            method.training_step(rated(20 + k), k).backward()
            method.trainer.optimizers[0].step()
            method.zero_grad()
        means.append(np.mean(losses, axis=0))
        assert method.weighting.weights.tolist() == [1, 1, 1]
    for _ in range(2):  # idempotent
        method.on_phase_start(at(FINETUNE, 1, 2))
    ratio = np.exp(means[1] / means[0] / 2)
    np.testing.assert_allclose(method.weighting.weights, 3 * ratio / ratio.sum(), rtol=2e-3)
    assert np.ptp(ratio) > 0.01
    start(method, 2)
    assert method.weighting.weights.tolist() == [1, 1, 1]


def test_gradnorm_in_the_method() -> None:
    method = build(weighting=GradNorm, head_lr_factor=10.0)
    start(method, 1)
    assert [group["lr"] * 1.0 for group in method.trainer.optimizers[0].param_groups] == [
        1e-3,
        1e-3,
    ]
    method.on_phase_start(at(FINETUNE))
    assert [group["lr"] for group in method.trainer.optimizers[0].param_groups] == [1e-3, 1e-2]
    for seed in (1, 2):
        step(method, rated(seed))
    assert np.ptp(method.weighting.weights.detach().numpy()) > 1e-3


def test_golden_schedule() -> None:
    """specs/golden.json: the triangle wave as realised."""
    lr = OmegaConf.load(ROOT / "conf" / "method" / "liqe.yaml").optimizer.lr
    phases = [
        Phase(name, **p)
        for name, p in OmegaConf.load(ROOT / "conf/schedule/liqe_paper.yaml").items()
        if p.epochs
    ]
    assert len(phases) == 1
    assert phases[0].epochs == 80
    found = [1e6 * lr * phases[0].lr_at(epoch) for epoch in range(20)]
    wave = [5.0, 4.5225, 3.2725, 1.7275, 0.4775, 0.4775, 1.7275, 3.2725, 4.5225]
    assert found == pytest.approx([*wave, *wave, 5.0, 4.5225], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["quality"]}, r"method\.labels holds 'quality'"),
        ({"freeze": "all"}, r"method\.freeze='all'"),
        ({"distils": "l2"}, r"method\.distils='l2'"),
        ({"new_distortions": {"z": ["ringing"]}}, r"names 'z', the tasks are a, b, c"),
        ({"new_distortions": {"a": ["blur"]}}, r"holds 'blur' twice"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_backbone_without_text_is_refused() -> None:
    with pytest.raises(ValueError, match="backbone=clip_vit_b32"):
        LIQE(backbone=Backbone("test_efficientnet"), tasks=TASKS, optimizer=ADAMW)


def coded(count: int = 64) -> dict[str, Any]:
    """Images whose stripes tell the distortion, whose colour tells the scene and whose brightness
    tells the quality.
    """
    rng = np.random.default_rng(0)
    scene, kind, level = (
        rng.integers(0, 9, count),
        rng.integers(0, 11, count),
        rng.permutation(count) / count,
    )
    stripes = 30 * np.sin(np.arange(SIDE) * (kind[:, None] + 1) * np.pi / SIDE)
    image = np.repeat(stripes[:, None, :, None], 3, axis=1).repeat(SIDE, axis=3)
    image += (60 + 80 * level)[:, None, None, None]
    image[:, 0] += 50 * (scene // 3 - 1)[:, None, None]
    image[:, 2] += 50 * (scene % 3 - 1)[:, None, None]
    pairs = torch.combinations(torch.arange(count), 2)
    mos = torch.from_numpy(level)
    return {
        "image": torch.from_numpy(image.clip(0, 255)).to(torch.uint8),
        "pairs": pairs,
        "target": (mos[pairs[:, 0]] > mos[pairs[:, 1]]).float(),
        "dataset_index": torch.zeros(count, dtype=torch.long),
        "distortion": [DISTORTIONS[k] for k in kind],
        "scene": [SCENES[k] for k in scene],
        "mos": mos,
    }


class Scenes(Weighting):
    """Counts the scenes sixfold, whose loss is a mean over nine: else a hundred steps are not
    enough for them.
    """

    def forward(
        self, losses: torch.Tensor, present: torch.Tensor, shared: torch.Tensor
    ) -> torch.Tensor:
        return (losses * present) @ torch.tensor([1.0, 6.0, 1.0])


def test_overfits_64_images_on_all_three_tasks() -> None:
    clip = tiny(text_cfg=OPTIONS["text_cfg"] | {"context_length": 24, "width": 32})
    adamw = partial(torch.optim.AdamW, lr=3e-3)
    method = LIQE(backbone=clip, tasks=("a",), optimizer=adamw, bn_stats="frozen", weighting=Scenes)
    batch = coded()
    start(method, 1)
    method.on_phase_start(at(FINETUNE))
    before = method.total(batch)[1]
    for _ in range(80):
        step(method, batch)
    with evaluation_mode(method), torch.no_grad():
        logits = method.logits(method.clip, batch["image"])
        p, losses = joint(logits), method.task_losses(logits, batch)[0]
    scene = np.array([[word == shown for word in SCENES] for shown in batch["scene"]], float)
    kind = np.array([DISTORTIONS.index(word) for word in batch["distortion"]])
    found = {
        "srcc": spearmanr(quality(p), batch["mos"]).statistic,
        "scene": scene_accuracy(p.sum((1, 3)).numpy(), scene),
        "distortion": distortion_accuracy(p.sum((1, 2)).numpy(), kind),
    }
    assert (losses < 0.5 * before).all(), (before, losses, found)
    assert min(found.values()) > 0.9, found
