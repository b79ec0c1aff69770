"""The class-incremental split: one task after another, each with new classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from mist_ext.data.source import Images, Source
from mist_ext.draws import generator


class TaskImages(Dataset[tuple[Tensor, int]]):
    """The images of some classes, labelled by the classes' positions in the stream's order.

    Parameters
    ----------
    images : Images
    position : Tensor
        int64, ``[classes]``: each label's position in the class order.
    classes : range
        The positions that belong to this part.
    size : int, optional
        Height and width that the backbone takes; images of another size are resampled bilinearly.
    """

    def __init__(self, images: Images, position: Tensor, classes: range, size: int | None = None) -> None:
        self.images = images
        self.size = size
        labels = position[images.labels]
        self.indices = ((labels >= classes.start) & (labels < classes.stop)).nonzero().flatten()
        self.labels = labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        image = self.images[int(self.indices[item])][0]
        if self.size is not None and image.shape[-2:] != (self.size, self.size):
            image = interpolate(image[None], (self.size, self.size), mode="bilinear", antialias=True)[0]
        return image, int(self.labels[item])


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

    The class order is the published one: a permutation of the sorted classes by NumPy's legacy generator (the field
    uses seed 1993). Every task has ``classes_per_task`` classes, the last one what remains.

    Parameters
    ----------
    source : Source
    classes_per_task : int, optional
        By default the source's number of tasks, as even as possible.
    class_order_seed : int
    size : int, optional
        Height and width of the images that the backbone takes; by default the source's own.

    Raises
    ------
    ValueError
        If there are not that many classes.
    """

    def __init__(
        self, source: Source, classes_per_task: int | None, class_order_seed: int, size: int | None = None
    ) -> None:
        classes = len(source.class_names)
        step = math.ceil(classes / source.tasks) if classes_per_task is None else classes_per_task
        if not 1 <= step <= classes:
            raise ValueError(f"classes_per_task is {step}, expected 1 to {classes}, the classes of {source.name!r}")
        self.class_order: list[int] = np.random.RandomState(class_order_seed).permutation(classes).tolist()
        position = torch.empty(classes, dtype=torch.int64)
        position[self.class_order] = torch.arange(classes)
        self.tasks = []
        for number, start in enumerate(range(0, classes, step)):
            part = range(start, min(start + step, classes))
            train, test = (TaskImages(images, position, part, size) for images in (source.train, source.test))
            self.tasks.append(Task(number, part, train, test))

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)


def batches(images: Dataset[tuple[Tensor, int]], batch_size: int, order: tuple[int | str, ...] | None) -> DataLoader:
    """Batches of images and labels, the short last one included.

    Parameters
    ----------
    images : Dataset
    batch_size : int
    order : tuple, optional
        Names the shuffled order (`draws.generator`); the stored order without it.
    """
    count = len(images)  # type: ignore[arg-type]
    rows = torch.arange(count) if order is None else torch.randperm(count, generator=generator(*order))
    # The loader draws a seed for its workers, by default from torch's global generator.
    own = generator(*(order or ("stored",)))
    return DataLoader(images, batch_sampler=[part.tolist() for part in rows.split(batch_size)], generator=own)
