"""TSN-Ridge: parts by scikit-learn, one scale, earlier tasks for ever the same."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.preprocessing import StandardScaler

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.methods.readouts import NOTHING, Known
from iqa_lightning.methods.tsn_ridge import PARTS, TSNRidge
from iqa_lightning.models.gating import LDAGate
from iqa_lightning.models.ridge import fit_ridge
from iqa_lightning.stream.schedule import Task
from tests.methods import steps

ALL = {"trained": 1.0, "own": 2.0, "frozen": 0.5}


def build(weights: dict[str, float] | None = None, **options: Any) -> TSNRidge:
    options = {"gate": partial(LDAGate, features="stages")} | options
    return steps.build(TSNRidge, tasks=("a", "b"), weights=weights or ALL, **options)


def material(t: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(t)
    return steps.images(t, 16) | {"mos": 40 + 7 * torch.randn(16, generator=generator)}


def learn(method: TSNRidge, t: int) -> TSNRidge:
    steps.learn(method, t)
    with evaluation_mode(method):
        method.on_task_end(Task(t, method.tasks[t - 1], (method.tasks[t - 1],)), [material(t)], [])
    return method


def z(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return (values - like.mean()) / like.std()


def test_a_score_is_the_sum_of_its_parts_each_on_one_scale() -> None:
    method, x, seen = learn(build(), 1), steps.images(9)["image"], material(1)
    y = z(seen["mos"].double().numpy(), seen["mos"].double().numpy())
    expected = np.zeros(len(x))
    with evaluation_mode(method), torch.no_grad():
        found = method.head_scores(x, NOTHING).score[:, 0]
        method.sets.use(1)
        trained = [method.score_of(image, 1).double().numpy() for image in (seen["image"], x)]
        expected += z(trained[1], trained[0])
        for weight, norms in ((2.0, 1), (0.5, 0)):
            method.sets.use(norms)
            train, new = (
                method.backbone.statistics(i).double().numpy() for i in (seen["image"], x)
            )
            scaler = StandardScaler().fit(train)
            model = SklearnRidge(alpha=fit_ridge(train, y).alpha).fit(scaler.transform(train), y)
            scores = [model.predict(scaler.transform(part)) for part in (train, new)]
            expected += weight * z(scores[1], scores[0])
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_an_earlier_task_never_changes_and_is_not_computed_again() -> None:
    method, x = learn(build(), 1), steps.images(9)["image"]
    before = steps.head_scores(method, {"image": x}).score
    learn(method, 2)
    after = steps.head_scores(method, {"image": x})
    torch.testing.assert_close(after.score[:, :1], before)
    assert after.gate.shape == (8, 2)
    assert method.final_heads() == ["a"]
    forwarded = method.images_forwarded
    with evaluation_mode(method), torch.no_grad():
        again = method.head_scores(x, Known({"a": before[:, 0]}, method.gate_stages(x)))
    torch.testing.assert_close(again.score, after.score, rtol=1e-4, atol=1e-4)
    assert method.images_forwarded - forwarded == 2 * len(x)  # the gate's pass and task b's


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone(part: str) -> None:
    weights = dict.fromkeys(PARTS, 0.0) | {part: 1.0}
    method = learn(build(weights), 1)
    with evaluation_mode(method), torch.no_grad():
        scores = method.head_scores(material(1)["image"], NOTHING).score[:, 0]
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    assert scores.std(correction=0).item() == pytest.approx(1, abs=1e-3)


def test_a_saved_method_scores_the_same() -> None:
    method, other, x = learn(learn(build(), 1), 2), build(), steps.images(9)
    other.load_state_dict(method.state_dict())
    one, two = steps.head_scores(method, x), steps.head_scores(other, x)
    assert torch.equal(one.score, two.score)
    assert torch.equal(one.gate, two.gate)


def test_what_it_refuses() -> None:
    for weights in ({"trained": 1.0}, dict.fromkeys(PARTS, 0.0), ALL | {"own": -1.0}):
        with pytest.raises(ValueError, match=r"method\.weights="):
            build(weights)
