"""LPF: what learns, what each variant keeps of a task, and the edges of its losses."""

from types import SimpleNamespace

import pytest
import torch

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.methods.base import Batch
from iqa_lightning.methods.lpf import LPF
from iqa_lightning.models.gating import MeanFeatureGate
from iqa_lightning.stream.schedule import Task
from tests.methods.steps import WARMUP, at, build, changed, columns, images, snapshot, step


def rated(seed: int, count: int = 12) -> Batch:
    """Images of a task, brighter ones with a higher MOS."""
    batch = images(seed, count)
    shift = torch.linspace(0, 60, count)[:, None, None, None]
    image = (batch["image"].float() * 0.7 + shift).clamp(0, 255).to(torch.uint8)
    return batch | {"image": image, "mos": 20 + 5 * torch.linspace(0, seed, count)}


def start(method: LPF, t: int) -> LPF:
    name = method.tasks[t - 1]
    with evaluation_mode(method):
        method.on_task_start(Task(t, name, (name,)), iter([rated(t)]))
    method.trainer = SimpleNamespace(optimizers=[method.configure_optimizers()])
    method.on_phase_start(at(WARMUP, t))
    return method


def learn(method: LPF, t: int, steps: int = 5) -> list[float]:
    start(method, t)
    losses = []
    for _ in range(steps):
        losses.append(float(method.loss(rated(t)).detach()))
        step(method, rated(t))
    return losses


def lpf(**options: object) -> LPF:
    return build(LPF, **({"hidden": 16, "dropout": 0.0} | options))  # type: ignore[return-value]


def test_it_learns_and_no_gradient_reaches_the_trunk() -> None:
    method = lpf()
    losses = learn(method, 1, 30)
    assert losses[-1] < 0.8 * losses[0]
    method.zero_grad(set_to_none=True)
    method.loss(rated(1)).backward()
    assert all(p.grad is None for p in method.backbone.parameters())
    found = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert found == {"embeddings", "comparisons", "regressions", "categories"}


def test_the_trunk_stays_in_evaluation_mode() -> None:
    method = lpf()
    method.train()
    assert not any(module.training for module in method.backbone.modules())
    assert method.regressions.training


@pytest.mark.parametrize(
    ("per_task", "old_stay"),
    [
        ("nothing", {"categories.0"}),
        ("regression", {"categories.0", "regressions.0"}),
        ("all", {"categories.0", "regressions.0", "embeddings.0", "comparisons.0"}),
    ],
)
def test_what_the_second_task_leaves_alone(per_task: str, old_stay: set[str]) -> None:
    method = lpf(per_task=per_task)
    learn(method, 1)
    before = snapshot(method)
    learn(method, 2)
    moved = {".".join(name.split(".")[:2]) for name in changed(before, method)}
    groups = ("categories.0", "regressions.0", "embeddings.0", "comparisons.0")
    assert {name for name in groups if name not in moved} == old_stay


@pytest.mark.parametrize(
    ("per_task", "readouts"),
    [("nothing", ["single"]), ("regression", ["latest", "oracle", "gated"])],
)
def test_columns(per_task: str, readouts: list[str]) -> None:
    gate = None if per_task == "nothing" else MeanFeatureGate
    method = lpf(per_task=per_task, gate=gate)
    learn(method, 1)
    learn(method, 2)
    found = columns(method, rated(1), owner=1)
    heads = [f"{kind}/{task}" for kind in ("score", "gate") for task in "ab"]
    assert list(found) == readouts + (heads if gate else [])
    assert all(((found[name] >= 0) & (found[name] <= 1)).all() for name in readouts)
    if gate:
        assert torch.equal(found["oracle"], found["score/a"])
        assert torch.equal(found["latest"], found["score/b"])


def test_targets_and_bounds_are_the_tasks_own_and_stay_with_the_model() -> None:
    method = lpf()
    start(method, 1)
    start(method, 2)
    assert method.ranges.tolist() == [[20, 25], [20, 30], [0, 0]]
    mos = rated(2)["mos"].double().numpy()
    expected = torch.from_numpy((mos - 20) / 10).quantile(torch.tensor([0.25, 0.5, 0.75]).double())
    assert torch.allclose(method.bounds[1].double(), expected)
    assert {"ranges", "bounds"} <= set(method.state_dict())


def test_a_batch_without_pairs_still_reaches_the_comparison() -> None:
    method = lpf()
    start(method, 1)
    one = {key: value[:1] for key, value in rated(1).items()}
    pairs = torch.combinations(torch.arange(1), 2)
    terms = method.terms(method.feature(one["image"]), one["mos"], pairs)
    assert float(terms["comparison"].detach()) == 0
    terms["comparison"].backward()
    found = {name for name, p in method.named_parameters() if p.grad is not None}
    assert any(name.startswith("comparisons") for name in found)


def test_kept_features_give_the_same_loss() -> None:
    method = lpf()
    start(method, 1)
    batch = rated(1)
    whole = method.loss(batch)
    kept = method.loss(batch | {"image": None, "feature": method.feature(batch["image"])})
    assert torch.equal(whole, kept)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"method\.per_task='each'"):
        lpf(per_task="each")
    with pytest.raises(ValueError, match=r"method\.gate has no heads"):
        lpf(gate=MeanFeatureGate)
    with pytest.raises(ValueError, match="cannot pool the scales of a, b"):
        lpf().on_task_start(Task(1, "a+b", ("a", "b")), iter([]))
    with pytest.raises(ValueError, match=r"method\.comparison='pairs'"):
        lpf(comparison="pairs")
    with pytest.raises(ValueError, match=r"method\.taps='first'"):
        lpf(taps="first")
    with pytest.raises(ValueError, match=r"method\.deviation is of maps"):
        lpf(deviation=True)
