"""The metrics against values worked out by hand and definitions written as plain loops."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mist_ext.results import metrics

# After task 0, 1 and 2; the tasks have 10, 30 and 60 test samples.
MATRIX = [[90.0], [70.0, 80.0], [75.0, 60.0, 95.0]]
COUNTS = [10, 30, 60]


def test_accuracy_seen_counts_samples_not_tasks() -> None:
    assert metrics.accuracy_seen(MATRIX, COUNTS) == pytest.approx([90.0, 77.5, 82.5])


def test_average_and_last_accuracy() -> None:
    assert metrics.average_accuracy([90.0, 77.5, 82.5]) == pytest.approx(250 / 3)
    assert metrics.last_accuracy([90.0, 77.5, 82.5]) == 82.5


def test_learning_accuracy_is_that_of_each_task_right_after_it() -> None:
    assert metrics.learning_accuracy(MATRIX) == pytest.approx((90 + 80 + 95) / 3)
    with pytest.raises(ValueError, match="no task has been evaluated"):
        metrics.learning_accuracy([])


def test_forgetting_is_the_loss_from_the_best_earlier_accuracy() -> None:
    # Task 0 lost 90 - 75, task 1 lost 80 - 60; the last task cannot be forgotten yet.
    assert metrics.forgetting(MATRIX) == pytest.approx(17.5)


def test_forgetting_is_negative_where_earlier_tasks_became_better() -> None:
    assert metrics.forgetting([[50.0], [60.0, 80.0]]) == -10.0


def test_a_single_task_forgets_nothing() -> None:
    assert metrics.forgetting([[50.0]]) == 0.0


percent = st.floats(0, 100)
matrices = st.integers(1, 6).flatmap(
    lambda tasks: st.tuples(*(st.lists(percent, min_size=t + 1, max_size=t + 1) for t in range(tasks)))
)


@given(matrices)
def test_forgetting_follows_its_definition(matrix: tuple[list[float], ...]) -> None:
    last = len(matrix) - 1
    total = 0.0
    for k in range(last):
        best = -1.0
        for t in range(last):
            if k <= t and matrix[t][k] > best:
                best = matrix[t][k]
        total += best - matrix[last][k]
    assert metrics.forgetting(matrix) == pytest.approx(total / last if last else 0.0, abs=1e-9)


@given(st.lists(percent, min_size=2, max_size=9))
def test_std_is_that_of_a_sample(values: list[float]) -> None:
    mean, std = metrics.mean_std(values)
    assert mean == pytest.approx(statistics.mean(values), abs=1e-9)
    assert std == pytest.approx(statistics.stdev(values), abs=1e-6)


def test_one_seed_has_no_spread() -> None:
    assert metrics.mean_std([71.5]) == (71.5, 0.0)


def test_gain_is_paired_over_the_seeds_that_both_have() -> None:
    gain = metrics.paired_gain({1: 80.0, 2: 90.0, 3: 10.0}, {2: 84.0, 1: 78.0, 4: 0.0})
    assert gain == pytest.approx((4.0, 8**0.5, 2))


def test_no_common_seed_is_no_gain() -> None:
    assert metrics.paired_gain({1: 80.0}, {2: 78.0}) is None


@pytest.mark.parametrize(
    ("matrix", "counts", "message"),
    [
        ([], [], "empty"),
        ([[1.0], [1.0]], [1, 1], "row 1 .* 1 values, expected 2"),
        ([[1.0], [1.0, 2.0]], [1], "1 test counts for 2 tasks"),
        ([[1.0]], [0], "at least one test sample"),
    ],
)
def test_bad_input_is_named(matrix: list[list[float]], counts: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.accuracy_seen(matrix, counts)


def test_nothing_to_average_is_an_error() -> None:
    with pytest.raises(ValueError, match="no task has been evaluated"):
        metrics.last_accuracy([])
    with pytest.raises(ValueError, match="no values"):
        metrics.average_accuracy([])
    with pytest.raises(ValueError, match="empty"):
        metrics.forgetting([])
