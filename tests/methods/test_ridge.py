"""The closed form over a stream: scikit-learn's heads, any order, nothing trained."""

from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.methods.readouts import NOTHING
from iqa_lightning.methods.ridge import Ridge
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.gating import LDAGate
from iqa_lightning.stream.schedule import Task
from tests.methods import steps

TASKS = ("a", "b", "c")
STAGES = partial(LDAGate, features="stages")


def build(tasks: tuple[str, ...] = TASKS, **options: Any) -> Ridge:
    return steps.build(Ridge, tasks=tasks, **({"cache": "ram"} | options))


def material(name: str, count: int = 20) -> dict[str, Any]:
    """Images of a task in an order of their own, with ratings."""
    seed = ord(name)
    batch = steps.images(seed, count)
    generator = torch.Generator().manual_seed(seed)
    return batch | {
        "mos": 50 + 9 * torch.randn(count, generator=generator),
        "index": torch.randperm(count, generator=generator),
    }


def learn(method: Ridge) -> Ridge:
    for t, name in enumerate(method.tasks, start=1):
        whole = material(name)
        keys = ("image", "mos", "index")
        parts = [{key: whole[key][rows] for key in keys} for rows in (slice(0, 7), slice(7, None))]
        with evaluation_mode(method):
            method.on_task_start(Task(t, name, (name,)), parts)
    return method


def scores(method: Ridge, image: torch.Tensor) -> dict[str, torch.Tensor]:
    with evaluation_mode(method), torch.no_grad():
        found = method.head_scores(image, NOTHING)
    return {"score": found.score} | ({} if found.gate is None else {"gate": found.gate})


def test_each_head_is_the_ridge_regression_of_its_task() -> None:
    method, x = learn(build()), steps.images(3)["image"]
    found = scores(method, x)["score"]
    with evaluation_mode(method), torch.no_grad():
        new = method.backbone.statistics(x).double().numpy()
        for k, name in enumerate(TASKS):
            batch = material(name)
            seen = method.backbone.statistics(batch["image"]).double().numpy()
            y = batch["mos"].double().numpy()
            scaler, alpha = StandardScaler().fit(seen), float(method.penalties[k, 1].exp())
            model = SklearnRidge(alpha=alpha).fit(scaler.transform(seen), (y - y.mean()) / y.std())
            np.testing.assert_allclose(found[:, k], model.predict(scaler.transform(new)), atol=1e-4)


def test_the_heads_are_the_same_in_every_order_to_the_bit() -> None:
    x = steps.images(3)["image"]
    gate = STAGES
    first: dict[str, torch.Tensor] = {}
    for order in permutations(TASKS):
        found = scores(learn(build(order, gate=gate)), x)
        gated = (found["gate"] * found["score"]).sum(dim=1)
        columns = dict(zip(order, found["score"].T, strict=True)) | {"gated": gated}
        first = first or columns
        assert all(torch.equal(columns[name], first[name]) for name in TASKS)
        torch.testing.assert_close(gated, first["gated"], rtol=0, atol=1e-6)  # rounding of a sum


def test_a_head_stays_as_it_is_and_nothing_else_is_trained() -> None:
    method = build(optimizer=partial(torch.optim.SGD, lr=0.1))
    network = {k: v.clone() for k, v in method.backbone.state_dict().items()}
    learn(method)
    assert all(torch.equal(v, network[k]) for k, v in method.backbone.state_dict().items())
    alone = learn(build(("a",)))
    assert torch.equal(method.weight[0], alone.weight[0])
    assert method.independent_tasks
    assert method.added_parameters() == method.backbone.statistics_width + 1
    before = steps.snapshot(method)
    optimizer = method.configure_optimizers()
    method.loss(steps.images(1)).backward()
    optimizer.step()
    assert not steps.changed(before, method)


@pytest.mark.parametrize("projection", [0, 30])
def test_the_pooled_head_is_the_joint_ridge(projection: int) -> None:
    method, x = learn(build(heads="pooled", projection=projection)), steps.images(3)["image"]
    with evaluation_mode(method), torch.no_grad():
        batches = [material(name) for name in TASKS]
        seen = np.concatenate([method.feature(b["image"]).numpy() for b in batches])
        new = method.feature(x).numpy()
        y = np.concatenate(
            [(m := b["mos"].double().numpy(), (m - m.mean()) / m.std())[1] for b in batches]
        )
        scaler = StandardScaler().fit(seen)
        alpha = float(method.penalties[:, 1].mean().exp())  # as many images each
        model = SklearnRidge(alpha=alpha).fit(scaler.transform(seen), y)
        np.testing.assert_allclose(
            method.scores(x)[:, 0], model.predict(scaler.transform(new)), atol=1e-6
        )
    assert method.readouts == ("single",)


def test_a_saved_method_goes_on_as_if_it_had_not_been_saved() -> None:
    whole, other = learn(build(gate=STAGES)), build(gate=STAGES)
    other.load_state_dict(whole.state_dict())
    x = steps.images(3)["image"]
    one, two = scores(whole, x), scores(other, x)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert whole.readouts == ("latest", "oracle", "gated")
    assert one["gate"].shape == (8, 3)


def test_gates_and_heads_read_what_they_are_told_to() -> None:
    method = learn(build(gate=LDAGate, features="last"))
    x = steps.images(3)["image"]
    with evaluation_mode(method), torch.no_grad():
        expected = torch.cat([method.backbone(one[None]) for one in x]).double()
        torch.testing.assert_close(method.feature(x), expected)
        for found, stage in zip(method.gate_stages(x), method.backbone.stages(x), strict=True):
            torch.testing.assert_close(found, stage, rtol=1e-4, atol=1e-5)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match=r"method\.heads='two'"):
        build(heads="two")
    with pytest.raises(ValueError, match="has one head"):
        build(heads="pooled", gate=STAGES)
    with pytest.raises(ValueError, match=r"method\.features=last needs"):
        Ridge(backbone=Backbone("test_efficientnet", features="stages"), tasks=TASKS, optimizer=steps.ADAM, features="last")  # fmt: skip
    method = build()
    with pytest.raises(ValueError, match="cannot pool the scales"):
        method.on_task_start(Task(1, "a+b", ("a", "b")), [])
