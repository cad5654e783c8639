"""DP-IQA: terms of teacher and student by hand, who learns from whom, its two stages, its bank, and
that small networks learn.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from safetensors.torch import load_file
from scipy.stats import spearmanr

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.losses.margin_ranking import margin_ranking_loss
from iqa_lightning.methods.dp_iqa import DPIQA, DPIQATeacher, bank_sentences, write_bank
from iqa_lightning.methods.readouts import NOTHING, Known
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.diffusion import BANK
from iqa_lightning.models.dp_iqa import DiffusionTeacher
from iqa_lightning.stream.schedule import Task
from tests.methods.steps import FINETUNE, WARMUP, at, changed, snapshot
from tests.models.clips import tiny
from tests.models.pipelines import diffusion, write_pipeline
from tests.walks import IN_BATCH, composed, stream_of_folders, walk

pytest.importorskip("diffusers", reason="diffusers is not installed (extra dp_iqa)")

TASKS = ("a", "b")
ADAM = partial(torch.optim.Adam, lr=1e-3)


def teacher_method(seed: int = 0, **options: Any) -> DPIQATeacher:
    network = diffusion(seed, **options.pop("network", {}))
    given = {"optimizer": ADAM, "tasks": TASKS, "width": 32, "bn_stats": "frozen"} | options
    return DPIQATeacher(backbone=network, **given)


def student_method(seed: int = 0, **options: Any) -> DPIQA:
    if "teacher" not in options:
        options["teacher"] = DiffusionTeacher(diffusion(seed, posterior="mode"), width=32)
    torch.manual_seed(seed)
    backbone = Backbone("test_efficientnet", mean=[0.0] * 3, std=[1.0] * 3)
    given = {"optimizer": ADAM, "tasks": TASKS, "side": 64, "bn_stats": "always"} | options
    return DPIQA(backbone=backbone, **given)


def rated(seed: int, count: int = 6) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (count, 3, 64, 64), generator=generator).to(torch.uint8)
    return {"image": image, "mos": 100 * torch.rand(count, generator=generator)}


def begin(method: DPIQA | DPIQATeacher, t: int = 1, batch: dict[str, Any] | None = None) -> None:
    name = TASKS[t - 1]
    with evaluation_mode(method):
        method.on_task_start(Task(t, name, (name,)), [batch or rated(t, 12)])
    method.trainer = SimpleNamespace(optimizers=[method.configure_optimizers()])  # type: ignore[assignment]
    method.on_phase_start(at(FINETUNE, t))


def step(method: DPIQA | DPIQATeacher, batch: dict[str, Any]) -> float:
    (optimizer,) = method.trainer.optimizers
    optimizer.zero_grad()
    loss = method.loss(batch)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def unit(batch: dict[str, Any]) -> torch.Tensor:
    """Ratings in [0, 1] by their own range."""
    mos = batch["mos"]
    return (mos - mos.min()) / (mos.max() - mos.min())


@pytest.mark.parametrize("rank_weight", [0.0, 0.5])
def test_loss_of_the_teacher(rank_weight: float) -> None:
    method, batch = teacher_method(rank_weight=rank_weight), rated(1)
    begin(method, 1, batch)
    with evaluation_mode(method), torch.no_grad():
        score, loss = method.score(batch["image"]), float(method.loss(batch))
        terms = method.terms(batch)
    expected = np.mean((score - unit(batch)).numpy() ** 2)
    assert float(terms["score"]) == pytest.approx(expected, rel=1e-5)
    assert ("rank" in terms) == (rank_weight > 0)
    expected += rank_weight * float(margin_ranking_loss(score, unit(batch)))
    assert loss == pytest.approx(expected, rel=1e-5)


def test_margin_ranking_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.normal(size=9), np.round(rng.random(9), 1)  # with ties
    margin = 0.25 * y.std(ddof=1)
    pairs = [(i, j) for i in range(9) for j in range(i + 1, 9)]
    hand = [max(0.0, -np.sign(y[i] - y[j]) * (p[i] - p[j]) + margin) for i, j in pairs]
    found = margin_ranking_loss(torch.tensor(p), torch.tensor(y))
    assert float(found) == pytest.approx(np.mean(hand), rel=1e-5)
    assert float(margin_ranking_loss(torch.ones(1), torch.ones(1))) == 0


def test_known_latents_change_no_score() -> None:
    method, batch = teacher_method(), rated(1)
    image = batch["image"]
    with evaluation_mode(method), torch.no_grad():
        known = Known(frozen_output=method.backbone.frozen_output(image))
        scores = [
            method.score(image),
            method.selection_score(image, known),
            method.head_scores(image, known).score[:, 0],
            method.selection_score(image, NOTHING),
        ]
    assert all(torch.equal(score, scores[0]) for score in scores)


def test_terms_of_the_student() -> None:
    method, batch = student_method(weight=2.0, map_weight=3.0), rated(2)
    begin(method, 1, rated(1))
    step(method, rated(1))
    begin(method, 2, batch)
    assert method.teacher is not None
    assert method.previous is not None
    with evaluation_mode(method), torch.no_grad():
        old = method.student(method.backbone, batch["image"])
        assert float(method.terms(batch)["kept"]) == 0, "nothing has moved yet"
    step(method, batch)
    with evaluation_mode(method), torch.no_grad():
        score, narrow = method.student(method.backbone, batch["image"])
        rating, wanted = method.teacher(batch["image"])
        terms = {name: float(value) for name, value in method.terms(batch).items()}
    assert terms["score"] == pytest.approx(float(((score - unit(batch)) ** 2).mean()), rel=1e-5)
    assert terms["map"] == pytest.approx(3 * float(((narrow - wanted) ** 2).mean()), rel=1e-5)
    assert terms["kept"] == pytest.approx(2 * float(((narrow - old[1]) ** 2).mean()), rel=1e-5)
    own = float(((rating - unit(batch)) ** 2).mean())
    assert terms["teacher/score"] == pytest.approx(own, rel=1e-5)
    assert narrow.shape == wanted.shape == (6, 8, 8, 8)


def test_a_teacher_beside_the_student_learns_from_ratings_alone() -> None:
    method, batch = student_method(), rated(1)
    begin(method, 1, batch)
    teacher = method.teacher
    assert teacher is not None
    assert [group["lr"] for group in method.trainer.optimizers[0].param_groups] == pytest.approx(
        [1e-3, 1e-3, 1e-4]
    )
    method.loss(batch).backward()
    gradients = [p.grad.clone() for p in teacher.trainable()]
    teacher.zero_grad(set_to_none=True)
    (teacher(batch["image"])[0] - unit(batch)).square().mean().backward()
    for parameter, gradient in zip(teacher.trainable(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-7, rtol=1e-4)


def test_what_is_trained() -> None:
    method, batch = student_method(weight=1.0), rated(1)
    begin(method, 1, batch)
    before = snapshot(method)
    step(method, batch)
    moved = {name.split(".")[0] for name in changed(before, method)}
    assert moved == {"backbone", "student", "teacher"}
    method.on_phase_start(at(WARMUP))
    before = snapshot(method)
    step(method, batch)
    assert {name.split(".")[0] for name in changed(before, method)} == {"student", "teacher"}
    teacher = teacher_method()
    begin(teacher, 1, batch)
    before = snapshot(teacher)
    step(teacher, batch)
    moved = {".".join(name.split(".")[:2]) for name in changed(before, teacher)}
    assert {"backbone.network", "backbone.text_adapter", "backbone.image_adapter"} <= moved
    assert not any("vae" in name or "bank" in name for name in changed(before, teacher))


def test_two_stages(tmp_path: Path) -> None:
    """A teacher trained beforehand comes from its file, is the same to the student and stands still."""
    files = {}
    for t, task in enumerate(TASKS, start=1):
        trained = teacher_method(seed=t)
        begin(trained, 1, rated(t))
        step(trained, rated(t))
        files[task] = str(tmp_path / f"{task}.ckpt")
        torch.save(trained.state_dict(), files[task])
    method, batch = student_method(teacher_weights=files), rated(2)
    assert method.teacher is not None
    begin(method, 1)
    first = snapshot(method.teacher)  # type: ignore[arg-type]
    begin(method, 2, batch)
    with evaluation_mode(method), evaluation_mode(trained), torch.no_grad():
        torch.testing.assert_close(method.teacher(batch["image"])[0], trained.score(batch["image"]))
    assert not torch.equal(first["decoder.head.1.weight"], method.teacher.decoder.head[1].weight)
    before = snapshot(method)
    step(method, batch)
    assert not any(name.startswith("teacher") for name in changed(before, method))
    assert len(method.trainer.optimizers[0].param_groups) == 2
    assert set(method.terms(batch)) == {"score", "map"}
    other = teacher_method(network={"bank": 12})
    torch.save(other.state_dict(), files["a"])
    with pytest.raises(
        ValueError, match=r"does not fit the teacher \(1 tensors, first 'network.te"
    ):
        begin(method, 1)
    Path(files["a"]).unlink()
    with pytest.raises(ValueError, match=r"a\.ckpt is not there"):
        begin(method, 1)


def test_the_map_before_the_task_is_kept() -> None:
    def drift(weight: float) -> float:
        method = student_method(teacher=None, weight=max(weight, 1e-9))
        begin(method, 1)
        step(method, rated(1))
        batch = rated(2, 12)
        begin(method, 2, batch)
        with evaluation_mode(method), torch.no_grad():
            old = method.student(method.backbone, batch["image"])[1]
        for _ in range(8):
            step(method, batch)
        with torch.no_grad():  # as training sees it
            return float((method.student(method.backbone, batch["image"])[1] - old).abs().mean())

    assert drift(100.0) < 0.5 * drift(0.0)


def test_images_of_other_sizes() -> None:
    method = student_method(teacher=None)
    image = torch.randint(0, 256, (2, 3, 50, 80)).to(torch.uint8)
    with evaluation_mode(method), torch.no_grad():
        assert method.score(image).shape == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": 128}, r"method\.side=128, and the teacher reads squares of 64"),
        ({"side": 100, "teacher": None}, r"method\.side=100: give a multiple of 64"),
        ({"teacher": None, "teacher_weights": {"a": "x"}}, "need a teacher"),
        ({"teacher_weights": {"a": "x"}}, r"no file for the task 'b'"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        student_method(**options)


def test_other_backbones_are_refused() -> None:
    plain = Backbone("test_efficientnet")
    with pytest.raises(ValueError, match="set backbone=stable_diffusion"):
        DPIQATeacher(backbone=plain, tasks=TASKS, optimizer=ADAM)
    tokens = Backbone("test_vit")
    method = DPIQA(backbone=tokens, tasks=TASKS, optimizer=ADAM, side=192)
    with pytest.raises(ValueError, match="maps of a convolutional network"):
        method.score(torch.zeros(1, 3, 160, 160, dtype=torch.uint8))


def test_bank_is_written_and_read(tmp_path: Path) -> None:
    """By a small CLIP: its unnormalised features, in the order of the sentences."""
    clip = tiny()
    file = tmp_path / "bank.safetensors"
    write_bank(clip, str(file), batch_size=495)
    table = load_file(file)[BANK]
    assert tuple(table.shape) == (1485, 64)
    for row in (0, 700, 1484):
        with torch.no_grad():
            (expected,) = clip.network.encode_text(clip.tokenizer([bank_sentences()[row]]))
        torch.testing.assert_close(table[row], expected, atol=1e-5, rtol=1e-4)
    assert float((table.norm(dim=1) - 1).abs().max()) > 0.01


@pytest.mark.parametrize("name", ["stable_diffusion", "tiny"])
def test_teachers_of_the_yaml(name: str, tmp_path: Path) -> None:
    words = ["method=dp_iqa", f"method/teacher={name}"]
    if name == "stable_diffusion":  # a generated folder of its layout
        folder = write_pipeline(tmp_path / "sd")
        words += [f"method.teacher.network.folder={folder}", "method.teacher.network.bank=5"]
    teacher = instantiate(composed(*words).method.teacher, _convert_="all")
    assert isinstance(teacher, DiffusionTeacher)
    assert teacher.network.side == {"stable_diffusion": 512, "tiny": 64}[name]


@pytest.mark.slow
def test_both_stages_start_from_a_folder(folders: list[Path], tmp_path: Path) -> None:
    """A generated folder of the layout of Stable Diffusion 1.5, random and small: a dry run."""
    pipeline = write_pipeline(tmp_path / "sd")
    short = [IN_BATCH, *stream_of_folders(folders[:1]), "schedule.finetune.epochs=1"]
    sizes = {"folder": str(pipeline), "bank": "5", "side": "64"}
    first = walk(
        tmp_path / "first",
        "method=dp_iqa_teacher",
        "backbone=stable_diffusion",
        *(f"backbone.{key}={value}" for key, value in sizes.items()),
        *short,
    )
    (weights,) = first.glob("tasks/*.ckpt")
    second = walk(
        tmp_path / "second",
        "method=dp_iqa",
        "method.side=64",
        *(f"method.teacher.network.{key}={value}" for key, value in sizes.items()),
        f"method.teacher_weights={{a: {weights}}}",
        *short,
    )
    old, new = (
        torch.load(next(folder.glob("tasks/*.ckpt")), weights_only=True)
        for folder in (first, second)
    )
    for key, value in old.items():
        if key.startswith("decoder."):
            assert torch.equal(new[f"teacher.{key}"], value), key


def shades(count: int = 48) -> dict[str, Any]:
    """Stripes whose contrast tells the rating, on grounds of many colours."""
    rng = np.random.default_rng(0)
    level = rng.permutation(count) / count
    stripes = np.sin(np.arange(64) * np.pi / 4)[None, None, None]
    image = rng.uniform(80, 170, (count, 3, 1, 1)) + (60 * level)[:, None, None, None] * stripes
    image = np.broadcast_to(image, (count, 3, 64, 64)) + rng.normal(0, 3, (count, 3, 64, 64))
    pixels = torch.from_numpy(image.clip(0, 255)).to(torch.uint8)
    return {"image": pixels, "mos": torch.from_numpy(level).float()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_small_networks_learn(kind: str) -> None:
    """Random networks, a toy: it shows that gradients reach what is trained, nothing about quality."""
    method = (
        teacher_method(optimizer=partial(torch.optim.Adam, lr=2e-3))
        if kind == "teacher"
        else student_method(optimizer=partial(torch.optim.Adam, lr=2e-3), teacher_lr_factor=1.0)
    )
    data = shades()
    train = {key: value[:24] for key, value in data.items()}
    begin(method, 1, train)
    losses = [step(method, train) for _ in range(40)]
    with evaluation_mode(method), torch.no_grad():
        found = method.score(data["image"][24:])
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert spearmanr(found, data["mos"][24:]).statistic > 0.5
