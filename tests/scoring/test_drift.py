"""In range, drifting or new: known answers on features that are drawn, and the parts by hand."""

import numpy as np
import pytest
from scipy import stats

from iqa_lightning.scoring.drift import (
    IN_RANGE,
    NEW,
    Drift,
    discrepancy,
    find_drift,
    mmd,
    most_telling,
    tell_apart,
)

WIDTH = 8
CENTRES = {"a": np.zeros(WIDTH), "b": np.full(WIDTH, 1.5), "c": np.full(WIDTH, -1.5)}
NEVER_SEEN = np.array([4.0, -4.0] * (WIDTH // 2))


def draw(rng: np.random.Generator, centre: np.ndarray, count: int = 80) -> np.ndarray:
    return centre + rng.normal(size=(count, WIDTH))


def look(seed: int, batch: np.ndarray, reference: np.ndarray | None = None) -> Drift:
    """The verdict of a batch, its percentiles by the distances of other pictures of the sets."""
    rng = np.random.default_rng(seed)
    learnt = {name: draw(rng, centre) for name, centre in CENTRES.items()}
    means = np.stack(list(CENTRES.values()))
    known = np.linalg.norm(np.concatenate([draw(rng, c) - c for c in CENTRES.values()]), axis=1)
    distances = np.linalg.norm(batch[:, None] - means, axis=2)
    percentiles = 100 * np.mean(distances.min(axis=1)[:, None] > known, axis=1)
    return find_drift(batch, percentiles, learnt, distances.argmin(axis=1), reference, seed=seed)


def test_known_answers() -> None:
    verdicts: dict[str, list[str]] = {"a": [], "mixture": [], "drift": [], "usual": [], "never": []}
    for seed in range(6):
        rng = np.random.default_rng(100 + seed)
        usual = draw(rng, CENTRES["a"])
        batches = {name: draw(rng, centre) for name, centre in CENTRES.items()}
        mixture = np.concatenate([batches["a"][:50], batches["b"][:30]])
        verdicts["a"].append(look(seed, batches["a"]).verdict)
        verdicts["mixture"].append(look(seed, mixture).verdict)
        verdicts["usual"].append(look(seed, batches["a"], usual).verdict)
        verdicts["drift"].append(look(seed, batches["b"], usual).verdict)
        verdicts["never"].append(look(seed, draw(rng, NEVER_SEEN)).verdict)
    for name, expected in (
        ("a", IN_RANGE),
        ("mixture", IN_RANGE),
        ("usual", IN_RANGE),
        ("drift", "drifting to b"),
        ("never", NEW),
    ):
        assert verdicts[name].count(expected) >= 5, (name, verdicts[name])


def test_too_few() -> None:
    with pytest.raises(ValueError, match="3 pictures are too few"):
        look(0, np.zeros((3, WIDTH)))


def test_the_discrepancy_by_two_loops() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.uniform(size=(9, 9))
    kernel = (kernel + kernel.T) * (1 - np.eye(9))
    first = np.arange(9) < 4
    total = 0.0
    for i in range(9):
        for j in range(9):
            if i == j:
                continue
            if first[i] and first[j]:
                total += kernel[i, j] / (4 * 3)
            elif first[i] or first[j]:
                total -= kernel[i, j] / (4 * 5)
            else:
                total += kernel[i, j] / (5 * 4)
    assert discrepancy(kernel, first) == pytest.approx(total)


def test_p_is_uniform_where_nothing_differs_and_small_where_it_does() -> None:
    rng = np.random.default_rng(0)
    same = [
        mmd(draw(rng, CENTRES["a"], 40), draw(rng, CENTRES["a"], 30), rng, 99)[1] for _ in range(60)
    ]
    assert stats.kstest(same, "uniform").pvalue > 0.001
    assert mmd(draw(rng, CENTRES["a"], 40), draw(rng, CENTRES["b"], 30), rng, 99)[1] == 0.01


def test_a_classifier_tells_what_differs() -> None:
    rng = np.random.default_rng(0)
    accuracy, p = tell_apart(draw(rng, CENTRES["a"]), draw(rng, CENTRES["b"]), rng)
    assert accuracy > 0.9
    assert p < 1e-6
    accuracy, p = tell_apart(draw(rng, CENTRES["a"]), draw(rng, CENTRES["a"]), rng)
    assert accuracy < 0.65
    assert p > 0.001


def test_pictures_worth_rating_lie_apart() -> None:
    line = np.array([[0.0], [0.1], [5.0], [5.1], [9.0]])
    assert most_telling(line, np.array([[0.0]]), 2) == [4, 2]  # the farthest, then the middle
    assert sorted(most_telling(line, np.zeros((1, 1)), 9)) == list(range(5))
