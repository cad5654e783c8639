"""Meta-learning: the steps by hand on a linear model, rates against the golden values, sine waves."""

import copy
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from iqa_lightning.models.backbones import Backbone
from iqa_lightning.pretraining.metaiqa import (
    MetaPretraining,
    adapted_loss,
    decay_factor,
    squared_error,
)
from tests.walks import ROOT


def build(
    model: nn.Module | None = None, lr: float = 0.1, world_size: int = 1, **options: object
) -> tuple[MetaPretraining, SimpleNamespace]:
    """A learner, of a small model of its own if given, and its optimiser as Lightning wraps it."""
    torch.manual_seed(0)
    learner = MetaPretraining(
        Backbone("test_efficientnet"), partial(torch.optim.SGD, lr=lr), **options
    )
    if model is not None:
        learner.model, learner.worker, learner.start = (copy.deepcopy(model) for _ in range(3))
    descended = learner.model if learner.outer == "second_order" else learner.worker
    raw = torch.optim.SGD(descended.parameters(), lr=lr)
    learner.trainer = SimpleNamespace(world_size=world_size, optimizers=[raw])  # type: ignore[assignment]
    return learner, SimpleNamespace(step=raw.step, optimizer=raw)


class Line(nn.Module):
    """y = w x."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w * x.double()


def one(x: float, y: float) -> dict[str, torch.Tensor]:
    return {"image": torch.tensor([x]), "target": torch.tensor([y])}


EPISODES = [
    {"support": [one(1, s)], "query": [one(2, q)]} for s, q in ((1.0, 3.0), (-2.0, 1.0), (4.0, 0.5))
]


def steps(w: float, episode: dict, lr: float = 0.1) -> float:
    """Two gradient steps on (w x - y)^2 by hand."""
    for batch in (episode["support"][0], episode["query"][0]):
        x, y = float(batch["image"]), float(batch["target"])
        w -= lr * 2 * x * (w * x - y)
    return w


def test_outer_step_of_the_paper_is_the_mean_of_where_the_tasks_led() -> None:
    learner, optimizer = build(Line(0.5))
    learner.mean_step(EPISODES, optimizer)
    expected = 0.5 + np.mean([steps(0.5, episode) - 0.5 for episode in EPISODES])
    assert float(learner.model.w.detach()) == pytest.approx(expected, rel=1e-6)


def test_released_outer_steps() -> None:
    learner, optimizer = build(Line(0.5), outer="drift", tasks=2)
    meta, worker = 0.5, 0.5
    for t, episode in enumerate(EPISODES):
        if t % 2 == 0:
            start = meta
        worker = steps(start, episode)  # every task begins at the copy, which every second renews
        meta += (worker - start) / 2
        learner.released_task(episode, optimizer)
        assert float(learner.model.w.detach()) == pytest.approx(meta, rel=1e-6)
    learner, optimizer = build(Line(0.5), outer="interpolate", tasks=5)
    meta = 0.5
    for episode in EPISODES:
        meta += (steps(meta, episode) - meta) / 5
        learner.released_task(episode, optimizer)
        assert float(learner.model.w.detach()) == pytest.approx(meta, rel=1e-6)
    learner, optimizer = build(Line(0.5), outer="drift", world_size=2)
    with pytest.raises(ValueError, match="one device"):
        learner.released_task(EPISODES[0], optimizer)


def test_second_order_gradient_is_that_of_differences() -> None:
    episode = EPISODES[0]

    def value(w: float) -> float:
        moved = w - 0.1 * 2 * (w - 1.0)
        return (2 * moved - 3.0) ** 2

    model = Line(0.5)
    loss = adapted_loss(model, episode["support"][0], episode["query"][0], 0.1, squared_error)
    (gradient,) = torch.autograd.grad(loss, [model.w])
    assert float(loss.detach()) == pytest.approx(value(0.5))
    assert float(gradient) == pytest.approx(
        (value(0.5 + 1e-5) - value(0.5 - 1e-5)) / 2e-5, rel=1e-5
    )
    learner, optimizer = build(model, outer="second_order", inner_lr=0.1)
    learner.maml_step([episode], optimizer)
    assert float(learner.model.w.detach()) == pytest.approx(0.5 - 0.1 * float(gradient), rel=1e-6)


def test_moments_are_kept_or_dropped() -> None:
    for shared in (False, True):
        learner, _ = build(Line(0.5), shared_state=shared)
        raw = torch.optim.Adam(learner.worker.parameters(), lr=0.01)
        counts = []
        for episode in EPISODES:
            learner.mean_step([episode], SimpleNamespace(step=raw.step, optimizer=raw))
            counts.append(int(raw.state[learner.worker.w]["step"]))
        assert counts == ([2, 4, 6] if shared else [2, 2, 2])


def test_rates_are_golden() -> None:
    file = ROOT.parent / "shared" / "specs" / "golden.json"
    golden = {
        "meta_lr_resnet": {
            "5": 5.3144100000000005e-05,
            "10": 7.178979876918529e-06,
            "19": 7.617734804586654e-09,
        },
        "finetune_lr": {
            "19": 1.0737418240000008e-05,
            "29": 1.2379400392853842e-07,
            "39": 1.5324955408658973e-10,
        },
    }
    golden = json.loads(file.read_text())["metaiqa"] if file.is_file() else golden
    for epoch, rate in golden["meta_lr_resnet"].items():
        assert 1e-4 * decay_factor(int(epoch), 0.9, 2, compounding=True) == pytest.approx(
            rate, rel=1e-6
        )
    for epoch, rate in golden["finetune_lr"].items():
        assert 1e-4 * decay_factor(int(epoch), 0.8, 10, compounding=True) == pytest.approx(
            rate, rel=1e-6
        )
    assert decay_factor(19, 0.9, 2, compounding=False) == pytest.approx(0.9**9)


def test_rates_of_an_epoch_reach_both_groups() -> None:
    learner, _ = build(decay=0.5, every=1)
    optimizer = learner.configure_optimizers()
    learner.trainer = SimpleNamespace(optimizers=[optimizer], current_epoch=2)  # type: ignore[assignment]
    for _ in range(2):
        learner.on_train_epoch_start()
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
            [0.1 / 4, 1e-2 / 4]
        )


class Waves:
    """Sine waves of random amplitude and phase: ten points support, ten query."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def episode(self) -> dict[str, list[dict[str, torch.Tensor]]]:
        amplitude, phase = torch.rand(2, generator=self.generator).tolist()
        x = 10 * torch.rand(20, 1, generator=self.generator) - 5
        y = (0.1 + 4.9 * amplitude) * torch.sin(x + torch.pi * phase)
        halves = [{"image": x[part], "target": y[part]} for part in (slice(10), slice(10, 20))]
        return {"support": halves[:1], "query": halves[1:]}


def adapted_error(model: nn.Module, lr: float) -> float:
    """Mean query error over new waves after one step on the support."""
    waves = Waves()
    waves.generator.manual_seed(99)
    episodes = [waves.episode() for _ in range(200)]
    errors = [
        adapted_loss(model, e["support"][0], e["query"][0], lr, squared_error).item()
        for e in episodes
    ]
    return float(np.mean(errors))


@pytest.mark.parametrize("outer", ["mean", "second_order"])
def test_meta_learning_adapts_to_a_sine_in_one_step_better_than_joint_training(outer: str) -> None:
    def network() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1)
        )

    waves, joint = Waves(), network()
    optimizer = torch.optim.Adam(joint.parameters(), lr=3e-3)
    for _ in range(600):
        batches = [half for _ in range(5) for halves in waves.episode().values() for half in halves]
        batch = {key: torch.cat([b[key] for b in batches]) for key in ("image", "target")}
        optimizer.zero_grad()
        squared_error(joint, batch).backward()
        optimizer.step()
    lr = {"mean": 0.05, "second_order": 0.02}[outer]
    learner, wrapped = build(network(), lr=lr, outer=outer, inner_lr=lr)
    if outer == "second_order":
        raw = torch.optim.Adam(learner.model.parameters(), lr=3e-3)
        wrapped = SimpleNamespace(step=raw.step, optimizer=raw)
    for _ in range(600):
        episodes = [waves.episode() for _ in range(5)]
        (learner.maml_step if outer == "second_order" else learner.mean_step)(episodes, wrapped)
    best_joint = min(adapted_error(joint, rate) for rate in (0.0, 0.005, 0.01, lr, 0.05))
    assert adapted_error(learner.model, lr) < 0.9 * best_joint


def test_unknown_choices() -> None:
    with pytest.raises(ValueError, match=r"method\.outer='reptile'"):
        build(outer="reptile")
    with pytest.raises(ValueError, match="output='best'"):
        build(output="best")
