"""GRMP-IQA: its model against open_clip, its two gradients against a loop, what is trained, what is
kept, and that small towers learn.
"""

import json
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch.nn import functional as F

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.losses.soft_labels import adjust_gradient, soft_class_loss
from iqa_lightning.methods.grmp_iqa import GRMPIQA, SCENE_TEXTS
from iqa_lightning.methods.readouts import NOTHING, Known
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.clip import CLIP
from iqa_lightning.models.gating import MeanFeatureGate
from iqa_lightning.models.prompted_clip import PREFIX, Prompts
from iqa_lightning.models.ranges import RatedImages, RatingRange
from iqa_lightning.stream.schedule import Task
from tests.methods.steps import FINETUNE, WARMUP, at, changed, snapshot
from tests.models.clips import SIDE, released, tiny
from tests.walks import IN_BATCH, stream_of_folders, walk

TASKS = ("a", "b")
SGD = partial(torch.optim.SGD, lr=0.01)


def build(seed: int = 0, **options: Any) -> GRMPIQA:
    given = {"visual": 3, "last_blocks": 1, "optimizer": SGD, "bn_stats": "frozen"} | options
    return GRMPIQA(backbone=given.pop("backbone", None) or tiny(seed), tasks=TASKS, **given)


def rated(seed: int, count: int = 6) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator)
    mos = 100 * torch.rand(count, generator=generator)
    return {"image": image.to(torch.uint8), "mos": mos, "index": torch.arange(count)}


def attach(method: GRMPIQA) -> None:
    """A trainer of one process."""
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)
    optimizers = [method.configure_optimizers()]
    method.trainer = SimpleNamespace(optimizers=optimizers, strategy=strategy)  # type: ignore[assignment]
    method.log = lambda *_, **__: None  # type: ignore[method-assign]


def begin(method: GRMPIQA, t: int = 1, batch: dict[str, Any] | None = None) -> None:
    name = TASKS[t - 1]
    with evaluation_mode(method):
        method.on_task_start(Task(t, name, (name,)), [batch or rated(t, 12)])
    attach(method)
    method.on_phase_start(at(FINETUNE, t))


def step(method: GRMPIQA, batch: dict[str, Any]) -> float:
    (optimizer,) = method.trainer.optimizers
    optimizer.zero_grad()
    loss = method.training_step(batch, 0)
    loss.backward()
    method.on_before_optimizer_step(optimizer)
    optimizer.step()
    return float(loss.detach())


def test_without_tokens_it_is_plain_clip() -> None:
    clip = tiny()
    prompts = Prompts(clip, visual=0, extra_norm=False).eval()
    image = rated(1)["image"]
    with torch.no_grad():
        torch.testing.assert_close(prompts.image_feature(clip, image), clip(image))
        words = clip.network.token_embedding(prompts.tokens[0, 1:5])
        prompts.context.copy_(words)
        sentences = tuple(f"X X X X {word}." for word in ("high quality", "low quality"))
        torch.testing.assert_close(prompts.text_features(clip), clip.encode_text(sentences))


def test_a_fresh_extra_norm_changes_next_to_nothing() -> None:
    clip = tiny()
    prompts = Prompts(clip, visual=3).eval()
    image = rated(1)["image"]
    with torch.no_grad():
        with_norm = F.normalize(prompts.image_feature(clip, image), dim=1)
        prompts.norm = torch.nn.Identity()
        without = F.normalize(prompts.image_feature(clip, image), dim=1)
    assert float((with_norm - without).abs().max()) < 1e-4


@pytest.mark.parametrize("deep", [True, False])
def test_tokens_of_a_block_replace_those_before_and_shallow_ones_go_on(deep: bool) -> None:
    clip, seen = tiny(), []
    prompts = Prompts(clip, visual=3, deep=deep).eval()
    for block in clip.network.visual.transformer.resblocks:
        block.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    with torch.no_grad():
        prompts.image_feature(clip, rated(1)["image"])
        own = [prompts.project(tokens) for tokens in prompts.visual]
    assert len(own) == (2 if deep else 1)
    torch.testing.assert_close(seen[0][0, 1:4], own[0])
    assert torch.equal(seen[1][0, 1:4], own[-1]) == deep
    assert all(tokens.shape[1] == 1 + 3 + 4 for tokens in seen)


def test_score_is_the_probability_of_the_first_words() -> None:
    method, image = build(), rated(1)["image"]
    with evaluation_mode(method), torch.no_grad():
        score = method.score(image)
        v = F.normalize(method.current.image_feature(method.clip, image), dim=1).double().numpy()
        t = method.current.text_features(method.clip).double().numpy()
        scale = np.exp(float(method.clip.network.logit_scale))
        columns = method.predict_step({"image": image, "owner_task": torch.ones(6).long()}).columns
    e = np.exp(scale * v @ t.T)
    np.testing.assert_allclose(score, e[:, 0] / e.sum(axis=1), atol=1e-5)
    assert list(columns) == ["single"]


def test_loss_goes_to_ratings_in_the_range_of_the_task() -> None:
    method = build(dropout=0.0)
    given = rated(1, 12)
    begin(method, 1, given)
    with torch.no_grad():
        q = method.score(given["image"]).double()
        loss = method.loss(given)
    y = (given["mos"] - given["mos"].min()) / (given["mos"].max() - given["mos"].min())
    expected = -(y * q.log() + (1 - y) * (1 - q).log()).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("rule", ["remove_agreeing", "remove_conflicting", "none"])
def test_step_against_a_loop_over_names(rule: str) -> None:
    """Two separate backward passes of two copies, paired by name."""
    method = build(dropout=0.0, rule=rule, weight=0.5)
    batch = rated(3)
    begin(method, 1, batch)
    step(method, batch)  # away from plain CLIP, where the scenes would be met
    gradients = []
    for kind in ("quality", "scenes"):
        method.zero_grad(set_to_none=True)
        if kind == "quality":
            method.loss(batch).backward()
        else:
            feature = method.current.image_feature(method.clip, batch["image"])
            student = method.clip.similarity(feature, method.clip.encode(SCENE_TEXTS))
            assert method.teacher is not None
            with torch.no_grad():
                plain = method.teacher.backbone.network
                pixels = method.teacher.backbone.prepare(batch["image"])
                v = F.normalize(plain.encode_image(pixels), dim=1)
                tokens = method.clip.tokenizer(list(SCENE_TEXTS))
                t = F.normalize(plain.encode_text(tokens), dim=1)
                wanted = (plain.logit_scale.exp() * v @ t.T).softmax(dim=1)
            (-(wanted * student.log_softmax(dim=1)).sum(dim=1).mean()).backward()
        gradients.append({n: p.grad for n, p in method.named_parameters() if p.grad is not None})
    quality, scenes = gradients
    context = next(name for name in quality if name.endswith("context"))
    assert context not in scenes
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    step(method, batch)
    turned = 0
    for name, parameter in method.named_parameters():
        if name not in quality:
            assert torch.equal(parameter, before[name]), name
            continue
        g = quality[name]
        if name in scenes:
            s = scenes[name]
            dot = float((g.double() * s.double()).sum())
            unwanted = {"remove_agreeing": dot > 0, "remove_conflicting": dot < 0, "none": False}
            turned += unwanted[rule]
            along = 5.0 * dot / float(s.double().square().sum()) if unwanted[rule] else 0.0
            g = g - along * s + 0.5 * s
        torch.testing.assert_close(
            parameter.detach(), before[name] - 0.01 * g, atol=1e-5, rtol=1e-3
        )
    assert (turned > 0) == (rule != "none")


def test_a_second_gradient_of_nothing_divides_by_nothing() -> None:
    g = torch.randn(4, 3)
    for rule in ("remove_agreeing", "remove_conflicting", "none"):
        assert torch.equal(adjust_gradient(g, torch.zeros_like(g), 5.0, rule), g)
    orthogonal = adjust_gradient(g, g + 1, 1.0)
    assert abs(float((orthogonal * (g + 1)).sum())) < 1e-4


def test_scene_loss_is_least_at_the_teacher() -> None:
    teacher = torch.randn(5, 9)
    student = teacher.clone().requires_grad_()
    for temperature in (1.0, 3.0):
        (g,) = torch.autograd.grad(soft_class_loss(student, teacher, temperature), student)
        assert float(g.abs().max()) < 1e-6
    log_p = F.log_softmax(teacher.double() / 2, dim=1)
    entropy = -(log_p.exp() * log_p).sum(dim=1).mean() * 4
    assert float(soft_class_loss(teacher, teacher, 2.0)) == pytest.approx(float(entropy), rel=1e-5)


TRAINED = {
    "blocks": ("context", "resblocks.1.", "ln_final", "ln_post"),
    "prompts": ("context", "visual"),
    "context": ("context",),
}


@pytest.mark.parametrize("trains", TRAINED)
def test_what_is_trained(trains: str) -> None:
    method = build(trains=trains)
    batch = rated(2)
    begin(method, 1, batch)
    before = snapshot(method)
    step(method, batch)
    moved = changed(before, method)
    assert moved
    assert all(any(word in name for word in TRAINED[trains]) for name in moved), moved
    assert {word for word in TRAINED[trains] if any(word in n for n in moved)} == set(
        TRAINED[trains]
    )
    assert not any(name.startswith("teacher") for name in moved)
    assert (method.teacher is None) == (trains != "blocks")
    method.on_phase_start(at(WARMUP))
    before = snapshot(method)
    step(method, batch)
    assert changed(before, method) == {"prompts.0.context"}


def test_tokens_of_a_task_are_its_own_and_the_gate_weighs_them() -> None:
    gate = partial(MeanFeatureGate, stages=1)
    method = build(trains="prompts", per_task=True, gate=gate, dropout=0.0)
    assert method.independent_tasks
    assert method.added_parameters() == 4 * 64 + 2 * 3 * 64
    assert method.readouts == ("latest", "oracle", "gated")
    image = rated(9)["image"]
    begin(method, 1)
    step(method, rated(1))
    with evaluation_mode(method), torch.no_grad():
        alone = method.head_scores(image, NOTHING)
    begin(method, 2)
    before = snapshot(method)
    assert torch.equal(before["prompts.1.visual"], build().prompts[0].visual), "from the start"
    step(method, rated(2))
    assert changed(before, method) == {"prompts.1.context", "prompts.1.visual"}
    with evaluation_mode(method), torch.no_grad():
        both = method.head_scores(image, NOTHING)
        given = Known(final_scores={"a": alone.score[:, 0] + 1})
        known = method.head_scores(image, given)
    assert torch.equal(both.score[:, 0], alone.score[:, 0])
    assert torch.equal(known.score[:, 0], alone.score[:, 0] + 1), "recorded scores are used"
    assert not torch.allclose(both.score[:, 1], both.score[:, 0])
    torch.testing.assert_close(both.gate.sum(dim=1), torch.ones(6))
    assert method.final_heads() == ["a"]


def test_scores_of_the_model_before_are_kept() -> None:
    def drift(weight: float) -> float:
        method = build(
            trains="prompts",
            keeps="scores",
            rule="remove_conflicting",
            strength=1.0,
            weight=weight,
            dropout=0.0,
            optimizer=partial(torch.optim.SGD, lr=0.005),
        )
        begin(method, 1)
        assert method.second_loss(rated(1)["image"], torch.zeros(6, 64)) is None
        step(method, rated(1))
        begin(method, 2)
        batch = rated(2, 12)
        with torch.no_grad():
            old = method.score(batch["image"])
        for _ in range(20):
            step(method, batch)
        with torch.no_grad():
            return float((method.score(batch["image"]) - old).abs().mean())

    assert drift(10.0) < 0.5 * drift(0.0)


def test_prior_brings_its_tokens(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    prior = Prompts(tiny(), visual=3)
    save_file({f"{PREFIX}{k}": v.contiguous() for k, v in prior.state_dict().items()}, file)
    method = build(prior=str(file), trains="prompts", per_task=True)
    for prompts in method.prompts:
        for key, value in prior.state_dict().items():
            assert torch.equal(prompts.state_dict()[key], value), key
    with pytest.raises(ValueError, match=r"method\.prior=.*'visual' is \(2, 3, 64\) there and"):
        build(prior=str(file), visual=5)
    save_file({"other": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match="give what `pretrain pretraining=grmp_iqa` wrote"):
        build(prior=str(file))


def test_statistics_of_the_input() -> None:
    own = tiny().mean.clone()
    assert torch.equal(build(statistics="clip").clip.mean, own)
    method = build()
    torch.testing.assert_close(method.clip.mean.flatten(), torch.tensor([123.675, 116.28, 103.53]))
    assert method.teacher is not None
    assert torch.equal(method.teacher.backbone.mean, method.clip.mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trains": "all"}, r"method\.trains='all'"),
        ({"keeps": "faces"}, r"method\.keeps='faces'"),
        ({"rule": "pcgrad"}, r"method\.rule='pcgrad'"),
        ({"statistics": "own"}, r"method\.statistics='own'"),
        ({"per_task": True}, r"method\.per_task=true goes with trains=context"),
        ({"gate": MeanFeatureGate}, r"method\.gate weighs the tokens of several tasks"),
        ({"words": ["good"]}, r"method\.words=\['good'\]"),
        ({"backbone": Backbone("test_efficientnet")}, "backbone=clip_vit_b16"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_clip_without_a_vision_transformer_is_refused() -> None:
    vision = {"timm_model_name": "test_efficientnet", "timm_proj": "linear", "image_size": 32}
    with pytest.raises(ValueError, match="puts tokens into a vision transformer"):
        build(backbone=tiny(vision_cfg=vision))


def test_range_of_the_ratings() -> None:
    scale = RatingRange()
    batches = [{"mos": torch.tensor([3.0, 5.0])}, {"mos": torch.tensor([1.0])}]
    images = RatedImages(("a",), batches)
    assert next(iter(images)) is batches[0]
    scale.fit(images)
    assert scale(torch.tensor([1.0, 5.0, 2.0])).tolist() == [0.0, 1.0, 0.25]
    assert len(RatedImages(("a",), []).mos()) == 0, "another rank has them"
    with pytest.raises(ValueError, match="cannot pool the scales of a, b"):
        scale.fit(RatedImages(("a", "b"), batches))
    with pytest.raises(ValueError, match="have the rating 1"):
        scale.fit(RatedImages(("a",), batches[1:]))


def shades(count: int = 48) -> dict[str, Any]:
    """Stripes whose contrast tells the rating, on grounds of many colours."""
    rng = np.random.default_rng(0)
    level = rng.permutation(count) / count
    stripes = np.sin(np.arange(SIDE) * np.pi / 2)[None, None, None]
    image = rng.uniform(80, 170, (count, 3, 1, 1)) + (60 * level)[:, None, None, None] * stripes
    image = np.broadcast_to(image, (count, 3, SIDE, SIDE)) + rng.normal(
        0, 3, (count, 3, SIDE, SIDE)
    )
    pixels = torch.from_numpy(image.clip(0, 255)).to(torch.uint8)
    mos = torch.from_numpy(level).float()
    return {"image": pixels, "mos": mos, "index": torch.arange(count)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trains", "optimizer"),
    [
        ("blocks", partial(torch.optim.Adam, lr=1e-3)),
        ("prompts", partial(torch.optim.Adam, lr=1e-2)),
    ],
)
def test_small_towers_learn(trains: str, optimizer: Callable[..., Any]) -> None:
    """Random towers, a toy: it shows that gradients reach what is trained, nothing about quality."""
    method = build(trains=trains, last_blocks=2, optimizer=optimizer, rule="none", visual=8)
    data = shades()
    train = {key: value[:32] for key, value in data.items()}
    begin(method, 1, train)
    losses = [step(method, train) for _ in range(120)]
    with evaluation_mode(method), torch.no_grad():
        found = method.score(data["image"][32:])
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.02
    assert spearmanr(found, data["mos"][32:]).statistic > 0.5


@pytest.mark.slow
def test_starts_from_a_file_of_clip(folders: list[Path], tmp_path: Path) -> None:
    """A state dict as OpenAI names it, generated, in the size of the small model."""
    file = tmp_path / "ViT-B-16.pt"
    torch.save(released(), file)
    sizes = [
        "embed_dim: 64",
        "vision_cfg: {image_size: 32, layers: 2, width: 64, head_width: 32, patch_size: 16}",
    ]
    sizes += ["text_cfg: {context_length: 32, vocab_size: 49408, width: 64, heads: 2, layers: 2}"]
    words = ["backbone=clip_vit_b16", f"backbone.pretrained={file}", "method.visual=4"]
    words += [f"++backbone.options={{{', '.join(sizes)}}}", "view.evaluation=center"]
    folder = walk(
        tmp_path / "run",
        "method=grmp_iqa",
        *words,
        IN_BATCH,
        *stream_of_folders(folders[:1]),
        "schedule.finetune.epochs=1",
    )
    weights = torch.load(next(folder.glob("tasks/*.ckpt")), weights_only=True)
    frozen = "backbone.network.visual.conv1.weight"
    assert torch.equal(weights[frozen], released()["visual.conv1.weight"].float())


def test_without_its_weights_clip_says_where_they_go() -> None:
    with pytest.raises(ValueError, match="nothing is downloaded"):
        CLIP("ViT-B-16-quickgelu", "openai")


def test_a_prior_that_has_seen_test_images_is_refused(folders: list[Path], tmp_path: Path) -> None:
    prior = Prompts(tiny(), visual=4)
    weights = {f"{PREFIX}{k}": v.contiguous() for k, v in prior.state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    seen = [sha256(path.read_bytes()).hexdigest() for path in folders[0].glob("images/*.png")]
    card = {"images": {f"sha256:{value}": "a/x" for value in seen}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    words = ["method=grmp_iqa", "backbone=clip_tiny", "view.evaluation=center", "method.visual=4"]
    words += [f"method.prior={tmp_path / 'weights.safetensors'}", *stream_of_folders(folders[:1])]
    with pytest.raises(ValueError, match=r"test parts.*allow_leakage=true"):
        walk(tmp_path / "run", *words, IN_BATCH)
