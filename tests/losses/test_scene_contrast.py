"""GRepQ's contrast: the similarity of versions, invariances, and the fragments that are compared."""

import numpy as np
import piq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_lightning.images.fragments import draw_offsets, fragments, grid_of
from iqa_lightning.losses.group_contrast import extreme_groups, group_contrast
from iqa_lightning.losses.scene_contrast import SceneContrast, similarity_matrix, soft_contrast


def symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    w = rng.random((n, n))
    w = (w + w.T) / 2
    np.fill_diagonal(w, 1)
    return w


def naive(f: np.ndarray, g: np.ndarray, w: np.ndarray, temperature: float) -> float:
    """The formula, one version after another."""
    f, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (f, g))
    e, a = np.exp(f @ g.T / temperature), 2 - 2 / (1 + w**2)
    n = len(f)
    rows = [-np.log((a[i] * e[i]).sum() / e[i].sum()) for i in range(n)]
    columns = [-np.log((a[:, j] * e[:, j]).sum() / e[:, j].sum()) for j in range(n)]
    return float(np.mean(rows) + np.mean(columns))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 9))
def test_contrast_is_the_formula_and_knows_no_order(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    f, g, w = rng.normal(size=(n, 4)), rng.normal(size=(n, 4)), symmetric(rng, n)
    found = float(soft_contrast(*(torch.from_numpy(x)[None] for x in (f, g, w)), 0.5))
    assert found == pytest.approx(naive(f, g, w, 0.5), abs=1e-10)
    assert found >= -1e-12
    p = rng.permutation(n)
    mixed = soft_contrast(*(torch.from_numpy(x)[None] for x in (f[p], g[p], w[p][:, p])), 0.5)
    assert float(mixed) == pytest.approx(found, abs=1e-10)


def test_nothing_in_common_off_the_diagonal_is_finite_and_has_a_gradient() -> None:
    f = torch.randn(1, 3, 4, requires_grad=True)
    loss = soft_contrast(f, torch.randn(1, 3, 4), torch.eye(3)[None])
    loss.backward()
    assert loss.isfinite()
    assert f.grad.isfinite().all()


def test_scenes_are_not_compared() -> None:
    f, g = torch.randn(2, 2, 3, 4)
    w = torch.from_numpy(np.stack([symmetric(np.random.default_rng(k), 3) for k in range(2)]))
    both = float(soft_contrast(f, g, w))
    each = [float(soft_contrast(f[k : k + 1], g[k : k + 1], w[k : k + 1])) for k in range(2)]
    assert both == pytest.approx(np.mean(each), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(2, 5))
def test_group_contrast_is_the_formula_and_symmetric(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    losses = []
    for own, other in ((a, b), (b, a)):
        u, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (own, other))
        for k in range(len(u)):
            s = np.mean([u[k] @ u[j] for j in range(len(u)) if j != k]) / 0.5
            losses.append(-np.log(np.exp(s) / (np.exp(s) + np.exp(v @ u[k] / 0.5).sum())))
    found = float(group_contrast(torch.from_numpy(a), torch.from_numpy(b)))
    assert found == pytest.approx(np.mean(losses), abs=1e-10)
    other = float(group_contrast(torch.from_numpy(b), torch.from_numpy(a)))
    assert other == pytest.approx(found, abs=1e-12)


def test_groups_need_two_members() -> None:
    with pytest.raises(ValueError, match="batch of 63 images makes groups of 1"):
        extreme_groups(torch.rand(63))


def test_similarity_is_that_of_piq_on_each_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    versions = torch.randint(0, 256, (3, 3, 48, 40), dtype=torch.uint8, generator=generator)
    matrix = similarity_matrix(versions)
    assert matrix.dtype == torch.float64
    assert torch.equal(matrix, matrix.T)
    assert matrix.diagonal().tolist() == [1, 1, 1]
    x = versions.double() / 255
    expected = piq.fsim(x[0:1], x[2:3], data_range=1.0)
    assert float(matrix[0, 2]) == pytest.approx(float(expected), abs=1e-12)


def coordinates(height: int, width: int) -> torch.Tensor:
    """An image whose red is its row and green its column."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([y, x, torch.zeros_like(x)]).to(torch.uint8)


def test_fragments_are_patches_of_their_cells_at_the_same_places() -> None:
    image = coordinates(100, 140)
    stack = torch.stack([image, 255 - image])
    cells = grid_of((100, 140), 3, 16)
    assert cells.cell == (33, 46)
    offsets = draw_offsets(cells, 16, np.random.default_rng(0))
    assert offsets[0].max() < 33 - 16
    assert offsets[1].max() < 46 - 16
    shown = fragments(stack, cells, offsets, 16)
    assert shown.shape == (2, 3, 48, 48)
    assert torch.equal(shown[0], 255 - shown[1]), "all versions at the same places"
    for i in range(3):
        for j in range(3):
            patch = shown[0, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
            y, x = 33 * i + offsets[0, i, j], 46 * j + offsets[1, i, j]
            assert torch.equal(patch, image[:, y : y + 16, x : x + 16].float())


def test_a_cell_no_larger_than_a_patch_has_no_offset() -> None:
    offsets = draw_offsets(grid_of((224, 448), 7, 32), 32, np.random.default_rng(0))
    assert (offsets[0] == 0).all()
    assert offsets[1].max() > 0


@pytest.mark.parametrize(("after", "last"), [(False, 38), (True, 64)])
def test_a_small_image_is_enlarged_and_the_official_grid_sees_its_corner(
    after: bool, last: int
) -> None:
    cells = grid_of((48, 96), 5, 16, after_upsampling=after)
    assert cells.size == (80, 160)
    assert cells.rows[-1] == (min(4 * (48 // 5), 48 - 16) if not after else last)
    offsets = draw_offsets(cells, 16, np.random.default_rng(0))
    assert fragments(coordinates(48, 96)[None], cells, offsets, 16).shape == (1, 3, 80, 80)


def test_versions_are_functions_of_the_image_and_their_similarity_is_computed_once() -> None:
    contrast = SceneContrast(levels=(1, 5), grid=2, patch=16)
    image = torch.randint(
        0, 256, (3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    versions = contrast.versions(image)
    assert versions.shape == (9, 3, 40, 40)
    assert torch.equal(versions[0], image)
    assert torch.equal(versions, contrast.versions(image))
    first = contrast.similarity(versions, 7)
    assert contrast.similarity(versions.flip(0), 7) is not None
    assert torch.equal(contrast.similarity(versions.flip(0), 7), first), "kept by number"


def test_anchors_and_augmentations_are_two_passes() -> None:
    contrast = SceneContrast(kinds=("jpeg",), levels=(3,), grid=2, patch=16)
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    sizes: list[tuple[int, ...]] = []

    def encode(shown: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(shown.shape))
        return shown.mean(dim=(2, 3))

    draws = [np.random.default_rng(k) for k in range(2)]
    contrast(encode, [image, image], [0, 1], draws)
    assert sizes == [(4, 3, 32, 32)] * 2
