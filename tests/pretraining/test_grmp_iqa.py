"""Meta-learning of prompts: the steps by hand, groups and episodes, and the yaml."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from iqa_lightning.methods.grmp_iqa import GRMPIQA
from iqa_lightning.models.prompted_clip import PREFIX
from iqa_lightning.pretraining.episodes import Episodes, Shape
from iqa_lightning.pretraining.grmp_iqa import GroupSampler, PromptEpisodes, PromptPretraining
from tests.models.clips import SIDE, tiny
from tests.walks import composed


def build(lr: float = 0.1, **options: Any) -> tuple[PromptPretraining, SimpleNamespace]:
    """A learner without dropout, and its optimiser as Lightning wraps it."""
    learner = PromptPretraining(
        tiny(), partial(torch.optim.Adam, lr=lr), visual=3, dropout=0.0, **options
    )
    raw = learner.configure_optimizers()
    return learner, SimpleNamespace(step=raw.step, optimizer=raw)


def batch(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (4, 3, SIDE, SIDE), generator=generator).to(torch.uint8)
    return {"image": image, "target": torch.rand(4, generator=generator)}


def episode(seed: int, tasks: int = 1, group: int = 0) -> dict[str, Any]:
    return {"support": [batch(seed)], "query": [batch(seed + 50)], "tasks": tasks, "group": group}


def values(prompts: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in prompts.state_dict().items()}


def test_one_task_is_reptile() -> None:
    """Theta + rate * (theta after two steps from Theta - Theta), the two steps in a plain loop."""
    learner, optimizer = build(reset_inner=True, outer_lr=0.25)
    start = values(learner.prompts)
    copy, _ = build()
    copy.worker.load_state_dict(start)
    adam = torch.optim.Adam(copy.worker.parameters(), lr=0.1)
    for part in (batch(1), batch(51)):
        adam.zero_grad()
        copy.loss(copy.worker, part).backward()
        adam.step()
    learner.learn(episode(1), optimizer)
    for name, value in values(learner.prompts).items():
        moved = start[name] + 0.25 * (copy.worker.state_dict()[name] - start[name])
        torch.testing.assert_close(value, moved, msg=name)
        assert not torch.equal(value, start[name]), name


@pytest.mark.parametrize("reset", [False, True])
def test_group_moves_by_the_mean_of_its_tasks(reset: bool) -> None:
    learner, optimizer = build(reset_inner=reset, outer_lr=0.5)
    start, workers = values(learner.prompts), []
    for seed in (1, 2, 3):
        assert all(torch.equal(v, start[k]) for k, v in values(learner.prompts).items())
        learner.learn(episode(seed, tasks=3), optimizer)
        workers.append(values(learner.worker))
    for name, value in values(learner.prompts).items():
        mean = sum(worker[name] - start[name] for worker in workers) / 3
        torch.testing.assert_close(value, start[name] + 0.5 * mean)
    before = values(learner.worker if not reset else learner.prompts)
    learner.learn({"support": [], "query": []} | {"tasks": 2, "group": 0} | only_one(), optimizer)
    assert not torch.equal(values(learner.worker)["context"], before["context"])


def only_one() -> dict[str, Any]:
    return {"support": [batch(9)], "query": [batch(10)]}


@pytest.mark.parametrize(
    ("adam", "expected"),
    [("carry", [2, 4, 6, 8]), ("per_task", [2, 2, 2, 2]), ("official", [2, 4, 2, 2])],
)
def test_when_moments_are_forgotten(adam: str, expected: list[int]) -> None:
    learner, optimizer = build(adam=adam)
    counts = []
    for group in (0, 0, 1, 1):
        learner.learn(episode(1, tasks=2, group=group), optimizer)
        counts.append(int(optimizer.optimizer.state[learner.worker.context]["step"]))
    assert counts == expected


def test_loss_falls_and_clip_stands_still() -> None:
    """A toy: random towers and images, the same ones again and again."""
    learner, optimizer = build(lr=0.01)
    before = {name: value.clone() for name, value in learner.clip.state_dict().items()}
    losses = [float(learner.learn(episode(1), optimizer)) for _ in range(25)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[k]) for k, value in learner.clip.state_dict().items())


def test_weights_start_the_method(tmp_path: Any) -> None:
    from safetensors.torch import save_file

    learner, optimizer = build()
    learner.learn(episode(1), optimizer)
    save_file(learner.weights(), tmp_path / "weights.safetensors")
    method = GRMPIQA(
        backbone=tiny(),
        tasks=["a"],
        optimizer=torch.optim.SGD,
        prior=str(tmp_path / "weights.safetensors"),
        visual=3,
    )
    for name, value in learner.weights().items():
        assert torch.equal(method.prompts[0].state_dict()[name.removeprefix(PREFIX)], value)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"method\.adam='sometimes'"):
        build(adam="sometimes")
    learner, _ = build()
    learner.trainer = SimpleNamespace(world_size=2)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="one device"):
        learner.on_train_epoch_start()


class Part(Dataset[dict[str, Any]]):
    """Grey images whose shade is their position."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": torch.full((3, 8, 8), index, dtype=torch.uint8)}


@given(st.integers(5, 60), st.integers(1, 20), st.integers(1, 20), st.integers(0, 3))
def test_episodes_show_all_support_images_once(
    images: int, size: int, other: int, epoch: int
) -> None:
    shape = Shape(8, 8, size, other, 1, 0.8)
    names = [[str(i) for i in range(images)]] * 2
    targets = [torch.arange(images) / images] * 2
    whole = PromptEpisodes(Episodes([Part(), Part()], names, targets, shape, 0), [0, 1])  # type: ignore[list-item]
    item = whole[1, epoch, 0]
    assert (item["group"], item["tasks"]) == (1, 1)
    support = torch.cat([b["target"] for b in item["support"]])
    query = torch.cat([b["target"] for b in item["query"]])
    assert len(item["support"]) == len(item["query"])
    assert all(len(b["target"]) <= size for b in item["support"])
    assert (
        len(set(support.tolist())) == len(support) == min(max(1, round(0.8 * images)), images - 1)
    )
    assert not set(support.tolist()) & set(query.tolist())
    shown = torch.cat([b["image"][:, 0, 0, 0] for b in item["support"]]).float() / images
    np.testing.assert_allclose(shown, support, atol=1e-6)
    again = whole[1, epoch, 0]
    assert torch.equal(torch.cat([b["target"] for b in again["support"]]), support)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 5))
def test_groups_come_one_after_another(groups: list[int], epoch: int) -> None:
    keys = [key for keys in GroupSampler(groups, 0, epoch) for key in keys]
    assert sorted(task for task, _, _ in keys) == list(range(len(groups)))
    visited = [groups[task] for task, _, _ in keys]
    assert visited == sorted(visited)
    assert len(GroupSampler(groups, 0, epoch)) == len(keys)


def test_yaml_builds() -> None:
    """The yaml over a small CLIP: an epoch of all tasks of the embedded distortions."""
    from omegaconf import OmegaConf

    from tests.walks import ROOT

    cfg = OmegaConf.load(ROOT / "conf" / "pretraining" / "grmp_iqa.yaml")
    cfg.seed, cfg.method.visual = 0, 3
    learner = instantiate(cfg.method, backbone=tiny(), _convert_="all")
    assert learner.configure_optimizers().defaults["lr"] == 1e-4
    stream = composed("stream=demo_distortions", "view.resize=0")
    sets = instantiate(stream.stream, _partial_=True, _convert_="all")(
        phases=[SimpleNamespace(name="x", epochs=1, trains="all", fixed_crops=None, in_task=bool)]
    ).data
    data = instantiate(cfg.data, _partial_=True, _convert_="all")(data=list(sets.values()))
    assert len(data.data) == 8
    assert len(set(data.groups)) == len({type(one) for one in sets.values()})
