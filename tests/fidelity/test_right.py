"""What equals the official codes to float precision, and must go on to: golden numbers (`golden.json`, inputs and
outputs) and formulas written out in NumPy.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from scipy.special import erf
from torch.nn import functional as F

from iqa_lightning.images.transforms import count, fixed_indices, resized_size
from iqa_lightning.losses.contrastive import nt_xent, quality_contrast
from iqa_lightning.losses.distillation import distillation_loss
from iqa_lightning.losses.fidelity import fidelity, pair_loss, preference
from iqa_lightning.losses.importance import ewc_slopes, mas_slopes, si_importance
from iqa_lightning.losses.multitask import distortion_loss, dwa_weights, quality_loss, scene_loss
from iqa_lightning.losses.thurstone import deviation_hinge, thurstone
from iqa_lightning.methods.liqe import prompts
from iqa_lightning.metrics.liqe_labels import CLASS_OF, DISTORTIONS, SCENES
from iqa_lightning.metrics.transfer import mpi, mpsi, mpsr, msi, msrcc
from iqa_lightning.models.bilinear import DBCNN
from iqa_lightning.models.gating import KMeansGate
from iqa_lightning.stream.schedule import Phase
from iqa_lightning.stream.training_images import ReplayMemory
from tests.walks import ROOT

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden.json").read_text())
EPS = 1e-8


def phi(x: Any) -> Any:
    return 0.5 * (1 + erf(np.asarray(x) / np.sqrt(2)))


def loss(p: Any, y: Any) -> Any:
    p, y = np.asarray(p, dtype=float), np.asarray(y, dtype=float)
    return 1 - np.sqrt(p * y + EPS) - np.sqrt((1 - p) * (1 - y) + EPS)


def t(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


@pytest.mark.parametrize("case", GOLDEN["fidelity_loss"]["cases"])
def test_fidelity_loss(case: dict[str, float]) -> None:
    p = t([case["p"]]) if "p" in case else preference(t([case["delta"]]))
    assert float(fidelity(p, t([case["y"]]))) == pytest.approx(case["loss"], abs=1e-6)


@pytest.mark.parametrize("case", GOLDEN["fidelity_loss"]["batch_all_pairs"])
def test_fidelity_loss_of_all_pairs_of_a_set(case: dict[str, list[float]]) -> None:
    n = len(case["q"])
    pairs = torch.combinations(torch.arange(n), 2)
    mos = np.array(case["mos"], dtype=float)
    target = t([0.5 + 0.5 * np.sign(mos[i] - mos[j]) for i, j in pairs.tolist()])
    found = quality_loss(t(case["q"]), pairs, target, torch.zeros(n, dtype=torch.long), "phi")
    assert float(found) == pytest.approx(case["loss"], abs=1e-6)


def test_lwf_loss_and_its_gradient() -> None:
    """Mean over the pairs, summed over the old heads, soft targets of the teacher."""
    rng = np.random.default_rng(0)
    new, old = rng.normal(size=(2, 6, 3))
    pairs = np.array([[0, 3], [1, 4], [2, 5]])
    p, g = (phi(v[pairs[:, 0]] - v[pairs[:, 1]]) for v in (new, old))
    scores = t(new).requires_grad_()
    found = distillation_loss(scores, t(old), torch.from_numpy(pairs))
    assert float(found.detach()) == pytest.approx(loss(p, g).mean(axis=0).sum(), abs=1e-6)
    found.backward()
    density = np.exp(-((new[pairs[:, 0]] - new[pairs[:, 1]]) ** 2) / 2) / np.sqrt(2 * np.pi)
    slope = -g / (2 * np.sqrt(p * g + EPS)) + (1 - g) / (2 * np.sqrt((1 - p) * (1 - g) + EPS))
    expected = np.zeros_like(new)
    expected[pairs[:, 0]] += slope * density / 3
    expected[pairs[:, 1]] -= slope * density / 3
    np.testing.assert_allclose(scores.grad.numpy(), expected, atol=1e-5)  # type: ignore[union-attr]


def test_importances() -> None:
    """EWC by the soft target; MAS by the squared preference; SI with its damping."""
    delta = np.array([-1.2, 0.1, 0.7])
    target, p = np.array([0.3, 0.5, 1.0]), phi(delta)
    density = np.exp(-(delta**2) / 2) / np.sqrt(2 * np.pi)
    slope = -target / (2 * np.sqrt(p * target + EPS))
    slope += (1 - target) / (2 * np.sqrt((1 - p) * (1 - target) + EPS))
    np.testing.assert_allclose(ewc_slopes(t(delta), t(target)), slope * density, rtol=1e-4)
    np.testing.assert_allclose(mas_slopes(t(delta)), 2 * p * density, rtol=1e-4)
    path, change = np.array([0.2, -0.1]), np.array([0.5, 0.01])
    expected = path / (change**2 + 0.1)
    found = si_importance(t(path), t(change), 0.1).numpy()
    np.testing.assert_allclose(found[:1], expected[:1], rtol=1e-5)


def test_replay_counts() -> None:
    memory = ReplayMemory(GOLDEN["replay"]["capacity"])
    sizes = [2000] * 6
    kept = [memory.counts(sizes[:n])[0] for n in range(1, 7)]
    assert kept == GOLDEN["replay"]["per_task"]
    assert [round(32 * memory.share(n)) for n in (1, 2, 3, 5)] == [32, 16, 8, 8]


def test_gate_weights() -> None:
    case = GOLDEN["gate"]
    gate = KMeansGate([4], len(case["distances"]), temperature=case["temperature"], stages=1)
    nearness = -case["temperature"] * t([[case["distances"]]])
    np.testing.assert_allclose(gate.weigh(nearness)[0], case["weights"], atol=1e-6)


@pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
def test_scores_and_gate_features_of_the_two_streams() -> None:
    """Outer product over positions, no root, unit norm; the gate reads the S-CNN's mean."""
    net = DBCNN(None, name="test_resnet").eval()
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        last = net.network.forward_features(net.prepare(image))
        other = net.scnn(image)
        resized = F.interpolate(other, last.shape[2:], mode="bilinear", align_corners=True)
        a, b = last.flatten(2).numpy(), resized.flatten(2).numpy()
        outer = np.einsum("bcp,bdp->bcd", a, b).reshape(2, -1) / a.shape[-1]
        expected = outer / np.linalg.norm(outer, axis=1, keepdims=True)
        np.testing.assert_allclose(net(image), expected, atol=1e-5)
        np.testing.assert_allclose(net.scnn.stages(image)[-1], other.mean(dim=(2, 3)), atol=1e-6)


def test_unique() -> None:
    case = GOLDEN["unique"]
    f, sigma = t(case["f"]), t(case["sigma"])
    p = thurstone(f, sigma, torch.tensor([[0, 1]]))
    assert float(p) == pytest.approx(case["p"], abs=1e-6)
    assert float(fidelity(p, t([case["target"]]))) == pytest.approx(case["fidelity"], abs=1e-6)
    for one in case["hinge"]:
        std = t([2.0, 1.0] if one["std_order"] == "s1>s2" else [1.0, 2.0])
        found = deviation_hinge(t(one["sigma"]), std, torch.tensor([[0, 1]]), case["hinge_margin"])
        assert float(found) == pytest.approx(one["loss"], abs=1e-6)


def test_liqe_losses() -> None:
    case = GOLDEN["liqe"]["scene_loss"]
    target = t([[float(k in case["labels"]) for k in range(9)]])
    assert float(scene_loss(t([case["p"]]), target)) == pytest.approx(case["loss"], abs=1e-6)
    one, perfect = GOLDEN["liqe"]["distortion_loss"]
    found = distortion_loss(t([one["p"]]), torch.tensor([one["label"]]))
    assert float(found) == pytest.approx(one["loss"], abs=1e-6)
    found = distortion_loss(torch.eye(11)[:1], torch.tensor([0]))
    assert float(found) == pytest.approx(perfect["loss"], abs=1e-6)


def test_liqe_weights_schedule_sentences_and_windows() -> None:
    golden = GOLDEN["liqe"]
    weights = dwa_weights(t(golden["dwa"]["loss_t_minus_1"]), t(golden["dwa"]["loss_t_minus_2"]))
    np.testing.assert_allclose(weights, golden["dwa"]["weights"], atol=1e-6)
    node = OmegaConf.load(ROOT / "conf" / "schedule" / "liqe_paper.yaml")
    phase = Phase("finetune", **node.finetune)
    rates = [5 * phase.lr_at(epoch) for epoch in range(10)]
    np.testing.assert_allclose(rates, golden["lr_per_epoch_1e6"], atol=6e-4)
    sentences = prompts(SCENES, DISTORTIONS)
    flat = golden["flat_index"]
    assert len(sentences) == golden["prompt_counts"]["full"]
    expected = "a photo of a night with blur artifacts, which is of fair quality"
    assert sentences[flat["index"]] == expected
    counts = [len(prompts(s, d)) for s, d in ((SCENES, ()), ((), DISTORTIONS), ((), ()))]
    assert counts == [45, 55, 5]
    assert len(CLASS_OF) == 33
    for one in golden["windows"]:
        assert count(one["h"], one["w"], 224) == one["n"]
        assert fixed_indices(one["n"], 15)[1] == one["step"]


def test_contrastive_losses() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(6, 4))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    likeness = np.exp(z @ z.T / 0.1)
    np.fill_diagonal(likeness, 0.0)
    expected = np.mean([-np.log(likeness[i, (i + 3) % 6] / likeness[i].sum()) for i in range(6)])
    assert float(nt_xent(t(z[:3]), t(z[3:]), 0.1)) == pytest.approx(expected, rel=1e-5)
    queue = rng.normal(size=(5, 4))
    queue /= np.linalg.norm(queue, axis=1, keepdims=True)
    positive = np.exp((z[:3] * z[3:]).sum(axis=1) / 0.2)
    far = np.exp(z[:3] @ queue.T / 0.2).sum(axis=1)
    found = quality_contrast(t(z[:3]), t(z[3:]), torch.zeros(3, 0, 4), t(queue), 0.2)
    assert float(found) == pytest.approx(-np.log(positive / (positive + far)).mean(), rel=1e-5)


def test_levels_of_arniqa() -> None:
    node = OmegaConf.load(ROOT / "conf" / "degradations" / "arniqa.yaml")
    weights = np.array(node.level_weights)
    np.testing.assert_allclose(
        weights / weights.sum(), GOLDEN["arniqa"]["level_probabilities"], atol=6e-4
    )


def test_measures() -> None:
    case = GOLDEN["metrics_t2"]
    start = [np.nan, np.nan]  # the row before the first task
    srcc = np.array([start, *([np.nan if v is None else v for v in row] for row in case["S"])])
    stability = np.array([start, [1.0, np.nan], [case["srcc_q2_q1_on_set1"], 1.0]])
    learnt = [1, 2]
    assert msrcc(srcc, learnt) == pytest.approx(case["mSRCC"])
    assert mpi(srcc, learnt) == pytest.approx(case["mPI"])
    assert msi(stability, learnt) == pytest.approx(case["mSI"])
    assert mpsi(case["mPI"], case["mSI"]) == pytest.approx(case["mPSI"])
    assert mpsr(srcc, learnt) == pytest.approx(case["MPSR"])


def test_adaptive_resize() -> None:
    """Shorter side 768 where both are longer; the other cut off to whole pixels."""
    assert resized_size(1704, 2272, 768) == (768, int(768 * 2272 / 1704))
    assert resized_size(768, 1024, 768) == (768, 1024)
    assert resized_size(500, 2000, 768) == (500, 2000)


def test_pair_loss_has_the_binary_target_by_default() -> None:
    pairs, q = torch.tensor([[0, 1]]), t([0.4, 1.0])
    assert float(pair_loss(q, pairs, t([0.0]))) == pytest.approx(loss(phi(-0.6), 0.0), abs=1e-6)
