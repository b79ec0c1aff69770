"""What every data source gives: images with integer labels, in a training and a test part."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mist_ext.draws import generator


class Images(Dataset[tuple[Tensor, int]]):
    """Images that fit in memory.

    Parameters
    ----------
    pixels : Tensor
        uint8, ``[n, 3, height, width]``.
    labels : Tensor
        int64, ``[n]``, from 0 to classes - 1.

    An item is ``(image, label)``, the image float32 ``[3, height, width]`` in [0, 1].
    """

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels = pixels
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.pixels[index].to(torch.float32) / 255, int(self.labels[index])


@dataclass(frozen=True)
class Source:
    """A labelled data set before it is cut into tasks.

    Attributes
    ----------
    name : str
        As given to ``--data``.
    class_names : tuple of str
        In sorted order; a label is a position in it.
    train, test : Images
        The two parts. Nothing but the final evaluation reads ``test``.
    tasks : int
        The default number of tasks.
    """

    name: str
    class_names: tuple[str, ...]
    train: Images
    test: Images
    tasks: int

    def validation(self, fraction: float = 0.25) -> Source:
        """The same source with a part of every class's training images in the place of the test part.

        The part is fixed, so settings can be chosen on it, and the test images are not read.
        """
        held_out = torch.zeros(len(self.train), dtype=torch.bool)
        for label in range(len(self.class_names)):
            rows = (self.train.labels == label).nonzero().flatten()
            order = torch.randperm(len(rows), generator=generator("validation", self.name, label))
            held_out[rows[order[: round(fraction * len(rows))]]] = True
        train, test = (Images(self.train.pixels[part], self.train.labels[part]) for part in (~held_out, held_out))
        return replace(self, train=train, test=test)
