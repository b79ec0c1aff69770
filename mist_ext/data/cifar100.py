"""CIFAR-100 (Krizhevsky 2009) from its own archive, which is pickled: nothing but arrays is unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mist_ext.data.noticed import Noticed
from mist_ext.data.on_disk import Archive, Layout, OnDisk, Parts
from mist_ext.data.source import Images, Source

SHAPE = (3, 32, 32)
# What NumPy arrays are pickled with, by old and new versions of it. `encode` is how Python 3 writes bytes for Python 2.
ALLOWED = frozenset(
    (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )
)
# What reading a pickle that is cut or altered may raise.
DAMAGED = (pickle.UnpicklingError, EOFError, LookupError, ValueError, TypeError, AttributeError, MemoryError)


class ArrayUnpickler(pickle.Unpickler):
    """Reads numbers, strings, lists, dictionaries and NumPy arrays; refuses everything else before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        """The callable that a pickle asks for, if it is one of ``ALLOWED``."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return super().find_class(module, name)


def read(folder: Path) -> Parts:
    """All images, in memory: 184 MB for the whole data set."""
    names = _entry(folder / "meta", "fine_label_names")
    class_names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    train, test = (_part(folder / part, len(class_names)) for part in ("train", "test"))
    return Parts(class_names, train, test, Noticed())


def _part(path: Path, classes: int) -> Images:
    content = unpickled(path)
    pixels, labels = np.asarray(_value(content, "data", path)), np.asarray(_value(content, "fine_labels", path))
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), int(np.prod(SHAPE))):
        raise ValueError(
            f"{path} has images of {pixels.dtype} {list(pixels.shape)} and {len(labels)} labels, expected uint8 "
            f"[{len(labels)}, 3072]; get the archive anew"
        )
    if not np.array_equal(np.unique(labels), np.arange(classes)):
        raise ValueError(
            f"{path} has images of {len(np.unique(labels))} classes, expected all {classes} of {path.with_name('meta')}"
        )
    return Images(torch.from_numpy(pixels.reshape(-1, *SHAPE).copy()), torch.from_numpy(labels.astype(np.int64)))


def _entry(path: Path, key: str) -> Any:
    return _value(unpickled(path), key, path)


def _value(content: Any, key: str, path: Path) -> Any:
    """An entry of the archive's dictionaries, whose keys are bytes in copies that Python 3 has written."""
    for spelling in (key, key.encode()):
        if isinstance(content, dict) and spelling in content:
            return content[spelling]
    raise ValueError(f"{path} has no entry {key!r}: it is not from CIFAR-100's archive; get it anew")


def unpickled(path: Path) -> Any:
    """Read one of the archive's files.

    Raises
    ------
    ValueError
        If it is damaged, or asks for anything but arrays; nothing was called then.
    """
    with open(path, "rb") as file:
        try:
            # Latin-1 as torchvision does it: Python 2's strings of bytes, and arrays made of them, come out whole.
            return ArrayUnpickler(file, encoding="latin1").load()
        except DAMAGED as error:
            raise ValueError(f"{path} is no file of CIFAR-100's archive ({error}); get it anew") from error


DATA_SET = OnDisk(
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
    """60,000 images of 100 classes, 32 x 32 pixels, 10 tasks of 10."""
    return DATA_SET.source(root)
