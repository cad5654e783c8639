"""Whether a batch of pictures is like what was learnt: two-sample tests of frozen features.

Maximum mean discrepancy with a permutation test: Gretton et al., "A kernel two-sample test", JMLR
13, 2012. Classifier two-sample test: Lopez-Paz and Oquab, ICLR 2017, https://arxiv.org/abs/1610.06545.
k-centre: Sener and Savarese, ICLR 2018, https://arxiv.org/abs/1708.00489. The rules of the verdict
are design.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from iqa_lightning.models.outside import OUTSIDE

Array = NDArray[np.float64]

ALPHA = 0.01
"""Below this p two samples count as different."""


PERMUTATIONS = 500
MOST = 200  # pictures of a sample that a test takes: its time grows with their square
LEAST = 10
MANY = 0.05
"""Share of pictures outside of what was learnt from which a batch that is like no set is new."""


NEW, IN_RANGE = "new", "in range"


@dataclass(frozen=True)
class Drift:
    """What is found of a batch.

    Args:
        verdict: `in range`, `drifting to <data set>` or `new`.
        images: number of pictures that could be read.
        outside: share of them that lie outside of what was learnt.
        expected: that share of pictures like those that were learnt.
        mmd: p of the permutation test against each learnt data set, against what they are together
            when mixed as the batch is (`mixed`), and against the `reference`, if there is one.
        distance: the squared discrepancies themselves.
        accuracy: of a classifier that tells the batch from the sample most like it; .5 is chance.
        accuracy_p: how likely chance is as good.
        nearest: share of the pictures that lie nearest to each data set.
    """

    verdict: str
    images: int
    outside: float
    expected: float
    mmd: dict[str, float] = field(default_factory=dict)
    distance: dict[str, float] = field(default_factory=dict)
    accuracy: float = 0.5
    accuracy_p: float = 1.0
    nearest: dict[str, float] = field(default_factory=dict)


def find_drift(
    batch: Array,
    percentiles: Array,
    learnt: Mapping[str, Array],
    nearest: NDArray[np.int64],
    reference: Array | None = None,
    expected: float = 0.01,
    seed: int = 0,
) -> Drift:
    """Compare a batch with what was learnt.

    `new`: it is like no learnt data set and no mixture of them, and more of its pictures lie
    outside than chance would have, or it is farther from all than half the way between two learnt
    sets. `in range`: it is like the reference or, without one, like a learnt set or their mixture.
    Else it drifts, to the set that it is most like.

    Args:
        batch: (pictures, width) features.
        percentiles: of `outside`, one a picture.
        learnt: the same features of each learnt set.
        nearest: index of the learnt set that each picture lies nearest to.
        reference: the same features of pictures as they used to come.
        expected: share of pictures above the limit where nothing has changed.
        seed: of permutations.

    Raises:
        ValueError: too few pictures for a test.
    """
    if len(batch) < LEAST:
        raise ValueError(f"{len(batch)} pictures are too few to compare: give {LEAST} or more")
    rng = np.random.default_rng(seed)
    names = list(learnt)
    shares = {name: float(np.mean(nearest == k)) for k, name in enumerate(names)}
    samples = {name: part for name, part in learnt.items() if len(part) >= LEAST}
    if len(names) > 1:
        samples["mixed"] = mixed(learnt, shares, rng)
    tests = {name: mmd(batch, part, rng) for name, part in samples.items()}
    p = {name: one[1] for name, one in tests.items()}
    distance = {name: one[0] for name, one in tests.items()}
    outside = float(np.mean(percentiles > OUTSIDE))
    likest = min(distance, key=lambda name: (-p[name], distance[name]))
    known = p[likest] > ALPHA
    if reference is not None:
        distance["reference"], p["reference"] = mmd(batch, reference, rng)
    target = max(shares, key=lambda name: shares[name])
    if p.get("reference", 0.0) > ALPHA or (reference is None and known):
        verdict = IN_RANGE
    elif not known and (lies_outside(percentiles, expected) or is_far(distance, samples, rng)):
        verdict = NEW
    else:
        verdict = f"drifting to {target}"
    other = reference if reference is not None else samples[likest]
    accuracy, chance = tell_apart(batch, other, rng)
    return Drift(verdict, len(batch), outside, expected, p, distance, accuracy, chance, shares)


def lies_outside(percentiles: Array, expected: float) -> bool:
    """Whether many pictures lie outside of what was learnt, and more than chance would have."""
    count = int((percentiles > OUTSIDE).sum())
    chance = stats.binomtest(count, len(percentiles), expected, alternative="greater").pvalue
    return count >= MANY * len(percentiles) and bool(chance < ALPHA)


def standardised(one: Array, two: Array) -> Array:
    """Both samples, one behind the other, with mean 0 and deviation 1 over both together: neither
    has a say in it that the other has not, so that a permutation test stays exact.
    """
    both = np.concatenate([one, two])
    deviation = both.std(axis=0)
    found: Array = (both - both.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return found


def mixed(
    learnt: Mapping[str, Array], shares: Mapping[str, float], rng: np.random.Generator
) -> Array:
    """Features of all learnt sets, in the shares in which the batch lies near to them."""
    size = min(
        [
            MOST,
            *(int(len(part) / shares[name]) for name, part in learnt.items() if shares[name] > 0),
        ]
    )
    parts = [
        part[
            rng.choice(len(part), min(len(part), max(round(size * shares[name]), 0)), replace=False)
        ]
        for name, part in learnt.items()
    ]
    found = np.concatenate(parts)
    return found if len(found) >= 2 else np.concatenate(list(learnt.values()))


def is_far(
    distance: Mapping[str, float], samples: Mapping[str, Array], rng: np.random.Generator
) -> bool:
    """Whether the batch is farther from all sets than half the way between two of them."""
    sets = [part for name, part in samples.items() if name != "mixed"]
    own = [value for name, value in distance.items() if name in samples]
    between = [mmd(one, two, rng, 0)[0] for i, one in enumerate(sets) for two in sets[:i]]
    return bool(between) and min(own) > min(between) / 2


def mmd(
    one: Array, two: Array, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> tuple[float, float]:
    """Squared maximum mean discrepancy, unbiased, and the p of its permutation test.

    Gaussian kernel whose width is the median distance; at most `MOST` of each sample.
    """
    one, two = (part[rng.permutation(len(part))[:MOST]] for part in (one, two))
    both = standardised(one, two)
    squares = np.maximum(
        (both**2).sum(1)[:, None] + (both**2).sum(1)[None] - 2 * both @ both.T, 0.0
    )
    width = np.median(squares[np.triu_indices(len(both), 1)]) or 1.0
    kernel = np.exp(-squares / width)
    np.fill_diagonal(kernel, 0.0)
    first = np.arange(len(both)) < len(one)
    found = float(discrepancy(kernel, first))
    drawn = np.array([rng.permutation(len(both)) < len(one) for _ in range(permutations)])
    more = (discrepancy(kernel, drawn) >= found).sum() if permutations else 0
    return found, float((1 + more) / (1 + permutations))


def discrepancy(kernel: Array, first: NDArray[np.bool_]) -> Array:
    """Unbiased squared discrepancies of two samples from a kernel with zeros on its diagonal.

    Args:
        kernel: (pictures, pictures), symmetric.
        first: (..., pictures) which of them are of the first sample, for each discrepancy.
    """
    m = first.sum(axis=-1)
    n = len(kernel) - m
    weight = first.astype(np.float64)
    to_first = weight @ kernel
    within, across = (weight * to_first).sum(axis=-1), ((1 - weight) * to_first).sum(axis=-1)
    rest = kernel.sum() - within - 2 * across
    found: Array = within / (m * (m - 1)) + rest / (n * (n - 1)) - 2 * across / (m * n)
    return found


def tell_apart(one: Array, two: Array, rng: np.random.Generator) -> tuple[float, float]:
    """Accuracy of a linear classifier on held-out pictures of two samples of equal size, and how
    likely chance is as good.
    """
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # noqa: PLC0415

    size = min(len(one), len(two), MOST)
    parts = [part[rng.permutation(len(part))[:size]] for part in (one, two)]
    x, y = standardised(*parts), np.repeat([0, 1], size)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=0.01, max_iter=500)
    hits = int((cross_val_predict(model, x, y, cv=folds) == y).sum())
    return hits / len(y), float(stats.binomtest(hits, len(y), 0.5, alternative="greater").pvalue)


def most_telling(batch: Array, learnt: Array, count: int) -> list[int]:
    """Pictures worth rating: each the farthest from what was learnt and from those picked before
    (k-centre, greedily).
    """
    nearest = np.full(len(batch), np.inf)
    for centre in learnt:
        np.minimum(nearest, ((batch - centre) ** 2).sum(axis=1), out=nearest)
    picked: list[int] = []
    for _ in range(min(count, len(batch))):
        i = int(nearest.argmax())
        picked.append(i)
        np.minimum(nearest, ((batch - batch[i]) ** 2).sum(axis=1), out=nearest)
        nearest[i] = -np.inf
    return picked
