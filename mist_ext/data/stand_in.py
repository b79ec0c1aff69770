"""A stand-in for a data set: as many images of the same classes, of noise.

For what depends on how many images there are and how large they are, and not on what they show.
"""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mist_ext.data import load, published_splits
from mist_ext.data.image_sets import ImageSet
from mist_ext.data.published_data_set import PublishedDataSet
from mist_ext.data.source import Source
from mist_ext.registry import ON_DISK

Size = tuple[int, int]  # width and height in pixels
SMALL, USUAL = (32, 32), (500, 375)  # of CIFAR-100's images; of most others


class Noise(ImageSet):
    """Labelled images of noise; one is always the same.

    Parameters
    ----------
    labels : Tensor
        int64, ``[n]``.
    size : tuple of int
    """

    def __init__(self, labels: Tensor, size: Size) -> None:
        self.labels, self.size = labels, size

    def read(self, index: int) -> Image.Image:
        width, height = self.size
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8))

    def where(self, index: int) -> str:
        return f"noise {index}"

    def subset(self, rows: Tensor) -> Noise:
        return Noise(self.labels[rows], self.size)


def stand_in(name: str, root: str | Path | None = None, test_fraction: float = 0.2) -> tuple[Source, str]:
    """Return a data set's stand-in, and in words where the numbers are from if it is not there itself.

    Parameters
    ----------
    name, root, test_fraction
        As `mist_ext.data.load` takes them.

    Returns
    -------
    Source
        With the data set's own labels, in images of the size of its first one; where it is not there, with the
        numbers of its published split, the classes equally large.
    str
        Empty where the data set is there.

    Raises
    ------
    ValueError, FileNotFoundError
        As `mist_ext.data.load` raises them, for a data set that was not published either.
    """
    try:
        source = load(name, root, test_fraction)
    except FileNotFoundError:
        if name not in published_splits.SPLITS:
            raise
        split = published_splits.SPLITS[name][0]
        return _published(name, split), f"{name} is not there: numbers of images are those of {split.words}"
    return _noise(source, source.train.labels, source.test.labels, source.train.read(0).size), ""


def _published(name: str, split: published_splits.Split) -> Source:
    data_set: PublishedDataSet = pkgutil.resolve_name(ON_DISK[name].partition(":")[0] + ":DATA_SET")
    classes = published_splits.CLASSES[name]
    train, test = (torch.arange(count) % classes for count in (split.train, split.test))
    size = SMALL if name == "cifar100" else USUAL
    names = tuple(f"class {label:03d}" for label in range(classes))
    nothing = Noise(train[:0], size)
    source = Source(
        name, names, nothing, nothing, data_set.tasks, data_set.transform, data_set.mean, data_set.std, split.words
    )
    return _noise(source, train, test, size)


def _noise(source: Source, train: Tensor, test: Tensor, size: Size) -> Source:
    return replace(source, train=Noise(train, size), test=Noise(test, size))
