"""How long a run of a sweep takes, and how much memory, from timed steps and the numbers of images of its tasks."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mist_ext.config import Config
from mist_ext.data.source import Source
from mist_ext.data.stream import Stream, views_of
from mist_ext.methods import named
from mist_ext.sweep.timing import MethodTime, TuningTime
from mist_ext.tuners import named as tuner_named


@dataclass(frozen=True)
class Tasks:
    """The numbers of images of a run's tasks.

    Attributes
    ----------
    train, test : tuple of int
        One for each task.
    kept : int
        Bytes of decoded images that the run keeps in main memory.
    """

    train: tuple[int, ...]
    test: tuple[int, ...]
    kept: int

    @classmethod
    def of(cls, options: Config, source: Source, input_size: int) -> Tasks:
        """Count the images of each task of a run's first seed; ``source`` may be a stand-in."""
        if options.evaluate_on == "validation":
            source = source.validation()
        if options.images_per_class is not None:
            source = source.with_fewer(options.images_per_class)
        order = options.seeds[0] if options.class_order_seed is None else options.class_order_seed
        augmented = options.augmentation == "auto"
        views = views_of(source, input_size, None, round(options.image_memory * 1e9), augmented=augmented)
        stream = Stream(source, options.classes_per_task, order, views, options.first_task_classes, options.class_order)
        train, test = (tuple(len(getattr(task, part)) for task in stream) for part in ("train", "test"))
        return cls(train, test, sum(each.memory_used for each in views))

    def extracted(self, task: int, moved: bool) -> int:
        """Return the images of which features are needed in a task: where they moved, those of earlier tests too."""
        return self.train[task] + sum(self.test[: task + 1] if moved else self.test[task : task + 1])


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Attributes
    ----------
    seconds : float
    memory : int
        Bytes at the peak.
    """

    seconds: float
    memory: int


def estimate(
    options: Config, tasks: Tasks, tuning: TuningTime, methods: Mapping[str, MethodTime], start: float
) -> Estimate:
    """Add up what a run takes: its start, its tuning once, then what each method trains, extracts and learns.

    Not counted: reading image files, predictions, diagnoses, saving results.
    """
    moves = tuner_named(options.tuner[0]).moves_backbone
    trained = [name for name in methods if named(name).trains]
    shared = [name for name in methods if name not in trained][:1]  # whose features serve all that train nothing
    seconds = start
    for task, images in enumerate(tasks.train):
        epochs = (task == 0 and options.first_task_epochs) or options.epochs
        seconds += tuning.seconds(epochs, images / options.batch_size)
        for name, spent in methods.items():
            trains_on = sum(tasks.train[: task + 1]) if named(name).rehearses else images
            seconds += spent.training_seconds(task, trains_on) + spent.learning
            if name in trained or name in shared:
                moved = moves or (name in trained and bool(spent.training[1]))
                seconds += spent.extraction_seconds(task, tasks.extracted(task, moved))
    return Estimate(seconds, max(tuning.memory, *(spent.memory for spent in methods.values())))


def makespan(seconds: Sequence[float], jobs: int) -> float:
    """Return when the last of some runs ends, of which so many run at a time, begun in this order."""
    free = [0.0] * jobs
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)
