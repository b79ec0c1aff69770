"""The class-incremental split: one task after another, each with new classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mist_ext.data.class_order import given, permuted
from mist_ext.data.source import BrokenImage, Source
from mist_ext.data.views import Views
from mist_ext.data.workers import end_with_the_parent, worker_context, workers_start
from mist_ext.distributed import ranks
from mist_ext.distributed.batch_rows import BatchRows
from mist_ext.seeding import draw_seed, generator


class TaskImages(Dataset[tuple[Tensor, int]]):
    """The images of some classes, labelled by the classes' positions in the stream's order.

    Item ``i`` is the view for evaluation, item ``(i, seed)`` a training view.

    Parameters
    ----------
    views : Views
    position : Tensor
        int64, ``[classes]``: each label's position in the class order.
    classes : range
        The positions that belong to this part.

    Attributes
    ----------
    indices : Tensor
        int64, ``[n]``: positions in the source's part.
    labels : Tensor
        int64, ``[n]``.
    """

    def __init__(self, views: Views, position: Tensor, classes: range) -> None:
        self.views = views
        self.classes = classes
        labels = position[views.images.labels]
        self.indices = ((labels >= classes.start) & (labels < classes.stop)).nonzero().flatten()
        self.labels = labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, int]:
        pixels, label = self.unnormalised(item)
        return self.views.normalised(pixels[None])[0], label

    def unnormalised(self, item: int | tuple[int, int]) -> tuple[Tensor, int]:
        """Return an item before normalisation.

        Parameters
        ----------
        item : int or tuple of int
            ``i`` for evaluation's view, ``(i, seed)`` for a training view.

        Returns
        -------
        Tensor
            uint8, ``[3, size, size]``.
        int
            The label.

        Raises
        ------
        BrokenImage
            If the image cannot be decoded.
        """
        i, seed = item if isinstance(item, tuple) else (item, None)
        row = int(self.indices[i])
        pixels = self.views.evaluation(row) if seed is None else self.views.training(row, seed)
        return pixels, int(self.labels[i])

    @classmethod
    def joined(cls, parts: Sequence[TaskImages]) -> TaskImages:
        """Return the images of several tasks of one stream together, without what was left out of them."""
        joint = copy(parts[0])
        joint.classes = range(parts[0].classes.start, parts[-1].classes.stop)
        joint.indices = torch.cat([part.indices for part in parts])
        joint.labels = torch.cat([part.labels for part in parts])
        return joint

    def leave_out(self, items: list[int]) -> None:
        """Remove items, which cannot be decoded.

        Parameters
        ----------
        items : list of int
            Positions among the present items; those behind them move up.
        """
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[items] = False
        self.indices, self.labels = self.indices[kept], self.labels[kept]


class _Unnormalised(Dataset[tuple[Tensor, int]]):
    """A task's images before normalisation: worker processes send a quarter of the bytes."""

    def __init__(self, images: TaskImages) -> None:
        self.images = images

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, int]:
        return self.images.unnormalised(item)


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


class Batches:
    """Batches of images, float32 ``[b, 3, size, size]``, and labels, int64 ``[b]``; the last one may be shorter.

    Parameters
    ----------
    images : Dataset
        `TaskImages`, or any dataset of float32 images and labels.
    batch_size : int
        Images a batch; with ``split="rows"``, those of all ranks together.
    order : tuple, optional
        The key of the shuffled order and of the training views (`seeding.generator`). Without it, images come in
        stored order and as evaluation's views.
    start : int
        Number of the first batch, from 0: those before it were done before an interruption.
    device : torch.device
        Where images and labels go.
    split : str, optional
        How the ranks of a distributed run share the work: ``rows`` gives each rank its rows of every batch (a rank
        without any gets the first row, which is not its own), ``round-robin`` gives each rank whole batches. Without
        it, every rank gets all batches.

    Attributes
    ----------
    rows : list of BatchRows
        How each batch is split over the ranks; this rank's part may be empty.
    idle : bool
        Whether this rank gets one batch fewer than others, with ``round-robin``.
    items : list of list
        For each batch of this rank, the keys by which its images are read from ``images``.
    same : bool
        Whether an item is known to look the same whenever it is asked for: `TaskImages` without drawn views.
    """

    def __init__(
        self,
        images: Dataset[tuple[Tensor, int]],
        batch_size: int,
        order: tuple[int | str, ...] | None,
        start: int = 0,
        device: torch.device | str = "cpu",
        split: Literal["rows", "round-robin"] | None = None,
    ) -> None:
        self.images = images
        self.device = torch.device(device)
        count = len(images)  # type: ignore[arg-type]
        rows = torch.arange(count) if order is None else torch.randperm(count, generator=generator(*order))
        drawn = order is not None and isinstance(images, TaskImages) and images.views.drawn
        self.same = isinstance(images, TaskImages) and not drawn
        items = [(row, draw_seed(*(order or ()), "view", row)) if drawn else row for row in rows.tolist()]
        batches = [items[i : i + batch_size] for i in range(0, count, batch_size)][start:]
        self.rows = [BatchRows.of(len(batch)) for batch in batches]
        self.idle = False
        if split == "rows":
            batches = [batch[rows.own] or batch[:1] for batch, rows in zip(batches, self.rows, strict=True)]
        elif split == "round-robin":
            total = len(batches)
            batches = batches[ranks.rank() :: ranks.size()]
            self.idle = len(batches) < -(-total // ranks.size())
        self.items = batches
        workers = images.views.workers if isinstance(images, TaskImages) else 0
        # The loader draws a seed for its workers: without a generator of its own, from torch's global one.
        loader_generator = generator(*(order or ("stored",)))
        self._loader: DataLoader = DataLoader(
            _Unnormalised(images) if isinstance(images, TaskImages) else images,
            batch_sampler=batches,
            generator=loader_generator,
            num_workers=min(workers, len(batches)),
            multiprocessing_context=worker_context(min(workers, len(batches))),
            worker_init_fn=end_with_the_parent,
            pin_memory=self.device.type == "cuda",
        )

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        broken = ""
        try:
            with workers_start():
                batches = iter(self._loader)
            for pixels, labels in batches:
                pixels = pixels.to(self.device, non_blocking=True)
                if isinstance(self.images, TaskImages):
                    pixels = self.images.views.normalised(pixels)
                yield pixels, labels.to(self.device, non_blocking=True)
        except BrokenImage as error:  # a worker's error has its traceback before the message
            broken = str(error).rpartition("BrokenImage: ")[2].strip()
        if broken:
            raise BrokenImage(f"{broken}; it could be before the task began. Replace it, and go on with --resume")
