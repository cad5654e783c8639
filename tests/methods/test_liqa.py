"""LIQA: each loss by hand, what it is without them, slots, what replay may see, the phase of the
generator.
"""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm, spearmanr

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.methods.feature_generators import GANFeatureGenerator, GaussianFeatureGenerator
from iqa_lightning.methods.finetune import SingleHead
from iqa_lightning.methods.liqa import LIQA, pairs_within, slots_of, unit_norm
from iqa_lightning.stream.schedule import Phase, Task
from tests.methods.steps import (
    FINETUNE,
    WARMUP,
    at,
    build,
    changed,
    columns,
    images,
    snapshot,
    start,
    step,
)
from tests.test_contract import Interrupted, interrupt_after
from tests.walks import IN_BATCH, results, stream_of_folders, walk

GAUSSIAN = partial(GaussianFeatureGenerator, rank=4)
GAN = partial(GANFeatureGenerator, noise=4, hidden=8, steps=2, batch_size=4)
GENERATE = Phase("generator", 1, 8, trains="generator")
NOTHING = {"split_weight": 0.0, "merge_weight": 0.0, "stability_weight": 0.0}


def rated(seed: int, count: int = 8) -> dict[str, Any]:
    """A batch with ratings."""
    mos = torch.rand(count, generator=torch.Generator().manual_seed(seed)) * 100
    return images(seed, count) | {"mos": mos}


def liqa(**arguments: Any) -> LIQA:
    method = build(LIQA, **{"feature_generator": GAUSSIAN, "bn_stats": "frozen"} | arguments)
    assert isinstance(method, LIQA)
    return method


def begin(method: LIQA, t: int) -> None:
    """Begin task t with its images, which have ratings."""
    name = method.tasks[t - 1]
    with evaluation_mode(method):
        method.on_task_start(Task(t, name, (name,)), [rated(t, 12)])
    method.trainer = SimpleNamespace(optimizers=[method.configure_optimizers()])  # type: ignore[assignment]


def end(method: LIQA, t: int) -> None:
    """End task t."""
    batches = [rated(10 * t, 8), rated(10 * t + 1, 8)]
    with evaluation_mode(method):
        method.on_task_end(Task(t, method.tasks[t - 1], (method.tasks[t - 1],)), [], batches)


def learn(method: Any, t: int) -> Any:
    """All of task t in the steps of `tests.methods.steps.learn`."""
    begin(method, t) if isinstance(method, LIQA) else start(method, t)
    for position in (at(WARMUP, t), at(FINETUNE, t, 0), at(FINETUNE, t, 1)):
        method.on_phase_start(position)
        for k in range(2):
            step(method, rated(100 * t + k))
    if isinstance(method, LIQA):
        end(method, t)
    return method


def in_task(t: int, **arguments: Any) -> LIQA:
    """In the fine-tuning of task t, two steps in."""
    method = liqa(**arguments)
    for k in range(1, t):
        learn(method, k)
    begin(method, t)
    method.on_phase_start(at(FINETUNE, t))
    for k in range(2):
        step(method, rated(7 + k))
    return method


def test_without_its_terms_it_is_single_head_fine_tuning() -> None:
    method, plain = liqa(**NOTHING), build(SingleHead, bn_stats="frozen")
    for t in (1, 2, 3):
        learn(method, t)
        learn(plain, t)
        mine = method.state_dict()
        assert all(torch.equal(mine[key], tensor) for key, tensor in plain.state_dict().items())
    whole = liqa()
    for t in (1, 2):
        learn(whole, t)
    assert not torch.equal(whole.heads.weight[0], method.heads.weight[0])


# --- the losses by hand


def fidelity(p: np.ndarray, g: np.ndarray) -> np.ndarray:
    return 1 - np.sqrt(p * g + 1e-8) - np.sqrt((1 - p) * (1 - g) + 1e-8)


def double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def drawn(method: LIQA, batch: dict[str, Any]) -> tuple[dict[str, float], np.ndarray]:
    """The terms of a batch, and the replayed features that they were made with."""
    state = method.noise.get_state()
    terms = {name: term.item() for name, term in method.terms(batch).items()}
    method.noise.set_state(state)
    slot = torch.tensor(method.others).repeat_interleave(method.replay_size)
    return terms, double(unit_norm(method.feature_generator.sample(slot, method.noise)))


def test_ranking_losses_by_hand() -> None:
    method, batch = in_task(3, replay_size=3, stability_weight=2.0, merge_weight=5.0), rated(5)
    terms, g = drawn(method, batch)
    with torch.no_grad():
        x, old = (double(net(batch["image"])) for net in (method.backbone, method.teacher.backbone))
    x, old = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x, old))
    head = double(method.heads.weight[0])
    labels = [double(w) for w in method.teacher.heads.heads.weight]
    i, j = batch["pairs"].numpy().T
    target = batch["target"].numpy()
    assert terms.keys() == {"single", "auxiliary", "merge", "stability"}
    for name, w in (("single", head), ("auxiliary", double(method.auxiliary.heads.weight[2]))):
        assert terms[name] == pytest.approx(
            fidelity(norm.cdf((x[i] - x[j]) @ w), target).mean(), rel=1e-4
        )
    losses = []
    for k in (0, 1):  # each slot for itself, all pairs of its three features
        own = g[3 * k : 3 * k + 3]
        a, b = np.triu_indices(3, 1)
        losses.append(
            fidelity(
                norm.cdf((own[a] - own[b]) @ head), norm.cdf((own[a] - own[b]) @ labels[k])
            ).mean()
        )
    assert terms["merge"] == pytest.approx(5 * np.mean(losses), rel=1e-4)
    assert terms["stability"] == pytest.approx(2 * np.linalg.norm(x - old, axis=1).mean(), rel=1e-4)
    assert terms["stability"] > 1e-3
    method.noise.manual_seed(1)
    total = method.loss(batch).item()
    method.noise.manual_seed(1)
    assert total == pytest.approx(
        sum(term.item() for term in method.terms(batch).values()), rel=1e-6
    )


def huber(difference: np.ndarray) -> float:
    size = np.abs(difference)
    return float(np.where(size < 1, 0.5 * size**2, size - 0.5).mean())


def test_regression_losses_by_hand() -> None:
    method, batch = in_task(2, loss_type="huber", replay_size=5), rated(5)
    terms, g = drawn(method, batch)
    with torch.no_grad():
        x = double(method.backbone(batch["image"]))
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    mos = rated(2, 12)["mos"].double().numpy()  # of the task's own images
    y = (batch["mos"].double().numpy() - mos.mean()) / mos.std(ddof=1)
    head = double(method.heads.weight[0])
    assert terms["single"] == pytest.approx(huber(x @ head - y), rel=1e-4)
    expected = huber(g @ head - g @ double(method.teacher.heads.heads.weight[0]))
    assert terms["merge"] == pytest.approx(10 * expected, rel=1e-4)


def test_the_split_loss_by_hand() -> None:
    method, batch = in_task(3, hidden=6, replay_size=4, split_weight=3.0), rated(5)
    terms, g = drawn(method, batch)
    both = []
    for module in (method.auxiliary, method.teacher.heads):
        layer = module.layer[0]
        h = np.maximum(g @ double(layer.weight).T + double(layer.bias), 0)
        h = h / np.linalg.norm(h, axis=1, keepdims=True).clip(1e-12)
        both.append(
            np.concatenate([h[4 * k : 4 * k + 4] @ double(module.heads.weight[k]) for k in (0, 1)])
        )
    per_slot = np.abs(both[0] - both[1]).reshape(2, 4).mean(axis=1)
    assert terms["split"] == pytest.approx(3 * per_slot.sum(), rel=1e-3)
    assert terms["split"] > 1e-4


def test_pairs_never_mix_slots() -> None:
    pairs = pairs_within(3, 4)
    assert len({tuple(pair) for pair in pairs.tolist()}) == 3 * 6
    assert (pairs // 4)[:, 0].tolist() == (pairs // 4)[:, 1].tolist()


# --- who teaches, who learns


def test_what_labels_replays_and_holds_is_the_model_when_the_task_began() -> None:
    method = in_task(2)
    teacher, start_of = method.teacher.backbone.state_dict(), liqa()
    learn(start_of, 1)
    assert all(
        torch.equal(teacher[key], tensor) for key, tensor in start_of.backbone.state_dict().items()
    )
    assert torch.equal(method.teacher.heads.heads.weight[0], start_of.auxiliary.heads.weight[0])
    assert torch.equal(method.teacher.heads.heads.weight[1], start_of.heads.weight[0]), (
        "a new head starts as H"
    )
    assert not method.teacher.training


def test_a_step_leaves_other_heads_and_replay_alone() -> None:
    method = in_task(3)
    before = snapshot(method)
    step(method, rated(1))
    touched = {key for key in changed(before, method) if not key.startswith("backbone.")}
    assert touched == {"heads.weight.0", "auxiliary.heads.weight.2"}


def test_auxiliary_heads_give_the_network_no_gradient() -> None:
    method = in_task(2)
    method.zero_grad(set_to_none=True)
    method.terms(rated(3))["auxiliary"].backward()
    assert [name for name, p in method.named_parameters() if p.grad is not None] == [
        "auxiliary.heads.weight.1"
    ]


def test_replay_reads_no_image_of_an_earlier_task() -> None:
    assert liqa().training_images.replay_memory is None
    assert liqa().training_images.images == "task"


def test_the_warm_up_replays_but_does_not_hold_features() -> None:
    method = in_task(2)
    method.on_phase_start(at(WARMUP, 2))
    assert method.terms(rated(1)).keys() == {"single", "auxiliary", "merge"}


# --- slots


@pytest.mark.parametrize(("on_repeat", "slots"), [("reuse", [0, 1, 0, 1]), ("new", [0, 1, 2, 3])])
def test_a_distortion_that_comes_back(on_repeat: str, slots: list[int]) -> None:
    assert slots_of(["a", "b", "a", "b"], on_repeat) == slots
    method = liqa(tasks=("a", "b", "a_2"), task_datasets=["a", "b", "a"], on_repeat=on_repeat)
    assert len(method.auxiliary.heads.weight) == (2 if on_repeat == "reuse" else 3)
    for t in (1, 2):
        learn(method, t)
    head = method.auxiliary.heads.weight[0].detach().clone()
    begin(method, 3)
    assert method.others == ([1] if on_repeat == "reuse" else [0, 1])
    assert torch.equal(method.teacher.heads.heads.weight[0], head)
    method.on_phase_start(at(FINETUNE, 3))
    step(method, rated(1))
    assert torch.equal(method.auxiliary.heads.weight[0], head) is (on_repeat == "new")


@pytest.mark.parametrize("feature_generator", [GAUSSIAN, GAN])
def test_memory_grows_by_a_head_and_a_condition(feature_generator: Any) -> None:
    def made(*tasks: str) -> LIQA:
        return liqa(
            tasks=tasks,
            feature_generator=feature_generator,
            generator_phase={"epochs": 1, "batch_size": 8},
        )

    few, more = made("a", "b"), made("a", "b", "c")
    assert (
        few.state_dict().keys() | {"auxiliary.heads.weight.2", "teacher.heads.heads.weight.2"}
        == more.state_dict().keys()
    )
    added = sum(t.numel() for t in more.state_dict().values()) - sum(
        t.numel() for t in few.state_dict().values()
    )
    width = few.backbone.width
    copies = width + (
        few.feature_generator.generator.row() if feature_generator is GAN else 0
    )  # of what labels and teaches
    assert added == few.added_parameters() + copies + 1  # and the variance of the slot
    again = liqa(tasks=("a", "b", "a_2", "b_2"), task_datasets=["a", "b"] * 2)
    assert again.state_dict().keys() == liqa(tasks=("a", "b")).state_dict().keys()


# --- readouts


def test_columns_of_the_records() -> None:
    method, batch = in_task(2), images(0)
    found = columns(method, batch, 1)
    assert list(found) == ["single", "oracle", "score/a", "score/b"]
    assert torch.equal(found["oracle"], found["score/a"])
    assert columns(method, batch, 3)["oracle"].isnan().all()
    with evaluation_mode(method), torch.no_grad():
        assert torch.equal(found["single"], method.score(batch["image"]))
    assert not torch.equal(found["single"], found["score/a"])


def test_single_takes_no_task_identity() -> None:
    method, batch = in_task(3), images(0)
    assert torch.equal(columns(method, batch, 1)["single"], columns(method, batch, 2)["single"])


# --- replay and its health


def test_health_by_hand() -> None:
    method = liqa()
    learn(method, 1)
    health = dict(method.health)
    method.noise = torch.Generator().manual_seed(3)
    x = np.concatenate([double(method.unit_features(rated(10 + k)["image"])) for k in (0, 1)])
    mos = np.concatenate([rated(10 + k)["mos"] for k in (0, 1)])
    with evaluation_mode(method):
        x = np.concatenate([double(method.unit_features(rated(10 + k)["image"])) for k in (0, 1)])
        again = method.examine(x.astype(np.float32), mos)
    assert (
        again.keys()
        == health.keys()
        == {"frechet/a", "frechet_share/a", "label_srcc/a", "spread/a"}
    )
    method.noise.manual_seed(3)
    fake = double(
        unit_norm(method.feature_generator.sample(torch.zeros(16, dtype=torch.long), method.noise))
    )
    nearest = np.linalg.norm(fake[:, None] - x[None], axis=2).argmin(axis=1)
    label = fake @ double(method.auxiliary.heads.weight[0])
    assert again["label_srcc/a"] == pytest.approx(
        spearmanr(label, mos[nearest]).statistic, abs=1e-3
    )
    assert again["frechet_share/a"] == pytest.approx(
        again["frechet/a"] / np.trace(np.cov(x, rowvar=False)), rel=1e-4
    )


def test_a_collapsed_replay_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    method = liqa()
    learn(method, 1)
    begin(method, 2)
    monkeypatch.setattr(
        method.feature_generator,
        "sample",
        lambda slot, noise: torch.ones(len(slot), method.backbone.width),
    )
    with pytest.warns(
        UserWarning, match=r"after task 'b' the replay of '[ab]' has collapsed: .*0\.0%.*gaussian"
    ):
        end(method, 2)


def test_the_last_task_is_taken_in_too() -> None:
    """It is the last only until the run is extended."""
    method = in_task(3)
    before = snapshot(method)
    end(method, 3)
    slots = {"feature_generator.mean", "feature_generator.factor", "feature_generator.rest"}
    assert changed(before, method) == {*slots, "variance"}
    assert "frechet/c" in method.health


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss_type": "l1"}, r"method\.loss_type='l1': choose one of"),
        ({"on_repeat": "old"}, r"method\.on_repeat='old'"),
        ({"feature_generator": GAN}, r"method\.generator_phase has no epochs"),
        (
            {"feature_generator": GAN, "generator_phase": {"epochs": 0, "batch_size": 8}},
            r"method\.generator_phase has no epochs",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        liqa(**given)


def test_scales_of_a_joint_task_are_not_pooled() -> None:
    method = liqa(loss_type="huber", tasks=("a+b",))
    with pytest.raises(ValueError, match=r"loss_type=huber cannot pool the scales of \('a', 'b'\)"):
        method.on_task_start(Task(1, "a+b", ("a", "b")), [rated(1)])


# --- the walk

QUICK = [
    "method=liqa",
    "method.feature_generator.steps=2",
    "method.feature_generator.hidden=8",
    "method.feature_generator.batch_size=8",
    IN_BATCH,
]
QUICK += [
    "method.generator_phase.batch_size=16",
    "method.generator_phase.epochs=2",
    "schedule.finetune.epochs=1",
]
COLLAPSED = pytest.mark.filterwarnings("ignore:.*has collapsed")


@COLLAPSED
def test_interrupted_in_the_generator_phase_it_resumes_to_the_same_bytes(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*QUICK, *stream_of_folders(folders)]
    whole = walk(tmp_path / "whole", *words, "logger=csv")
    for steps in (
        4 + 4 + 2,
        3,
    ):  # the second batch of its first epoch; then the first of its second
        with monkeypatch.context() as patch:
            interrupt_after(patch, steps)
            with pytest.raises(Interrupted):
                walk(tmp_path / "broken", *words)
        last = torch.load(next(tmp_path.glob("broken/*/*/*/*/*/last.ckpt")), weights_only=True)
        assert len(last["optimizer_states"]) == 3
    assert last["epoch"] == 2, "resumed and broken off within the phase"
    assert results(walk(tmp_path / "broken", *words)) == results(whole)
    check_what_was_trained(
        last["state_dict"], torch.load(whole / "tasks" / "1_a.ckpt", weights_only=True)
    )
    table = pd.read_csv(next(whole.glob("csv/*/metrics.csv")))
    for name, times in (("frechet/a", 1), ("frechet_share/a", 1), ("spread/a", 2)):
        assert table[f"task/{name}"].notna().sum() == times


def check_what_was_trained(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    """Within the phase only generator and critic change, and what is noted of the slot at its end."""
    moved = {key for key, tensor in after.items() if not torch.equal(before[key], tensor)}
    assert moved
    assert {
        key.split(".")[1] if key.startswith("feature_generator.") else key for key in moved
    } <= {
        "generator",
        "critic",
        "variance",
    }


@COLLAPSED
def test_the_generator_learns_from_the_best_weights_and_is_kept_as_it_ends(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter(np.linspace(1, 0, 100))
    monkeypatch.setattr("iqa_lightning.continual.callback.srcc", lambda scores, mos: next(values))
    run = walk(tmp_path, *QUICK, *stream_of_folders(folders))
    weights = torch.load(run / "tasks" / "1_a.ckpt", weights_only=True)
    for key, tensor in weights.items():
        kind, _, rest = key.partition(".")
        if kind == "backbone":  # the best epoch is the first, of heads alone
            assert torch.equal(tensor, weights[f"teacher.backbone.{rest}"])
        if key.startswith("feature_generator.generator."):
            assert not torch.equal(tensor, weights[key.replace(".generator.", ".teacher.")])


@COLLAPSED
def test_a_long_stream_adds_a_head_and_a_condition_a_task(
    folders: list[Path], tmp_path: Path
) -> None:
    words = ["schedule.warmup.epochs=0", "stream.order=[a,b,a,b,a]", *stream_of_folders(folders)]
    run = walk(tmp_path, *QUICK, *words, "method.generator_phase.epochs=1")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["finished"]
    weights = torch.load(run / "tasks" / "5_a_3.ckpt", weights_only=True)
    heads = [tensor for key, tensor in weights.items() if key.startswith("auxiliary.heads")]
    assert len(heads) == 2, "what comes back has its slot"
    rows = (
        weights["feature_generator.generator.condition.weight"].shape[1]
        + weights["feature_generator.critic.projection.weight"].shape[1]
    )
    assert summary["cost"]["parameters_added"] == heads[0].numel() + rows
    frame = pd.read_parquet(run / "predictions" / "after_5_a_3.parquet")
    twice = [frame[frame["dataset"] == name] for name in ("a", "a_3")]
    assert np.array_equal(twice[0]["oracle"], twice[1]["oracle"])
