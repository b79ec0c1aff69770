"""The metrics of class-incremental learning, all in percent.

An accuracy matrix is a list of rows: ``matrix[t][k]`` is the accuracy on the test samples of task ``k`` after
task ``t``, for ``k <= t``, so row ``t`` has ``t + 1`` values. Tasks are counted from 0 here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Matrix = Sequence[Sequence[float]]

# What every run is measured by: the names in files, and as tables have them.
METRICS = {
    "average_accuracy": "A_avg",
    "last_accuracy": "A_last",
    "learning_accuracy": "A_tt",
    "forgetting": "forgetting",
}


class Spread(NamedTuple):
    """A mean and standard deviation."""

    mean: float
    std: float


class Gain(NamedTuple):
    """A difference paired over seeds.

    Attributes
    ----------
    mean, std : float
        Of the per-seed differences; ``std`` as in `mean_std`.
    n : int
        The number of seeds that both sides have.
    """

    mean: float
    std: float
    n: int


def accuracy_seen(matrix: Matrix, counts: Sequence[int]) -> list[float]:
    """Return the accuracy on the classes seen so far, after each task.

    The share of correct answers among all test samples of tasks 0..t: samples count alike, tasks with more
    test samples count more.

    Parameters
    ----------
    matrix : sequence of sequences of float
        The accuracy matrix, in percent.
    counts : sequence of int
        The number of test samples of each task, at least as many as the matrix has rows.

    Returns
    -------
    list of float
        One percentage per task.

    Raises
    ------
    ValueError
        If the matrix is no lower triangle, or a count is missing or not positive.
    """
    _check(matrix)
    if len(counts) < len(matrix):
        raise ValueError(f"{len(counts)} test counts for {len(matrix)} tasks: every task needs one")
    if min(counts) <= 0:
        raise ValueError(f"test counts {list(counts)}: every task needs at least one test sample")
    return [
        math.fsum(accuracy * count for accuracy, count in zip(row, counts, strict=False)) / sum(counts[: len(row)])
        for row in matrix
    ]


def average_accuracy(seen: Sequence[float]) -> float:
    """Return A_avg, the mean over tasks of the accuracy on the classes seen (`accuracy_seen`)."""
    return mean_std(seen)[0]


def last_accuracy(seen: Sequence[float]) -> float:
    """Return A_last, the accuracy on all classes after the last task (the end of `accuracy_seen`)."""
    if not seen:
        raise ValueError("no accuracy to take the last of: no task has been evaluated")
    return float(seen[-1])


def learning_accuracy(matrix: Matrix) -> float:
    """Return A_tt, the mean over tasks of the accuracy on a task's own classes right after it was learnt.

    The task's test samples may be taken for any class seen so far. In percent, from the accuracy matrix's diagonal.

    Raises
    ------
    ValueError
        If the matrix is empty or no lower triangle.
    """
    _check(matrix)
    return mean_std([row[-1] for row in matrix]).mean


def forgetting(matrix: Matrix) -> float:
    """Return how much accuracy on earlier tasks was lost, on average.

    With T the last task: the mean over k < T of ``max over t < T of matrix[t][k] - matrix[T][k]``
    (Chaudhry et al., arXiv 1801.10112). Negative where earlier tasks became better.

    Parameters
    ----------
    matrix : sequence of sequences of float
        The accuracy matrix, in percent.

    Returns
    -------
    float
        Percentage points; 0.0 for a single task, which leaves nothing to forget.

    Raises
    ------
    ValueError
        If the matrix is empty or no lower triangle.
    """
    _check(matrix)
    *earlier, last = matrix
    if not earlier:
        return 0.0
    lost = [max(row[k] for row in earlier[k:]) - last[k] for k in range(len(earlier))]
    return math.fsum(lost) / len(lost)


def mean_std(values: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation.

    The standard deviation has n - 1 in the denominator, since seeds are a sample of all seeds; it is 0.0 for
    a single value, where it is not defined.

    Raises
    ------
    ValueError
        If there is no value.
    """
    if not values:
        raise ValueError("no values to take the mean of")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean, 0.0)
    return Spread(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)))


def paired_gain(values: Mapping[int, float], baseline: Mapping[int, float]) -> Gain | None:
    """Return the mean difference to a baseline, seed by seed.

    Pairing takes the variation of the class order out of the comparison: both sides of a pair saw the same
    order.

    Parameters
    ----------
    values, baseline : mapping of int to float
        A metric by seed.

    Returns
    -------
    Gain or None
        Over the seeds that both have; None if they share none.
    """
    differences = [values[seed] - baseline[seed] for seed in values if seed in baseline]
    return Gain(*mean_std(differences), len(differences)) if differences else None


def _check(matrix: Matrix) -> None:
    if not matrix:
        raise ValueError("the accuracy matrix is empty: no task has been evaluated")
    for task, row in enumerate(matrix):
        if len(row) != task + 1:
            raise ValueError(
                f"row {task} of the accuracy matrix has {len(row)} values, expected {task + 1}: one per task so far"
            )
