"""EWC, MAS, SI and the L2 anchor: importances against their definitions, penalties, what they are
without them.
"""

from typing import Any

import pytest
import torch
from scipy.stats import norm

from iqa_lightning.continual.evaluation import evaluation_mode
from iqa_lightning.methods.finetune import MultiHead
from iqa_lightning.methods.lwf import LwF
from iqa_lightning.methods.regularized import EWC, MAS, SI, L2Anchor, Regularized
from iqa_lightning.models.bilinear import DBCNN
from iqa_lightning.models.gating import KMeansGate
from iqa_lightning.stream.schedule import Task
from tests.methods.steps import (
    ADAM,
    FINETUNE,
    WARMUP,
    at,
    build,
    head_scores,
    images,
    learn,
    start,
    step,
    trained,
)
from tests.methods.test_lwf import same
from tests.methods.test_tsn_iqa import NETWORKS

KINDS = {EWC: 1e4, MAS: 10.0, SI: 1e3, L2Anchor: 1.0}
kinds = pytest.mark.parametrize("kind", KINDS)


def rated(seed: int, count: int = 4) -> dict[str, Any]:
    """A batch with ratings."""
    generator = torch.Generator().manual_seed(seed)
    mos, std = torch.rand(2, count, generator=generator)
    return images(seed, count) | {"mos": mos, "mos_std": std}


def made(kind: type[MultiHead], **arguments: Any) -> Any:
    return build(kind, **({"weight": KINDS[kind]} if kind in KINDS else {}) | arguments)


def finish(method: Any, t: int, batches: list[dict[str, Any]] | None = None) -> Any:
    """The end of task t, of two batches."""
    with evaluation_mode(method):
        method.on_task_end(Task(t, "x", ("x",)), [], batches or [rated(1), rated(2)])
    return method


def naive(method: Any, kind: str) -> list[torch.Tensor]:
    """The definition: one pair at a time, gradient of the pair's own number by plain autograd, mean
    over the pairs.
    """
    parameters = list(method.backbone.parameters())
    totals, count = [torch.zeros_like(p) for p in parameters], 0
    for batch in (rated(1), rated(2)):
        for i, j in batch["pairs"].tolist():
            feature = method.backbone(batch["image"][[i, j]])
            q = (feature / feature.norm(dim=1, keepdim=True)) @ method.heads.weight[method.head()]
            p = torch.distributions.Normal(0.0, 1.0).cdf(q[0] - q[1])
            spread = float((batch["mos_std"][i] ** 2 + batch["mos_std"][j] ** 2) ** 0.5)
            g = float(norm.cdf(float(batch["mos"][i] - batch["mos"][j]) / spread))
            loss = 1 - (p * g + 1e-8).sqrt() - ((1 - p) * (1 - g) + 1e-8).sqrt()
            gradients = torch.autograd.grad(loss if kind == "ewc" else p**2, parameters)
            for total, gradient in zip(totals, gradients, strict=True):
                total.add_(gradient.square() if kind == "ewc" else gradient.abs())
            count += 1
    return [total / count for total in totals]


@pytest.mark.parametrize(("kind", "name"), [(EWC, "ewc"), (MAS, "mas")])
@pytest.mark.parametrize("network", NETWORKS)
def test_batched_importances_equal_one_pair_at_a_time(
    kind: type[Regularized], name: str, network: str
) -> None:
    method = made(kind, backbone=network, options=NETWORKS[network])
    start(method, 1)
    with evaluation_mode(method):
        expected = naive(method, name)
    finish(method, 1)
    scale = max(part.max().item() for part in expected)
    for found, wanted in zip(method.importance, expected, strict=True):
        torch.testing.assert_close(found.detach(), wanted, rtol=1e-2, atol=1e-4 * scale)
    before = [part.clone() for part in method.importance]
    finish(method, 1)  # importances add up
    assert all(
        torch.allclose(now, 2 * old) for now, old in zip(method.importance, before, strict=True)
    )


def test_ewc_may_use_the_target_of_the_training() -> None:
    found = []
    for target in ("soft", "training"):
        method = made(EWC, importance_target=target)
        start(method, 1)
        found.append(finish(method, 1).importance[0].detach())
    assert not torch.allclose(*found)
    with pytest.raises(ValueError, match=r"importance_target='hard'.*soft"):
        made(EWC, importance_target="hard")


def test_si_sums_the_steps() -> None:
    method = made(SI)
    start(method, 1)
    method.on_phase_start(at(FINETUNE, 1))
    first = [p.detach().clone() for p in method.backbone.parameters()]
    expected = [torch.zeros_like(p) for p in first]
    for seed in (1, 2, 3):
        old = [p.detach().clone() for p in method.backbone.parameters()]
        (optimizer,) = method.trainer.optimizers
        optimizer.zero_grad()
        method.loss(images(seed)).backward()
        gradients = [p.grad.clone() for p in method.backbone.parameters()]
        method.on_before_optimizer_step(optimizer)
        optimizer.step()
        method.on_train_batch_end(None, images(seed), 0)
        for total, g, before, now in zip(
            expected, gradients, old, method.backbone.parameters(), strict=True
        ):
            total.sub_(g * (now.detach() - before))
    finish(method, 1)
    parts = zip(method.importance, expected, first, method.backbone.parameters(), strict=True)
    for found, total, begin, end in parts:
        torch.testing.assert_close(
            found.detach(), total / ((end.detach() - begin) ** 2 + 0.1), rtol=1e-4, atol=1e-9
        )
    assert max(part.max().item() for part in method.importance) > 0
    start(method, 2)
    assert all(not part.any() for part in method.path)


@kinds
def test_the_first_task_is_multi_head_fine_tuning(kind: type[Regularized]) -> None:
    assert same(learn(made(kind), 1), learn(build(MultiHead), 1))


@kinds
def test_without_importance_it_is_multi_head_fine_tuning(kind: type[Regularized]) -> None:
    method, plain = finish(learn(made(kind), 1), 1), learn(build(MultiHead), 1)
    for part in method.importance:
        part.data.zero_()
    assert same(learn(method, 2), learn(plain, 2))


@kinds
def test_the_penalty_by_hand_and_on_the_backbone_only(kind: type[Regularized]) -> None:
    method = finish(learn(made(kind), 1), 1)
    for k, part in enumerate(method.importance):
        part.data.fill_(0.01 * k)
    anchors = [p.detach().clone() for p in method.backbone.parameters()]
    start(method, 2)
    method.on_phase_start(at(WARMUP, 2))
    assert trained(method) == {"heads.weight.1"}
    batch = images(3)
    assert torch.equal(method.loss(batch), MultiHead.loss(method, batch))
    method.on_phase_start(at(FINETUNE, 2, 1))
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1e-3)
    expected = sum(
        float((w.double() * (p.detach().double() - a.double()) ** 2).sum())
        for w, p, a in zip(method.importance, method.backbone.parameters(), anchors, strict=True)
    )
    added = method.loss(batch).item() - MultiHead.loss(method, batch).item()
    assert added == pytest.approx(KINDS[kind] * expected, rel=1e-3, abs=1e-6)
    assert added != 0


@kinds
def test_the_anchor_moves_on(kind: type[Regularized]) -> None:
    method = finish(learn(finish(learn(made(kind), 1), 1), 2), 2)
    parts = zip(method.anchor, method.backbone.parameters(), strict=True)
    assert all(torch.equal(anchor, parameter) for anchor, parameter in parts)
    assert kind is not L2Anchor or all(
        torch.equal(part, torch.ones_like(part)) for part in method.importance
    )


def test_a_diverged_training_names_the_parameter() -> None:
    method = finish(learn(made(L2Anchor), 1), 1)
    start(method, 2)
    method.on_phase_start(at(FINETUNE, 2, 1))
    method.backbone.network.conv_stem.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"network\.conv_stem\.weight"):
        method.loss(images(1))


@pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
def test_on_dbcnn_the_scnn_and_the_gate_stay_the_same_in_every_method() -> None:
    weights, features = [], []
    for kind in (MultiHead, LwF, EWC, SI, MAS):
        torch.manual_seed(0)
        network = DBCNN(None, name="test_resnet")
        before = {key: tensor.clone() for key, tensor in network.scnn.state_dict().items()}
        options = {"weight": KINDS.get(kind, 10.0)} if kind is not MultiHead else {}
        gate = lambda widths, tasks: KMeansGate(widths, tasks, clusters=4, restarts=1)  # noqa: E731
        method = kind(backbone=network, tasks=("a", "b"), optimizer=ADAM, gate=gate, **options)
        for t in (1, 2):
            start(method, t)
            for position in (at(WARMUP, t), at(FINETUNE, t)):
                method.on_phase_start(position)
                step(method, images(t))
            finish(method, t, [rated(1)])
        assert all(
            torch.equal(tensor, before[key])
            for key, tensor in method.backbone.scnn.state_dict().items()
        )
        with torch.no_grad():
            features.append(method.gate_stages(images(9)["image"])[0])
        weights.append(head_scores(method, images(9)).gate)
        assert method.readouts == ("latest", "oracle", "gated")
    assert all(torch.equal(features[0], other) for other in features)
    assert all(torch.equal(weights[0], other) for other in weights)
    assert features[0].shape == (8, 128)
    assert weights[0].min() < weights[0].max()
