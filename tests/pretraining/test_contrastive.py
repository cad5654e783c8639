"""Contrastive pre-training: what attracts what, from which patches, with which keys."""

from functools import partial

import numpy as np
import pytest
import torch

from iqa_lightning.images.degradations.chain import ChainSpace, degrade
from iqa_lightning.images.degradations.kinds import KINDS
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.pretraining import arniqa
from iqa_lightning.pretraining.arniqa import ARNIQA
from iqa_lightning.pretraining.contrastive import Contrastive, lr_factor
from iqa_lightning.pretraining.qpt import QPT

CHAINS = ChainSpace(
    {"tone": ["darken", "brighten"], "noise": ["gaussian_noise"], "blur": ["gaussian_blur"]},
    p_skip=0.2,
)
SGD = partial(torch.optim.SGD, lr=0.1)


def build(kind: type[Contrastive] = QPT, **options: object) -> Contrastive:
    torch.manual_seed(0)
    settings = {
        "backbone": Backbone("test_efficientnet"),
        "optimizer": SGD,
        "chains": CHAINS,
        "patch": 32,
        "width": 16,
    }
    if kind is QPT:
        settings |= {"queue": 12, "momentum": 0.9}
    return kind(**(settings | options))


def photographs(count: int = 4) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Images of two sizes and their numbers."""
    generator = torch.Generator().manual_seed(1)
    sizes = [(40 + 8 * (i % 2), 56) for i in range(count)]
    images = [
        torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes
    ]
    return images, torch.arange(10, 10 + count)


def test_patches_are_cut_from_the_whole_degraded_image() -> None:
    method = build()
    images, index = photographs()
    query, key = method.patches(images, method.draws(index))
    assert query.shape == key.shape == (8, 3, 32, 32)
    assert query.dtype == torch.uint8
    for i, draw in enumerate(method.draws(index)):
        chains = method.versions_of(draw)
        assert len(set(chains)) == 2
        seeds = draw.integers(2**63, size=2)
        for k in range(2):
            whole = degrade(images[i][None], [chains[k]], [int(seeds[k])])[0]
            windows = whole.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
            for patch in (query[2 * i + k], key[2 * i + k]):
                assert (windows == patch).flatten(2).all(dim=2).any(), (
                    "a window of the degraded image, unchanged"
                )


def test_an_image_is_drawn_alike_in_any_batch() -> None:
    method = build()
    images, index = photographs()
    query, _ = method.patches(images, method.draws(index))
    alone, _ = method.patches(images[2:3], method.draws(index[2:3]))
    assert torch.equal(alone, query[4:6])


def test_loss_is_the_formula_over_image_other_degradation_and_queue() -> None:
    method = build(negatives="joint").eval()
    images, index = photographs()
    method.queue_index[:5] = torch.tensor(
        [3, 10, 11, 99, 98]
    )  # two of them show images of this batch
    queue, queue_index = method.queue.clone().double().numpy(), method.queue_index.tolist()
    with torch.no_grad():
        loss = method.loss(images, index)
        query, key = method.patches(images, method.draws(index))
        u, k = (
            network(patches).double().numpy()
            for network, patches in ((method.encoder, query), (method.key_encoder, key))
        )
    losses = []
    for i in range(8):
        positive = np.exp(u[i] @ k[i] / 0.2)
        other = np.exp(u[i] @ k[i ^ 1] / 0.2)
        far = [
            np.exp(u[i] @ q / 0.2)
            for q, j in zip(queue, queue_index, strict=True)
            if j >= 0 and j != int(index[i // 2])
        ]
        losses.append(-np.log(positive / (positive + other + sum(far))))
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-4)
    assert torch.allclose(method.queue[:8].double(), torch.from_numpy(k), atol=1e-5), (
        "the newest keys come first"
    )
    assert method.queue_index.tolist() == [10, 10, 11, 11, 12, 12, 13, 13, *queue_index[:4]]


def test_key_encoder_follows_and_is_not_trained() -> None:
    method = build()
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in method.key_encoder.parameters()]
    method.follow()
    for old, slow, fast in zip(
        before, method.key_encoder.parameters(), method.encoder.parameters(), strict=True
    ):
        assert torch.allclose(slow, 0.9 * old + 0.1 * fast, atol=1e-6)
    method.loss(*photographs()).backward()
    assert all(p.grad is None for p in method.key_encoder.parameters())
    assert all(p.grad is not None for p in method.encoder.parameters())
    held = {id(p) for group in method.configure_optimizers().param_groups for p in group["params"]}
    assert held == {id(p) for p in method.encoder.parameters()}


def test_it_learns() -> None:
    method = build(queue=64, patch=24).train()
    optimizer = method.configure_optimizers()
    images, index = photographs(8)
    losses = []
    for _ in range(25):
        loss = method.loss(images, index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    # the first steps have an empty queue, so compare from where it is full
    assert np.mean(losses[-5:]) < np.mean(losses[5:10]) - 0.05


def test_reiqa_has_distinct_kinds_one_geometry_and_swaps() -> None:
    space = ChainSpace(
        {"all": [k for k in KINDS if k not in ("jpeg2000", "median_filter")]},
        lengths=[1],
        orders=[1],
    )
    method = build(
        chains=space,
        versions=11,
        pristine=True,
        overlap=(0.1, 0.3),
        same_negatives=False,
        half_scale=True,
    )
    images, index = photographs(1)
    images = [images[0].repeat(1, 2, 2)[:, :60, :60]]
    (draw,) = method.draws(index)
    chains = method.versions_of(draw)
    kinds = [chain[0].kind for chain in chains[1:]]
    assert chains[0] == ()
    assert len(kinds) == len(set(kinds)) == 11
    query, key = method.patches(images, method.draws(index))
    windows = images[0].unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
    places = [torch.nonzero((windows == p).flatten(2).all(dim=2))[0] for p in (query[0], key[0])]
    shared = (32 - (places[0] - places[1]).abs()).clamp_min(0).prod() / 32**2
    assert 0.1 <= float(shared) <= 0.3
    tables = dict.fromkeys(("darken", "brighten"), [0.0] * 5)  # which do nothing
    nothing = ChainSpace({"all": ["darken", "brighten"]}, lengths=[1], tables=tables)
    quiet = build(chains=nothing, versions=2, pristine=True, overlap=(0.1, 0.3))
    query, key = quiet.patches(images, quiet.draws(index))
    assert torch.equal(query[0], key[1]), "every second version has the patches swapped"
    assert torch.equal(query[0], query[2])
    assert method.loss(images, index).isfinite()
    assert len(method.scales(query)) == 2
    assert method.scales(query)[1].shape[-1] == 16


def test_arniqa_pairs_different_images_of_one_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list = []

    def spy(images, chains, seeds):
        seen.append((chains, seeds))
        return images

    monkeypatch.setattr(arniqa, "degrade_each", spy)
    method = build(ARNIQA, half_scale=True, pristine=0.0, temperature=0.1).eval()
    images, index = photographs(5)
    loss = method.loss(images, index)
    (chains, seeds) = seen[0]
    assert [chains[0], chains[2]] == [chains[1], chains[3]]
    assert chains[0] != chains[2]
    assert len(set(seeds)) == len(chains) == 4, "the odd image is left out"
    assert loss.isfinite()
    seen.clear()
    build(ARNIQA, pristine=1.0).loss(images, index)
    assert seen[0][0] == [(), (), (), ()]


def test_learning_rates() -> None:
    assert [lr_factor(at, 4, "cosine") for at in (0, 2, 4)] == pytest.approx([1, 0.5, 0])
    assert [lr_factor(at, 25, "cosine", 5) for at in (0, 2.5, 5, 15)] == pytest.approx(
        [0, 0.5, 1, 0.5]
    )
    restarts = [lr_factor(at, 10, "restarts") for at in (0, 0.5, 1, 2, 3, 5, 7)]
    assert restarts == pytest.approx([1, 0.5, 1, 0.5, 1, 0.5, 1])
    assert lr_factor(3, 4, "constant") == 1


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"method\.schedule='linear'"):
        build(schedule="linear")
    with pytest.raises(ValueError, match=r"method\.negatives='none'"):
        build(negatives="none")
    images, index = photographs()
    with pytest.raises(ValueError, match="40x56 pixels holds no patch of 64"):
        build(patch=64).loss(images, index)


def test_embeddings_have_unit_norm() -> None:
    method = build().eval()
    z = method.encoder(torch.stack(photographs(2)[0][::2] * 2))
    assert torch.allclose(z.norm(dim=1), torch.ones(2), atol=1e-5)
