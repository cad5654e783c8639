"""Chains and the spaces they come from: sizes against enumeration and the specification,
frequencies, batches.
"""

from itertools import combinations, permutations, product

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from iqa_lightning.images.degradations.chain import ChainSpace, degrade, step
from iqa_lightning.images.degradations.kinds import KINDS
from tests.walks import ROOT

FAMILIES = {
    "blur": ["gaussian_blur", "lens_blur"],
    "noise": ["gaussian_noise"],
    "tone": ["darken", "contrast"],
}


def space(name: str) -> ChainSpace:
    """A space of conf/degradations."""
    built: ChainSpace = instantiate(
        OmegaConf.load(ROOT / "conf" / "degradations" / f"{name}.yaml"), _convert_="all"
    )
    return built


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("lengths", [None, [1, 3]])
def test_size_is_what_enumeration_counts(shuffle: bool, lengths: list[int] | None) -> None:
    chains = set()
    for k in range(4) if lengths is None else lengths:
        for names in permutations(FAMILIES, k) if shuffle else combinations(FAMILIES, k):
            for steps in product(*(product(FAMILIES[name], (1, 4)) for name in names)):
                chains |= {steps * order for order in (1, 2)}
    made = ChainSpace(FAMILIES, levels=(1, 4), lengths=lengths, shuffle=shuffle)
    assert made.size == len(chains)
    drawn = {made.draw(np.random.default_rng(i)) for i in range(300)}
    assert {tuple((s.kind, s.strength) for s in chain) for chain in drawn} <= {
        tuple((kind, KINDS[kind].levels[level - 1]) for kind, level in chain) for chain in chains
    }


def test_default_space_is_about_twenty_million() -> None:
    default = space("qpt")
    assert default.size == 20_998_969
    # by hand: families of 9, 12, 9, 9, 9 kinds times levels
    choose = {
        0: 1,
        1: 48,
        2: 6 * 81 + 4 * 108,
        3: 4 * 729 + 6 * 972,
        4: 6561 + 4 * 8748,
        5: 12 * 9**4,
    }
    ways = {0: 1, 1: 1, 2: 2, 3: 6, 4: 24, 5: 120}
    assert default.size == 1 + 2 * sum(choose[k] * ways[k] for k in range(1, 6))
    assert default.shuffle
    assert list(default.orders) == [1, 2]


def test_arniqa_counts_and_levels_are_golden() -> None:
    arniqa = space("arniqa")
    assert arniqa.counts() == {1: 120, 2: 12_200, 3: 1_021_500, 4: 67_605_000}
    assert arniqa.size == 68_638_820
    assert [len(kinds) for kinds in arniqa.families.values()] == [3, 4, 2, 4, 3, 5, 3]
    generator = np.random.default_rng(0)
    levels = (
        np.bincount([arniqa.draw_level(generator) for _ in range(20_000)], minlength=6)[1:] / 20_000
    )
    assert levels == pytest.approx([0.293, 0.270, 0.213, 0.143, 0.081], abs=0.01)
    assert arniqa.step("jpeg", 5).strength == 4
    assert arniqa.step("mean_shift", 3).strength == -0.08


def test_reiqa_has_twenty_six_single_distortions() -> None:
    reiqa = space("reiqa")
    assert reiqa.counts() == {1: 26 * 5}
    assert reiqa.size == 130


def test_skip_and_order_come_as_often_as_said() -> None:
    made = ChainSpace(FAMILIES, levels=(1,), p_skip=0.25, orders=(1, 2))
    generator = np.random.default_rng(1)
    chains = [made.draw(generator) for _ in range(4000)]
    lengths = np.array([len(chain) for chain in chains])
    assert lengths.mean() == pytest.approx(3 * 0.75 * 1.5, rel=0.03)
    assert max(lengths) == 6
    doubled = [chain for chain in chains if len(chain) in (4, 6)]
    assert all(chain[: len(chain) // 2] == chain[len(chain) // 2 :] for chain in doubled)
    first = [chain[0].kind for chain in chains if len(chain) in (3, 6)]
    assert first.count("gaussian_noise") / len(first) == pytest.approx(1 / 3, abs=0.04)
    fixed = ChainSpace(FAMILIES, p_skip=0.0, shuffle=False, orders=(1,)).draw(generator)
    assert [step.kind in FAMILIES[name] for step, name in zip(fixed, FAMILIES, strict=True)] == [
        True
    ] * 3


def test_a_batch_of_chains_is_its_images_one_by_one() -> None:
    default = space("qpt")
    generator = np.random.default_rng(2)
    chains = [default.draw(generator) for _ in range(12)]
    images = torch.randint(
        0, 256, (12, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    together = degrade(images, chains, range(12))
    for i, chain in enumerate(chains):
        assert torch.equal(degrade(images[i : i + 1], [chain], [i])[0], together[i]), chain
    again = degrade(images[:1], [chains[0] or (step("jpeg", 2),)], [77])
    assert again.shape == (1, 3, 40, 56)


def test_order_matters() -> None:
    images = torch.randint(
        0, 256, (1, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    blur, noise = step("gaussian_blur", 4), step("gaussian_noise", 4)
    assert not torch.equal(
        degrade(images, [(blur, noise)], [1]), degrade(images, [(noise, blur)], [1])
    )


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="no degradation 'fog'; choose from gaussian_blur"):
        ChainSpace({"weather": ["fog"]})
    with pytest.raises(ValueError, match="no level 6"):
        step("jpeg", 6)
    with pytest.raises(ValueError, match=r"levels=\[0\]"):
        ChainSpace(FAMILIES, levels=[0])
    with pytest.raises(ValueError, match="p_skip=1"):
        ChainSpace(FAMILIES, p_skip=1)
    with pytest.raises(ValueError, match="there are 3 families"):
        ChainSpace(FAMILIES, lengths=[4])
    with pytest.raises(ValueError, match=r"tables\.jpeg"):
        ChainSpace(FAMILIES, tables={"jpeg": [1.0]})
    with pytest.raises(ValueError, match="level_weights"):
        ChainSpace(FAMILIES, level_weights=[1.0])
