"""Measures of continual learning, made of a matrix of correlations and a matrix of agreements with
oneself.

A matrix is (T + 1, D): row t holds the state after task t (row 0: before any training), column d
one data set; `learnt` is (D,) and holds the task, from 1, that learns column d. Several columns may
share a task (joint training), and a column whose task lies beyond the last row is not learnt yet:
it counts as zero-shot only. With one data set per task everything is the formula of its source. A
mean of nothing is NaN, and so is every measure that needs a cell that is NaN: with one task BWT,
FWT and forgetting do not exist. All but forgetting are higher-is-better.

Sources: BIQA_CL and TSN-IQA (https://github.com/zwx8981/BIQA_CL, https://arxiv.org/abs/2102.09717)
for mSRCC, mPI, mSI, mPSI and MPSR; GEM (https://arxiv.org/abs/1706.08840) for BWT and `fwt_gem`; Chaudhry
et al. (https://arxiv.org/abs/1801.10112) for forgetting. Libraries disagree about these names: a
measure that is not the default here carries the name of the library that it is taken from.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.float64]


def readout_measures(srcc: ArrayLike, stability: ArrayLike, learnt: ArrayLike) -> dict[str, float]:
    """The measures of a run's summary, by name, for one readout."""
    plasticity, agreement = mpi(srcc, learnt), msi(stability, learnt)
    return {
        "msrcc": msrcc(srcc, learnt),
        "area": area(srcc, learnt),
        "mpi": plasticity,
        "msi": agreement,
        "mpsi": mpsi(plasticity, agreement),
        "bwt": bwt(srcc, learnt),
        "fwt": fwt(srcc, learnt),
        "fwt_gem": fwt_gem(srcc, learnt),
        "forgetting": forgetting(srcc, learnt),
    }


def undefined(srcc: ArrayLike, learnt: ArrayLike) -> int:
    """Number of cells of learnt data sets without a value, as constant predictions leave them; 0 in
    a healthy run.
    """
    s, task, last = _checked(srcc, learnt)
    return sum(int(np.isnan(s[t, task <= t]).sum()) for t in range(1, last + 1))


def msrcc(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Mean of the FINAL ROW over the learnt sets, unweighted (mSRCC of BIQA_CL; "average"
    elsewhere); in [-1, 1].
    """
    s, task, last = _checked(srcc, learnt)
    return _mean(s[last, task <= last])


def area(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Any-time quality: mean over tasks t of the mean of row t over the sets seen by then, in [-1,
    1].

    BIQA_CL calls it "final average"; LibContinual has it too.

    >>> area([[0.1, 0.2], [0.9, 0.4], [0.5, 0.7]], [1, 2])
    0.75
    """
    s, task, last = _checked(srcc, learnt)
    return _mean(_mean(s[t, task <= t]) for t in range(1, last + 1))


def accuracy_continuum(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Mean of the lower triangle with its diagonal (`accuracy_A` of Continuum)."""
    s, task, last = _checked(srcc, learnt)
    return _mean(np.concatenate([s[t, task <= t] for t in range(last + 1)]))


def mpi(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Mean plasticity index (mPI of BIQA_CL): mean over t of PI_t, the mean of what task t just
    learnt; in [-1, 1].
    """
    s, task, last = _checked(srcc, learnt)
    return _mean(_mean(s[t, task == t]) for t in range(1, last + 1))


def msi(stability: ArrayLike, learnt: ArrayLike) -> float:
    """Mean stability index (mSI of BIQA_CL): mean over t of SI_t, with SI_1 = 1 as a free point; in
    [-1, 1].

    SI_t is the mean of row t of `stability` over the sets learnt before t: the SRCC of the
    predictions after task t with those made right after the set was learnt. Human ratings do not
    enter: this is not forgetting.
    """
    p, task, last = _checked(stability, learnt)
    return _mean(1.0 if t == 1 else _mean(p[t, task < t]) for t in range(1, last + 1))


def mpsi(mpi: float, msi: float) -> float:
    """Mean plasticity-stability index (mPSI of BIQA_CL): (mPI + mSI) / 2; in [-1, 1]."""
    return (mpi + msi) / 2


def mpsr(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Mean plasticity-stability ratio (MPSR of TSN-IQA's helpers, for version 1 of arXiv
    2102.09717); about [0, 1].

    n(x) = (x + 1) / 2; PSR_1 = n(S[1,1]); PSR_t = n(S[t,t]) mean over s < t of n(S[t,s]) /
    (n(S[s,s]) + 1e-16).
    """
    s, task, last = _checked(srcc, learnt)
    n, just = (s + 1) / 2, (_just_learnt(s, task) + 1) / 2
    kept = (_mean(n[t, task < t] / (just[task < t] + 1e-16)) for t in range(2, last + 1))
    return _mean(
        _mean(n[t, task == t]) * ratio for t, ratio in enumerate((1.0, *kept), 1) if t <= last
    )


def bwt(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Backward transfer (GEM; Mammoth, Renate, Avalanche): mean over earlier sets of final minus
    just learnt.
    """
    s, task, last = _checked(srcc, learnt)
    return _mean((s[last] - _just_learnt(s, task))[task < last])


def bwt_continuum(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Backward transfer (Continuum; Diaz-Rodriguez et al.): mean over all later rows, not only the
    last.
    """
    return _mean(change for _, change in _later_changes(srcc, learnt))


def bwt_libcontinual(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Backward transfer (LibContinual `compute_bwt`): Continuum's, but the row after learning
    counts as no change.
    """
    return _mean(0.0 if age == 1 else change for age, change in _later_changes(srcc, learnt))


def fwt(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Forward transfer: mean over later sets of the SRCC in the row before the set is learnt, in
    [-1, 1] (Continuum).

    The baseline is 0. An untrained head has an SRCC of arbitrary sign, and by symmetry its
    expectation is 0: subtracting one draw, as `fwt_gem` does, adds noise and nothing else.

    >>> fwt([[0.1, 0.2], [0.9, 0.4], [0.5, 0.7]], [1, 2])
    0.4
    """
    s, task, last = _checked(srcc, learnt)
    return _mean(s[t - 1, d] for d, t in enumerate(task) if 1 < t <= last)


def fwt_gem(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Forward transfer (GEM; Mammoth, Renate, Avalanche): mean over later sets of zero-shot minus
    the one untrained head of row 0, in [-2, 2].
    """
    s, task, last = _checked(srcc, learnt)
    return _mean(s[t - 1, d] - s[0, d] for d, t in enumerate(task) if 1 < t <= last)


def forgetting(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Forgetting (Chaudhry et al.; Continuum): mean over earlier sets of the best row before the
    last minus final.

    Lower is better; negative where the last task helped. Only rows in which the set is learnt take
    part in the best.
    """
    s, task, last = _checked(srcc, learnt)
    return _mean(s[t:last, d].max() - s[last, d] for d, t in enumerate(task) if t < last)


def forgetting_avalanche(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Forgetting (Avalanche): mean over earlier sets of just learnt minus final, which is -BWT;
    lower is better.
    """
    return -bwt(srcc, learnt)


def forgetting_renate(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Forgetting (Renate): the best is taken over all rows before the last, zero-shot rows too;
    lower is better.
    """
    s, task, last = _checked(srcc, learnt)
    return _mean(s[1:last, d].max() - s[last, d] for d, t in enumerate(task) if t < last)


def forgetting_facil(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Forgetting (FACIL): the best of all rows before the last, unlearnt cells padded with 0; lower
    is better.

    The padding makes a best of 0 out of a set whose correlations are all negative.
    """
    s, task, last = _checked(srcc, learnt)
    padded = _zero_padded(s, task)
    return _mean(padded[1:last, d].max() - s[last, d] for d, t in enumerate(task) if t < last)


def forgetting_mammoth(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Forgetting (Mammoth, PyCIL, CL-Gym): the best of all rows and the last, unlearnt cells padded
    with 0; from 0.
    """
    s, task, last = _checked(srcc, learnt)
    padded = _zero_padded(s, task)
    return _mean(padded[1:, d].max() - s[last, d] for d, t in enumerate(task) if t < last)


def forgetting_libcontinual(srcc: ArrayLike, learnt: ArrayLike) -> float:
    """Forgetting (LibContinual `compute_frgt`): Avalanche's, but the newest earlier set counts as
    not forgotten.
    """
    s, task, last = _checked(srcc, learnt)
    just = _just_learnt(s, task)
    return _mean(
        just[d] - s[last, d] if t < last - 1 else 0.0 for d, t in enumerate(task) if t < last
    )


def _checked(matrix: ArrayLike, learnt: ArrayLike) -> tuple[Matrix, NDArray[np.int64], int]:
    s, task = np.asarray(matrix, np.float64), np.asarray(learnt, np.int64)
    if s.ndim != 2 or task.shape != s.shape[1:]:
        raise ValueError(
            f"a matrix of shape {s.shape} needs one task per column, got tasks of shape "
            f"{task.shape}"
        )
    last = len(s) - 1
    if missing := sorted(set(range(1, last + 1)) - set(task.tolist())):
        raise ValueError(
            f"no column is learnt by task {missing[0]} of {last}: every row after the first needs "
            "one"
        )
    if (task < 1).any():
        raise ValueError(f"tasks count from 1, got {task.tolist()}")
    return s, task, last


def _mean(values: Iterable[float] | Matrix) -> float:
    cells = np.fromiter(values, np.float64)
    return float(cells.mean()) if len(cells) else math.nan


def _just_learnt(s: Matrix, task: NDArray[np.int64]) -> Matrix:
    return np.array([s[t, d] if t < len(s) else math.nan for d, t in enumerate(task)], np.float64)


def _later_changes(srcc: ArrayLike, learnt: ArrayLike) -> list[tuple[int, float]]:
    s, task, last = _checked(srcc, learnt)
    just = _just_learnt(s, task)
    return [(i - t, s[i, d] - just[d]) for d, t in enumerate(task) for i in range(t + 1, last + 1)]


def _zero_padded(s: Matrix, task: NDArray[np.int64]) -> Matrix:
    return np.where(np.arange(len(s))[:, None] >= task[None, :], s, 0.0)
