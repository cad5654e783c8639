"""The points in which presets and methods differed from the official codes, one test or more each."""

import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import nn

from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.images.transforms import View, evaluation_size, evaluation_view, random_view
from iqa_lightning.methods.base import sides
from iqa_lightning.methods.liqe import round_weights
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.models.clip_weights import is_torchscript, unwrapped
from iqa_lightning.models.gating import KMeansGate
from iqa_lightning.pretraining.contrastive import lr_factor
from iqa_lightning.pretraining.episodes import pieces
from iqa_lightning.pretraining.metaiqa import MetaPretraining, decay_factor
from iqa_lightning.pretraining.moco import view as content_view
from iqa_lightning.pretraining.photographs import Photographs
from iqa_lightning.stream.schedule import Phase
from iqa_lightning.stream.training_images import ReplayMemory
from tests.fidelity.test_right import GOLDEN
from tests.walks import ROOT, composed

CONF = ROOT / "conf"
ADAM = partial(torch.optim.Adam, lr=1e-3)


def phases(schedule: str, t: int, base: float = 2e-4) -> list[float]:
    """The learning rate of each epoch of task t."""
    node = OmegaConf.load(CONF / "schedule" / f"{schedule}.yaml")
    found = [Phase(str(name), **phase) for name, phase in node.items() if phase.epochs]
    return [
        base * phase.lr_at(e) for phase in found if phase.in_task(t) for e in range(phase.epochs)
    ]


# 1


@pytest.mark.parametrize("file", sorted((CONF / "backbone").glob("*.yaml")), ids=lambda f: f.stem)
def test_1_weights_of_imagenet_have_a_tag(file: Path) -> None:
    node = OmegaConf.load(file)
    if node.get("weights") == "imagenet":
        assert "." in node.name, "a name alone leaves the choice to timm"
        assert timm.get_pretrained_cfg(node.name) is not None
        if "resnet" in node.name:
            assert node.name.endswith(".tv_in1k")


# 2 and 16


@pytest.mark.parametrize("name", ["lwf", "ewc", "tsn_iqa", "jl"])
def test_2_presets_read_the_published_lists(name: str) -> None:
    cfg = composed(f"experiment=zhang2022/{name}", "paths.data=here")
    assert (cfg.stream.splits, cfg.stream.split_files) == ("files", "here/splits/biqa_cl")
    assert cfg.method.bn_pairs == "separate"
    if "gate" in cfg.method:
        assert cfg.method.gate.images_per_cluster == 1


def test_16_unique_has_its_own_protocol(tmp_path: Path) -> None:
    cfg = composed("experiment=unique/paper", "paths.data=here")
    assert (cfg.select_best, cfg.stream.train_on_val, cfg.stream.splits) == (False, True, "files")
    assert sum(phase.epochs for phase in cfg.schedule.values()) == 7, "up to epoch 6, from 0"
    rows = [f"{i}.png,{i}" for i in range(20)]
    (tmp_path / "ratings.csv").write_text("\n".join(["image,mos", *rows]))
    whole, plain = (CSVData(tmp_path, train_on_val=flag) for flag in (True, False))
    for data in (whole, plain):
        data.tabulate()
    assert len(whole.parts.train) == 16
    assert len(whole.parts.test) == 4
    assert set(whole.parts.train) == {*plain.parts.train, *plain.parts.val}
    assert whole.split_hash != plain.split_hash


# 3


def test_3_schedules_of_the_methods() -> None:
    golden = GOLDEN["schedules"]
    for schedule, task, name in (
        ("lwf_paper", 1, "biqa_cl"),
        ("lwf_paper", 2, "biqa_cl"),
        ("sh_cl_paper", 1, "biqa_cl"),
        ("sh_cl_paper", 2, "sh_cl_later_tasks"),
        ("sh_cl_paper", 6, "sh_cl_later_tasks"),
        ("jl_paper", 1, "biqa_cl_jl"),
        ("tsn_paper", 3, "tsn_main"),
    ):
        np.testing.assert_allclose(phases(schedule, task), golden[name]["lr"], rtol=1e-12)
    np.testing.assert_allclose(phases("unique_paper", 1, 1e-4), golden["unique"]["lr"], rtol=1e-12)
    chosen = {
        name: composed(f"experiment=zhang2022/{name}").method.continue_from
        for name in ("sh_cl", "jl_cl")
    }
    assert chosen == {"sh_cl": "latest", "jl_cl": "latest"}
    assert "continue_from" not in composed("experiment=zhang2022/sh_cl_replay").method


# 4, 5 and 6


class Toy(nn.Module):
    """A line with a norm, so that statistics can be told from parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5], dtype=torch.float64))
        self.norm = nn.BatchNorm1d(1, affine=False).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.norm(x.double()[:, None])
        return self.w * x.double()


def toy_tasks(name: str, count: int) -> list[dict]:
    rng = np.random.default_rng(len(name))

    def batch() -> dict:
        return {
            "image": torch.tensor(rng.normal(size=3)),
            "target": torch.tensor(rng.normal(size=3)),
        }

    return [
        {"dataset": name, "support": [batch(), batch()], "query": [batch(), batch()]}
        for _ in range(count)
    ]


def by_hand(w: float, tasks: list[dict], rules: dict[str, str], k: int, lr: float) -> tuple:
    """The released loop on numbers: shared weight, worker, and batches that the worker saw."""
    meta, temp, worker, before, visited, batches = w, w, w, None, 0, 0
    for task in tasks:
        rule = rules[task["dataset"]]
        if task["dataset"] != before:
            before, visited = task["dataset"], 0
        if visited % (k if rule == "drift" else 1) == 0:
            temp = meta
        worker = temp  # at every task
        for support, query in zip(task["support"], task["query"], strict=True):
            for one in (support, query):
                x, y = one["image"].numpy(), one["target"].numpy()
                worker -= lr * np.mean(2 * x * (worker * x - y))
                batches += 1
            meta += (worker - (temp if rule == "drift" else meta)) / k
        visited += 1
    return meta, worker, batches


@pytest.mark.parametrize("copies", ["parameters", "all"])
def test_4_and_5_released_loop(copies: str) -> None:
    rules = {"tid2013": "drift", "kadid10k": "interpolate"}
    learner = MetaPretraining(
        Backbone("test_efficientnet"), ADAM, outer=rules, tasks=5, shared_state=True, copies=copies
    )
    learner.model, learner.worker, learner.start = (Toy() for _ in range(3))
    learner.trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
    raw = torch.optim.SGD([learner.worker.w], lr=0.05)
    optimizer = SimpleNamespace(step=raw.step, optimizer=raw)
    tasks = [*toy_tasks("tid2013", 7), *toy_tasks("kadid10k", 5)]
    for task in tasks:
        learner.released_task(task, optimizer)
    meta, worker, batches = by_hand(0.5, tasks, rules, 5, 0.05)
    assert float(learner.model.w.detach()) == pytest.approx(meta, abs=1e-7)  # losses are float32
    assert float(learner.worker.w.detach()) == pytest.approx(worker, abs=1e-7)
    tracked = int(learner.worker.norm.num_batches_tracked)
    assert tracked == (batches if copies == "parameters" else 4), "of all tasks, or the last"


def test_6_fine_tuning_of_metaiqa() -> None:
    cfg = composed("experiment=metaiqa_finetune")
    assert cfg.method.bn_stats == "always"
    assert list(cfg.method.label_range) == [0, 100]
    rates = phases("metaiqa_paper", 1, 1e-4)
    expected = [1e-4 * decay_factor(epoch, 0.8, 10, compounding=True) for epoch in range(100)]
    np.testing.assert_allclose(rates, expected, rtol=1e-9)
    for epoch, rate in GOLDEN["metaiqa"]["finetune_lr"].items():
        assert rates[int(epoch)] == pytest.approx(rate, rel=1e-9)
    view = View(**{k: v for k, v in cfg.view.items() if k != "_target_"})
    image = torch.zeros(3, 300, 500, dtype=torch.uint8)
    image[:, :, 250:] = 200
    shown = evaluation_view(image, view)
    assert shown.shape == (3, 224, 224)
    assert evaluation_size(300, 500, view) == (224, 224)
    half = (shown[0].float() > 100).float().mean()
    assert float(half) == pytest.approx(0.5, abs=0.01), "all of the image, squeezed"
    assert random_view(image, view, 0.5, 0.5, 0.9).shape == (3, 224, 224)


def test_6_labels_and_batches_of_the_released_prior() -> None:
    cfg = composed("pretraining=metaiqa_released", config="pretrain")
    ranges = cfg.data.label_ranges
    assert [
        (x - ranges.kadid10k[0]) / (ranges.kadid10k[1] - ranges.kadid10k[0]) for x in (1, 4.93)
    ] == [
        pytest.approx((1 - 0.5) / 5),
        pytest.approx((4.93 - 0.5) / 5),
    ]
    assert [len(rows) for rows in pieces(np.arange(100), 75)] == [75, 25], "TID2013"
    assert [len(rows) for rows in pieces(np.arange(324), 75)] == [75, 75, 75, 75, 24], "KADID-10k"
    groups = [len(one.groups) for one in cfg.stream.sets.values()]
    assert groups == [24, 25]


FIRST_EPOCH = {"base/pairs.yaml", "metaiqa_cpu.yaml"}


def test_6_the_quirk_of_the_first_epoch_is_that_of_two_papers() -> None:
    """Which files of methods say it: what BIQA_CL and TSN-IQA share, and one small budget."""
    root = CONF / "method"
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.yaml")
        if "\nbn_stats: first_epoch" in path.read_text()
    }
    assert found == FIRST_EPOCH


# 7 and 8


def test_7_and_8_rates() -> None:
    assert lr_factor(0.999999, 4, "restarts", floor=1e-3) == pytest.approx(1e-3, abs=1e-4)
    inside = [lr_factor(e, 40, "cosine", 5.0, True, 1e-3) for e in (0, 2.5, 5, 20, 40)]
    at = [1e-3 + (1 - 1e-3) * 0.5 * (1 + np.cos(np.pi * e / 40)) for e in (5, 20, 40)]
    np.testing.assert_allclose(inside, [0, at[0] / 2, *at], atol=1e-12)


def test_8_lars_leaves_vectors_alone() -> None:
    """A step of a norm's weight: the plain one, where timm's own adapts it."""
    from timm.optim import Lars

    weight, gradient = torch.full((4,), 2.0), torch.full((4,), 0.5)
    for decay in (0.0, 1e-4):
        parameter = nn.Parameter(weight.clone())
        optimizer = Lars([{"params": [parameter], "weight_decay": decay}], lr=0.1)
        parameter.grad = gradient.clone()
        optimizer.step()
        step = float((weight - parameter.detach()).norm())
        plain = float((0.1 * gradient).norm())
        assert (step == pytest.approx(plain, rel=1e-6)) == (decay == 0.0)
    cfg = composed("pretraining=reiqa", config="pretrain")
    assert cfg.method.exempt_vectors
    assert cfg.backbone.weights is None


def test_7_arniqa_sees_64_embeddings() -> None:
    cfg = composed("pretraining=arniqa", config="pretrain")
    assert cfg.data.batch_size * (1 + cfg.method.half_scale) == 64
    assert (cfg.method.normalize_feature, cfg.method.crop_first, cfg.method.half) == (
        True,
        True,
        "crop",
    )
    assert cfg.method.floor * cfg.method.optimizer.lr == pytest.approx(1e-6)
    assert cfg.backbone.name == "resnet50.tv_in1k"


def test_8_views_of_the_content_branch() -> None:
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)
    one, same, other = (content_view(image, 32, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (3, 32, 32)
    assert one.dtype == torch.uint8
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# 9


def test_9_photographs_say_at_once_what_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.datasets.folders import noise

    for i in range(3):
        noise(i, 40, 50).save(tmp_path / f"{i}.png")
    options = {"folders": [str(tmp_path)], "embedded": False, "batch_size": 2}
    monkeypatch.setattr("iqa_lightning.pretraining.photographs.ram_budget", lambda: 100)
    with pytest.raises(ValueError, match=r"18,000 bytes once .* 400 bytes of memory are free"):
        Photographs(**options, cache="ram").setup()
    monkeypatch.setattr(
        "iqa_lightning.pretraining.photographs.shutil.disk_usage",
        lambda _: SimpleNamespace(free=17_000),
    )
    with pytest.raises(ValueError, match=r"18,000 bytes once .* has 17,000 left"):
        Photographs(**options, cache="disk", cache_dir=str(tmp_path / "cache")).setup()
    monkeypatch.undo()
    data = Photographs(**options, cache="disk", cache_dir=str(tmp_path / "cache"))
    data.setup()
    assert data.images is not None
    assert data.images.cache.kind == "disk"


# 10


def test_10_as_many_centroids_as_there_are(recwarn: pytest.WarningsRecorder) -> None:
    points = [torch.randn(130, 4, generator=torch.Generator().manual_seed(0))]
    for cap, wanted in ((1, 128), (4, 32)):
        gate = KMeansGate([4], 1, images_per_cluster=cap, restarts=1, stages=1)
        gate.fit(1, points)
        assert int(gate.counts[0]) == wanted


# 11


def test_11_pairs_pass_side_by_side() -> None:
    """Two batches to the norms, two updates: as passing the sides one after the other."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    pairs = torch.tensor([[0, 3], [1, 4], [2, 5]])
    one, other = (Backbone("test_efficientnet") for _ in range(2))
    other.load_state_dict(one.state_dict())
    with one.in_passes(sides(pairs, 6)):
        found = one(images)
    expected = torch.cat([other(images[:3]), other(images[3:])])
    torch.testing.assert_close(found, expected)
    for mine, its in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, its)
    assert not sides(torch.combinations(torch.arange(4), 2), 4), "no sides where all meet all"
    assert not sides(torch.tensor([[0, 1], [0, 2]]), 3), "nor where one is in two pairs"


# 12 and 13


def test_13_memory_of_each_task() -> None:
    sizes = [parts[0] for parts in GOLDEN["split_sizes_session1"].values()]
    counts = ReplayMemory(1000, memory_per_task=True).counts(sizes)
    assert np.cumsum(counts).tolist()[:5] == GOLDEN["replay_official_sh_cl"]
    assert sum(ReplayMemory(1000).counts(sizes)) <= 1000


# 14


def test_14_weights_kept_in_float16() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1 + 1e-5)
    before = [parameter.detach().numpy().copy() for parameter in net.parameters()]
    round_weights(net)
    for k, (old, new) in enumerate(zip(before, net.parameters(), strict=True)):
        expected = old.astype(np.float16).astype(np.float32) if k < 2 else old
        np.testing.assert_array_equal(new.detach().numpy(), expected)
    assert composed("method=liqe").method.weights_dtype == "float32"


# 15


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_15_torchscript_is_read(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    torch.jit.script(module).save(tmp_path / "ViT.pt")
    assert is_torchscript(tmp_path / "ViT.pt")
    found = unwrapped(tmp_path / "ViT.pt")
    assert all(torch.equal(found[k], v) for k, v in module.state_dict().items())
    torch.save(module.state_dict(), tmp_path / "plain.pt")
    assert zipfile.is_zipfile(tmp_path / "plain.pt")
    assert not is_torchscript(tmp_path / "plain.pt")
    assert unwrapped(tmp_path / "plain.pt").keys() == module.state_dict().keys()


# 17


def test_17_heads_alone() -> None:
    method = TSNIQA(
        backbone=Backbone("test_resnet"), tasks=["a", "b"], optimizer=ADAM, trains="head"
    )
    assert method.body_parameters() == []
    assert method.added_parameters() == method.backbone.width
    assert len(method.configure_optimizers().param_groups) == 2
    cfg = composed("experiment=zhang2022/tsn_iqa_head_only")
    assert cfg.method.trains == "head"


# 18


def test_18_scores_are_float32() -> None:
    assert composed("experiment=zhang2022/lwf").trainer.precision == "32-true"
    assert composed("experiment=zhang2022/lwf", "trainer=gpu").trainer.precision == "bf16-mixed"
