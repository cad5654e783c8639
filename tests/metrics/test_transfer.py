"""Measures of continual learning: the specification's values, loops written by hand, properties,
the known traps.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_lightning.metrics import transfer as c

NAN = math.nan
R = np.array(
    [
        [0.05, -0.10, 0.02, 0.08, 0.01, 0.03],  # before any training
        [0.96, 0.72, 0.45, 0.35, 0.48, 0.43],
        [0.93, 0.89, 0.50, 0.38, 0.50, 0.52],
        [0.90, 0.85, 0.83, 0.70, 0.69, 0.48],
        [0.88, 0.83, 0.84, 0.82, 0.76, 0.47],
        [0.85, 0.80, 0.79, 0.80, 0.88, 0.50],
        [0.90, 0.84, 0.74, 0.74, 0.83, 0.84],
    ]
)
SIX = np.arange(1, 7)
GOLDEN = {
    c.msrcc: 0.815,
    c.accuracy_continuum: 0.8447619048,
    c.area: 0.8685833333,
    c.mpi: 0.87,
    c.mpsr: 0.9144776135,
    c.bwt: -0.066,
    c.bwt_continuum: -0.0566666667,
    c.bwt_libcontinual: -0.048,
    c.forgetting: 0.068,
    c.forgetting_facil: 0.068,
    c.forgetting_renate: 0.068,
    c.forgetting_mammoth: 0.068,
    c.forgetting_avalanche: 0.066,
    c.forgetting_libcontinual: 0.056,
    c.fwt_gem: 0.628,
    c.fwt: 0.636,
}
UNDEFINED_FOR_ONE_TASK = [
    c.bwt,
    c.bwt_continuum,
    c.bwt_libcontinual,
    c.fwt_gem,
    c.fwt,
    c.forgetting,
]
UNDEFINED_FOR_ONE_TASK += [
    c.forgetting_avalanche,
    c.forgetting_renate,
    c.forgetting_facil,
    c.forgetting_mammoth,
]
UNDEFINED_FOR_ONE_TASK += [c.forgetting_libcontinual]


@st.composite
def streams(draw, joint: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A full matrix of correlations and the task of each column, columns in any order."""
    tasks = draw(st.integers(1, 5))
    learnt = list(range(1, tasks + 1)) + (
        draw(st.lists(st.integers(1, tasks), max_size=3)) if joint else []
    )
    learnt = draw(st.permutations(learnt))
    cells = st.floats(-1, 1, allow_subnormal=False)
    matrix = draw(
        st.lists(
            st.lists(cells, min_size=len(learnt), max_size=len(learnt)),
            min_size=tasks + 1,
            max_size=tasks + 1,
        )
    )
    return np.array(matrix), np.array(learnt)


@pytest.mark.parametrize("measure", GOLDEN, ids=lambda f: f.__name__)
def test_the_six_by_six_table(measure) -> None:
    assert measure(R, SIX) == pytest.approx(GOLDEN[measure], abs=1e-9)


@pytest.mark.parametrize("measure", GOLDEN, ids=lambda f: f.__name__)
def test_columns_may_come_in_any_order(measure) -> None:
    order = [3, 0, 5, 1, 4, 2]
    assert measure(R[:, order], SIX[order]) == pytest.approx(GOLDEN[measure], abs=1e-9)


def test_two_tasks() -> None:
    srcc, stability = [[NAN, NAN], [0.9, NAN], [0.8, 0.7]], [[NAN, NAN], [NAN, NAN], [0.95, NAN]]
    learnt = [1, 2]
    assert c.msrcc(srcc, learnt) == pytest.approx(0.75)
    assert c.mpi(srcc, learnt) == pytest.approx(0.80)
    assert c.msi(stability, learnt) == pytest.approx(0.975)
    assert c.mpsi(c.mpi(srcc, learnt), c.msi(stability, learnt)) == pytest.approx(0.8875)
    assert c.mpsr(srcc, learnt) == pytest.approx(0.8776315789)
    assert c.area(srcc, learnt) == pytest.approx(0.825)
    assert c.bwt(srcc, learnt) == pytest.approx(-0.1)
    assert c.forgetting(srcc, learnt) == pytest.approx(0.1)
    assert math.isnan(
        c.fwt_gem(srcc, learnt)
    )  # without rows before learning there is nothing to transfer to


def test_the_summary_holds_the_measures() -> None:
    stability = np.where(np.arange(7)[:, None] > SIX, 0.9, NAN)
    measures = c.readout_measures(R, stability, SIX)
    assert list(measures) == [
        "msrcc",
        "area",
        "mpi",
        "msi",
        "mpsi",
        "bwt",
        "fwt",
        "fwt_gem",
        "forgetting",
    ]
    assert measures["msi"] == pytest.approx((1 + 5 * 0.9) / 6)
    assert measures["mpsi"] == pytest.approx((0.87 + (1 + 5 * 0.9) / 6) / 2)
    assert measures["fwt"] == pytest.approx(0.636)
    assert measures["fwt_gem"] == pytest.approx(0.628)
    assert measures["area"] == pytest.approx(0.8685833333)


def test_zero_padding_trap() -> None:
    matrix = R.copy()
    matrix[3:, 2] = -0.05, -0.06, -0.08, -0.10
    matrix[1:3, 2] = -0.5  # whatever came before learning must not matter

    def of_column_three(measure) -> float:
        rest = np.where(np.arange(6) == 2, matrix, 0.5)  # every other column: no forgetting at all
        return 5 * measure(rest, SIX)

    assert of_column_three(c.forgetting) == pytest.approx(0.05)
    assert of_column_three(c.forgetting_renate) == pytest.approx(0.05)
    assert of_column_three(c.forgetting_facil) == pytest.approx(0.10)
    assert of_column_three(c.forgetting_mammoth) == pytest.approx(0.10)


def test_only_renate_counts_zero_shot_rows_as_best() -> None:
    matrix = R.copy()
    matrix[1, 1] = 0.99
    assert c.forgetting(matrix, SIX) == pytest.approx(0.068)
    assert c.forgetting_renate(matrix, SIX) == pytest.approx(0.068 + (0.99 - 0.89) / 5)


@pytest.mark.parametrize("measure", UNDEFINED_FOR_ONE_TASK, ids=lambda f: f.__name__)
def test_one_task_leaves_transfer_and_forgetting_undefined(measure) -> None:
    assert math.isnan(measure([[0.1], [0.9]], [1]))
    assert math.isnan(measure([[0.1, 0.2], [0.9, 0.3]], [1, 2]))  # the second is not learnt yet


def test_one_task_keeps_the_rest() -> None:
    matrix, stability = [[0.1, 0.2], [0.9, 0.3]], np.full((2, 2), NAN)
    assert c.msrcc(matrix, [1, 2]) == c.mpi(matrix, [1, 2]) == 0.9
    assert c.msi(stability, [1, 2]) == 1.0


@pytest.mark.parametrize("measure", [*GOLDEN, c.msi], ids=lambda f: f.__name__)
def test_before_any_task_nothing_exists(measure) -> None:
    assert math.isnan(measure([[0.1, 0.2]], [1, 1]))


@pytest.mark.parametrize(
    "measure", [c.msrcc, c.bwt, c.forgetting, c.area], ids=lambda f: f.__name__
)
def test_a_missing_cell_is_never_a_zero(measure) -> None:
    matrix = R.copy()
    matrix[6, 0] = NAN
    assert math.isnan(measure(matrix, SIX))
    assert c.undefined(matrix, SIX) == 1
    assert c.undefined(R, SIX) == 0


def test_zero_shot_cells_do_not_enter_what_is_learnt() -> None:
    matrix = np.where(np.arange(7)[:, None] < SIX, NAN, R)
    for measure in (
        c.msrcc,
        c.mpi,
        c.bwt,
        c.forgetting,
        c.area,
        c.mpsr,
        c.accuracy_continuum,
    ):
        assert measure(matrix, SIX) == pytest.approx(GOLDEN[measure], abs=1e-9)
    assert c.undefined(matrix, SIX) == 0


def test_joint_tasks_average_inside_the_task_first() -> None:
    # columns a, b learnt together, then c
    matrix, learnt = [[0.0, 0.0, 0.1], [0.8, 0.6, 0.2], [0.7, 0.4, 0.9]], [1, 1, 2]
    stability = [[NAN] * 3, [NAN] * 3, [0.9, 0.7, NAN]]
    assert c.mpi(matrix, learnt) == pytest.approx(((0.8 + 0.6) / 2 + 0.9) / 2)
    assert c.msi(stability, learnt) == pytest.approx((1 + (0.9 + 0.7) / 2) / 2)
    assert c.msrcc(matrix, learnt) == pytest.approx((0.7 + 0.4 + 0.9) / 3)
    assert c.bwt(matrix, learnt) == pytest.approx((-0.1 - 0.2) / 2)
    assert c.fwt_gem(matrix, learnt) == pytest.approx(0.1)


@settings(deadline=None, max_examples=60)
@given(streams())
def test_equal_loops_over_tasks(stream: tuple[np.ndarray, np.ndarray]) -> None:
    matrix, learnt = stream
    last = len(matrix) - 1
    column = {t: list(learnt).index(t) for t in range(1, last + 1)}
    s = {(i, j): matrix[i, column[j]] for i in range(last + 1) for j in column}
    old = range(1, last)
    assert c.msrcc(*stream) == pytest.approx(sum(s[last, j] for j in column) / last)
    assert c.mpi(*stream) == pytest.approx(sum(s[j, j] for j in column) / last)
    si = [1.0] + [sum(s[t, j] for j in range(1, t)) / (t - 1) for t in range(2, last + 1)]
    assert c.msi(*stream) == pytest.approx(sum(si) / last)
    if last == 1:
        return
    assert c.bwt(*stream) == pytest.approx(
        sum(s[last, j] - s[j, j] for j in old) / (last - 1), abs=1e-12
    )
    lost = [max(s[i, j] for i in range(j, last)) - s[last, j] for j in old]
    assert c.forgetting(*stream) == pytest.approx(sum(lost) / (last - 1), abs=1e-12)
    gained = [s[i - 1, i] - s[0, i] for i in range(2, last + 1)]
    assert c.fwt_gem(*stream) == pytest.approx(sum(gained) / (last - 1), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(streams(joint=True), st.randoms(use_true_random=False))
def test_properties_of_any_stream(stream: tuple[np.ndarray, np.ndarray], random) -> None:
    matrix, learnt = stream
    order = list(range(len(learnt)))
    random.shuffle(order)
    for measure in (*GOLDEN, c.msi):
        assert measure(matrix[:, order], learnt[order]) == pytest.approx(
            measure(matrix, learnt), rel=1e-9, abs=1e-9, nan_ok=True
        )
    if len(matrix) > 2:
        assert c.forgetting(matrix, learnt) >= c.forgetting_avalanche(matrix, learnt) - 1e-12
        assert c.forgetting_renate(matrix, learnt) >= c.forgetting(matrix, learnt) - 1e-12
        assert c.forgetting_mammoth(matrix, learnt) >= -1e-12
    frozen = np.repeat(matrix[:1], len(matrix), axis=0)
    for measure in (c.bwt, c.fwt_gem, c.forgetting):
        assert measure(frozen, learnt) == pytest.approx(
            0.0 if len(matrix) > 2 and max(learnt) > 1 else NAN, nan_ok=True
        )
    # a column that no task has learnt yet is looked at by nobody
    wider = np.column_stack([matrix, np.full(len(matrix), NAN)])
    for measure in (*GOLDEN, c.msi):
        assert measure(wider, [*learnt, len(matrix)]) == pytest.approx(
            measure(matrix, learnt), nan_ok=True
        )


@pytest.mark.parametrize(
    ("learnt", "message"),
    [
        ([1, 2, 3], "one task per column"),
        ([1, 1], "task 2 of 2"),
        ([[1, 2]], "one task per column"),
    ],
)
def test_misuse_is_refused(learnt, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        c.msrcc([[0.0, 0.0]] * 3, learnt)


def test_tasks_count_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        c.mpi([[0.0, 0.0]] * 2, [0, 1])
