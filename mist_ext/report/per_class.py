"""What became of single classes, from the accuracies per class that a run recorded."""

from __future__ import annotations

from typing import Any, NamedTuple

from mist_ext.report.experiments import Experiment
from mist_ext.results import metrics
from mist_ext.results.record import RunRecord


class ClassMatrix(NamedTuple):
    """Accuracies on each class after each task, in percent.

    Attributes
    ----------
    classes : list
        Their numbers in the data set, in the order of the stream.
    rows : list of list of float
        One row per class: the accuracies after the task that brought it and after each later one.
    of : str
        Which runs it was taken from.
    """

    classes: list[Any]
    rows: list[list[float]]
    of: str


def recorded(experiment: Experiment) -> bool:
    """Return whether every class of every counted run has test images, and so an accuracy."""
    return bool(experiment.counted) and all(
        None not in task.accuracy_per_class for run in experiment.counted for task in run.tasks
    )


def class_matrix(experiment: Experiment) -> ClassMatrix:
    """Return the mean over seeds where all met the classes in one order, else the first seed alone."""
    runs = experiment.counted
    first = runs[0]
    if any(run.classes != first.classes for run in runs):
        runs = [first]
    matrices = [_rows(run) for run in runs]
    rows = [
        [metrics.mean_std(values).mean for values in zip(*same, strict=True)] for same in zip(*matrices, strict=True)
    ]
    of = f"mean of {len(runs)} seeds" if len(runs) > 1 else f"seed {first.seed}"
    return ClassMatrix([label for task in first.classes for label in task], rows, of)


def forgetting(run: RunRecord) -> dict[Any, float]:
    """Return what a run lost on each class of its earlier tasks, in percentage points.

    The best accuracy on the class after any task before the last, minus that after the last: `metrics.forgetting`
    for classes instead of tasks. Negative where a class became better.

    Returns
    -------
    dict of class to float
        The last task's classes are not in it, since nothing came after them.
    """
    labels = [label for task in run.classes for label in task]
    return {label: max(row[:-1]) - row[-1] for label, row in zip(labels, _rows(run), strict=True) if len(row) > 1}


def forgetting_by_class(experiment: Experiment) -> dict[Any, list[float]]:
    """Return `forgetting` of all counted runs: one value for each seed in which a task followed the class."""
    joined: dict[Any, list[float]] = {}
    for run in experiment.counted:
        for label, lost in forgetting(run).items():
            joined.setdefault(label, []).append(lost)
    return joined


def _rows(run: RunRecord) -> list[list[float]]:
    rows: list[list[float]] = []
    for task, classes in zip(run.tasks, run.classes, strict=True):
        rows += [[] for _ in classes]
        for row, accuracy in zip(rows, task.accuracy_per_class, strict=True):
            assert accuracy is not None  # or it is not `recorded`
            row.append(accuracy)
    return rows
