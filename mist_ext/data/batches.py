"""Batches of a task's images in an order that follows from a key, read by worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mist_ext.data.decode import BrokenImage
from mist_ext.data.task_images import TaskImages
from mist_ext.data.workers import end_with_the_parent, worker_context, workers_start
from mist_ext.distributed import ranks
from mist_ext.distributed.batch_rows import BatchRows
from mist_ext.seeding import draw_seed, generator


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
        self.device = torch.device(device)
        count = len(images)  # type: ignore[arg-type]
        rows = torch.arange(count) if order is None else torch.randperm(count, generator=generator(*order))
        task = images if isinstance(images, TaskImages) else None
        self._views = None if task is None else task.views
        drawn = order is not None and self._views is not None and self._views.drawn
        self.same = task is not None and not drawn
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
        workers = min(0 if self._views is None else self._views.workers, len(batches))
        # The loader draws a seed for its workers: without a generator of its own, from torch's global one.
        loader_generator = generator(*(order or ("stored",)))
        self._loader: DataLoader = DataLoader(
            images if task is None else _Unnormalised(task),
            batch_sampler=batches,
            generator=loader_generator,
            num_workers=workers,
            multiprocessing_context=worker_context(workers),
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
                if self._views is not None:
                    pixels = self._views.normalised(pixels)
                yield pixels, labels.to(self.device, non_blocking=True)
        except BrokenImage as error:  # a worker's error has its traceback before the message
            broken = str(error).rpartition("BrokenImage: ")[2].strip()
        if broken:
            raise BrokenImage(f"{broken}; it could be before the task began. Replace it, and go on with --resume")


class _Unnormalised(Dataset[tuple[Tensor, int]]):
    """A task's images before normalisation: worker processes send a quarter of the bytes."""

    def __init__(self, images: TaskImages) -> None:
        self.images = images

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, int]:
        return self.images.unnormalised(item)
