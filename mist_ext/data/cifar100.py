"""CIFAR-100 (Krizhevsky 2009) from its own archive, which is pickled: nothing but arrays is unpickled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mist_ext.data import pickled
from mist_ext.data.image_sets import Images
from mist_ext.data.published_data_set import Archive, Layout, Parts, PublishedDataSet
from mist_ext.data.scan_report import ScanReport
from mist_ext.data.source import Source

SHAPE = (3, 32, 32)
MOST_BYTES = 256 * 2**20  # of a file; the training part has 155 MB


def read(folder: Path) -> Parts:
    """Read all images into memory: 184 MB for the whole data set."""
    names = _read(folder / "meta").get("fine_label_names")
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise _foreign(folder / "meta", "it has no list fine_label_names")
    class_names = tuple(name.decode("latin1") if isinstance(name, bytes) else name for name in names)
    train, test = (_part(folder / part, len(class_names)) for part in ("train", "test"))
    return Parts(class_names, train, test, ScanReport())


def _part(path: Path, classes: int) -> Images:
    content = _read(path)
    pixels, labels = content.get("data"), content.get("fine_labels")
    if isinstance(labels, np.ndarray):
        labels = labels.ravel().tolist()
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < classes for label in labels):
        raise _foreign(path, f"it has no fine_labels from 0 to {classes - 1}")
    shape = (len(labels), math.prod(SHAPE))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != shape:
        found = f"images of {pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else "no array data"
        raise _foreign(path, f"it has {found} and {len(labels)} labels, expected uint8 {list(shape)}")
    if len(set(labels)) != classes:
        raise _foreign(path, f"it has images of {len(set(labels))} classes, expected all {classes} of meta")
    return Images(torch.from_numpy(pixels.reshape(-1, *SHAPE).copy()), torch.tensor(labels))


def _read(path: Path) -> dict[str, Any]:
    try:
        return pickled.read(path, MOST_BYTES)
    except ValueError as error:
        raise _foreign(path, str(error)) from error


def _foreign(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} is no file of CIFAR-100's archive ({why}); get it anew")


DATA_SET = PublishedDataSet(
    name="cifar100",
    folders=("cifar-100-python", "cifar100"),
    layouts=(Layout("train, test and meta", ("train", "test", "meta"), read),),
    get="--download fetches it from www.cs.toronto.edu/~kriz/cifar.html.",
    # Address and checksum as in torchvision.datasets.CIFAR100.
    archive=Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
    ),
)


def cifar100(root: Path) -> Source:
    """Return 60,000 images of 100 classes, 32 x 32 pixels, 10 tasks of 10."""
    return DATA_SET.source(root)
