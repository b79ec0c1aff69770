"""The class-incremental split: one task after another, each with new classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from mist_ext.data.class_order import given, permuted
from mist_ext.data.source import Source
from mist_ext.data.task_images import TaskImages
from mist_ext.data.views import Views


@dataclass(frozen=True)
class Task:
    """One task of a stream.

    Attributes
    ----------
    number : int
        From 0.
    classes : range
        Positions in the class order.
    train, test : TaskImages
    """

    number: int
    classes: range
    train: TaskImages
    test: TaskImages


class Stream:
    """The tasks of a data source, in order.

    Unless it is given, the class order is the published one: a permutation of the sorted classes by NumPy's legacy
    generator (the field uses seed 1993). Every task has ``classes_per_task`` classes, the last one what remains.

    Parameters
    ----------
    source : Source
    classes_per_task : int, optional
        By default the number of classes over the source's number of tasks, rounded up.
    class_order_seed : int
    views : tuple of Views, optional
        Of the source's training and test part; by default as `views_of` makes them.
    first_task_classes : int, optional
        Where the first task has another number of classes.
    class_order : sequence of str
        Every class's name, or its number, in order; the seed's order if empty.

    Raises
    ------
    ValueError
        If there are not that many classes, or the order names one twice, leaves one out, or names another.
    """

    def __init__(
        self,
        source: Source,
        classes_per_task: int | None,
        class_order_seed: int,
        views: tuple[Views, Views] | None = None,
        first_task_classes: int | None = None,
        class_order: Sequence[str] = (),
    ) -> None:
        self.source = source
        classes = len(source.class_names)
        step = math.ceil(classes / source.tasks) if classes_per_task is None else classes_per_task
        if not 1 <= step <= classes:
            raise ValueError(f"classes_per_task is {step}, expected 1 to {classes}, the classes of {source.name!r}")
        first = step if first_task_classes is None else first_task_classes
        if not 1 <= first <= classes:
            raise ValueError(f"first_task_classes is {first}, expected 1 to {classes}, the classes of {source.name!r}")
        self.classes_per_task = step
        self.class_order = (
            given(class_order, source.class_names) if class_order else permuted(classes, class_order_seed)
        )
        position = torch.empty(classes, dtype=torch.int64)
        position[self.class_order] = torch.arange(classes)
        parts = views_of(source) if views is None else views
        self.tasks = []
        for number, start in enumerate([0, *range(first, classes, step)]):
            of_task = range(start, min(start + (step if number else first), classes))
            train, test = (TaskImages(part, position, of_task) for part in parts)
            self.tasks.append(Task(number, of_task, train, test))

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)


def views_of(
    source: Source,
    size: int | None = None,
    normalisation: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None,
    memory: int = 0,
    workers: int = 0,
    augmented: bool = True,
) -> tuple[Views, Views]:
    """Make the views of a source's training and test part.

    Parameters
    ----------
    source : Source
    size : int, optional
        Height and width that the backbone takes; by default that of the first image.
    normalisation : tuple, optional
        Mean and standard deviation of each channel; by default the source's own.
    memory : int
        Bytes that both together may use for keeping decoded images.
    workers : int
        Processes that decode.
    augmented : bool
        Whether training views are drawn where the source's transform draws.

    Returns
    -------
    tuple of Views
        Those of the training part, then those of the test part.
    """
    size = source.train.read(0).height if size is None else size
    mean, std = normalisation or (source.mean, source.std)
    # The test part first: its images are seen after every task.
    test = Views(source.test, source.transform(size), mean, std, memory, workers)
    train = Views(source.train, source.transform(size), mean, std, memory - test.memory_used, workers, augmented)
    return train, test
