"""A task without data: noise of the right size, with labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mist_ext.seeding import generator

SEED = 1993  # of everything that is drawn
MOST_CLASSES = 10  # of the task


class NoiseImages(Dataset[tuple[Tensor, int]]):
    """One batch of noise, over and over: what an image shows changes nothing about what it costs.

    Parameters
    ----------
    size : int
        Height and width of the images, in pixels.
    batch_size : int
        Images that differ.
    batches : int
        How often there are that many.

    Attributes
    ----------
    pixels : Tensor
        float32 ``[batch_size, 3, size, size]``.
    labels : Tensor
        int64 ``[batch_size * batches]``.
    classes : range
        Those of the task: as many as have two images in a batch, `MOST_CLASSES` at most.
    """

    def __init__(self, size: int, batch_size: int, batches: int) -> None:
        drawing = generator(SEED, "noise", size, batch_size)
        self.pixels = torch.randn(batch_size, 3, size, size, generator=drawing)
        self.classes = range(max(1, min(MOST_CLASSES, batch_size // 2)))
        self.labels = (torch.randperm(batch_size, generator=drawing) % len(self.classes)).repeat(batches)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        return self.pixels[item % len(self.pixels)], int(self.labels[item])
