"""Chains of degradations: applied to a batch, drawn from a space of which the size is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import factorial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from iqa_lightning.images.degradations.compression import to_bytes, to_floats
from iqa_lightning.images.degradations.draws import Draws, source
from iqa_lightning.images.degradations.kinds import KINDS, strength_at

Pixels = UInt8[Tensor, "batch 3 height width"] | Float[Tensor, "batch 3 height width"]


class Step(NamedTuple):
    """One degradation of a chain."""

    kind: str
    strength: float


Chain = tuple[Step, ...]


def step(kind: str, level: float) -> Step:
    """The degradation of a kind at a level from 0 (no damage) to 5.

    Raises:
        ValueError: there is no such kind or level.
    """
    check_kinds([kind])
    return Step(kind, KINDS[kind].strength(level))


def check_kinds(names: Sequence[str]) -> None:
    """Refuse names that no degradation has."""
    if unknown := [name for name in names if name not in KINDS]:
        raise ValueError(f"there is no degradation {unknown[0]!r}; choose from {', '.join(KINDS)}")


def degrade(image: Pixels, chains: Sequence[Chain], seeds: Sequence[int]) -> Pixels:
    """Each image after its own chain: same shape, type (8-bit, or float in [0, 1]) and device.

    What happens to an image depends on its chain, its seed (below 2^64) and the kind of device, and
    not on the images beside it.

    Raises:
        ValueError: an unknown kind.
    """
    check_kinds([step.kind for chain in chains for step in chain])
    at_once = (
        max(1, len(image)) if image.is_cuda else 1
    )  # on a CPU all of a chain while the cache holds the image
    out = torch.empty_like(image)
    for k in range(0, len(image), at_once):
        part = slice(k, k + at_once)
        out[part] = _degrade(image[part], chains[part], seeds[part])
    return out


def _degrade(image: Pixels, chains: Sequence[Chain], seeds: Sequence[int]) -> Pixels:
    work = to_floats(image) if image.dtype == torch.uint8 else image.to(torch.float32, copy=True)
    sources = [source(seed, image.device) for seed in seeds]
    for position in range(max(map(len, chains))):
        for kind, rows in by_kind(chains, position).items():
            strength = torch.tensor(
                [chains[row][position].strength for row in rows],
                device=image.device,
                dtype=torch.float32,
            )
            draws = Draws([sources[row] for row in rows], image.device)
            if len(rows) == len(work):
                work = KINDS[kind].apply(work, strength, draws).clamp_(0, 1)
            else:
                work[rows] = KINDS[kind].apply(work[rows], strength, draws).clamp_(0, 1)
    return to_bytes(work) if image.dtype == torch.uint8 else work.to(image.dtype)


def by_kind(chains: Sequence[Chain], position: int) -> dict[str, list[int]]:
    """Each kind at a position of the chains, with the images that it changes."""
    groups: dict[str, list[int]] = {}
    for row, chain in enumerate(chains):
        if position < len(chain) and chain[position].strength != KINDS[chain[position].kind].none:
            groups.setdefault(chain[position].kind, []).append(row)
    return groups


@dataclass(frozen=True)
class ChainSpace:
    """What chains are drawn from: at most one kind of each family, so that no family comes twice in
    a pass.

    Args:
        families: kinds by family, in the order of a camera's pipeline.
        levels: the levels that occur, each a whole number from 1 to 5.
        level_weights: how often each comes, relative to the others; default: equally often.
        tables: strengths of the levels 1 to 5 where a paper has its own.
        p_skip: chance that a family is left out, each by itself; not used with `lengths`.
        lengths: how many families take part, each number equally likely; default: as `p_skip`
            falls.
        shuffle: in random order, instead of that of `families`.
        orders: how often the chain is gone through, each equally likely: [1, 2] also has
            second-order chains, the same kinds and levels twice with new random numbers.

    Raises:
        ValueError: an unknown kind, a level out of range, or numbers that are no chances.
    """

    families: Mapping[str, Sequence[str]]
    levels: Sequence[int] = (1, 2, 3, 4, 5)
    level_weights: Sequence[float] | None = None
    tables: Mapping[str, Sequence[float]] = field(default_factory=dict)
    p_skip: float = 0.5
    lengths: Sequence[int] | None = None
    shuffle: bool = True
    orders: Sequence[int] = (1, 2)

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        check_kinds([kind for kinds in (*self.families.values(), self.tables) for kind in kinds])
        if not self.levels or not all(1 <= level <= 5 for level in self.levels):
            raise ValueError(
                f"degradations.levels={list(self.levels)}: give whole numbers from 1 to 5"
            )
        if not 0 <= self.p_skip < 1:
            raise ValueError(f"degradations.p_skip={self.p_skip} is no chance in [0, 1)")
        if self.level_weights is not None and len(self.level_weights) != len(self.levels):
            raise ValueError(
                f"degradations.level_weights={self.level_weights}: give one for each of "
                f"{self.levels}"
            )
        if not all(0 <= length <= len(self.families) for length in self.lengths or ()):
            raise ValueError(
                f"degradations.lengths={self.lengths}: there are {len(self.families)} families"
            )
        if wrong := [kind for kind, table in self.tables.items() if len(table) != 5]:
            raise ValueError(
                f"degradations.tables.{wrong[0]}: give the strengths of the levels 1 to 5"
            )

    def draw(self, generator: np.random.Generator) -> Chain:
        """A chain; it may be empty where that is a possible length."""
        names = np.array(list(self.families))
        if self.lengths is None:
            chosen = names[generator.random(len(names)) >= self.p_skip]
            chosen = generator.permutation(chosen) if self.shuffle else chosen
        else:
            kept = generator.permutation(len(names))[: generator.choice(self.lengths)]
            chosen = names[kept if self.shuffle else np.sort(kept)]
        kinds = [str(generator.choice(list(self.families[name]))) for name in chosen]
        return tuple(self.step(kind, self.draw_level(generator)) for kind in kinds) * int(
            generator.choice(self.orders)
        )

    def draw_level(self, generator: np.random.Generator) -> int:
        """A level by its weight."""
        weights = np.array(self.level_weights or [1.0] * len(self.levels))
        return int(generator.choice(self.levels, p=weights / weights.sum()))

    def step(self, kind: str, level: float) -> Step:
        """A kind at a level, with the space's own table."""
        table = self.tables.get(kind, KINDS[kind].levels)
        return Step(kind, float(strength_at(level, (KINDS[kind].none, *table))))

    def counts(self) -> dict[int, int]:
        """Distinct chains (kinds, levels, their order) of one pass, by length."""
        subsets = [1]  # elementary symmetric polynomials of the numbers of kinds times levels
        for kinds in self.families.values():
            options = len(kinds) * len(self.levels)
            subsets = [a + options * b for a, b in zip([*subsets, 0], [0, *subsets], strict=True)]
        possible = range(len(subsets)) if self.lengths is None else sorted(set(self.lengths))
        return {k: subsets[k] * (factorial(k) if self.shuffle else 1) for k in possible}

    @property
    def size(self) -> int:
        """Distinct chains of all orders; a repeated one differs from all single ones, but for the
        empty one.
        """
        return sum(
            count * (len(set(self.orders)) if k else 1) for k, count in self.counts().items()
        )
