"""scikit-learn's handwritten digits; nothing is downloaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mist_ext.data.image_sets import Images
from mist_ext.data.source import Source

SIDE = 32
TEST_FRACTION = 0.3
_SEED = 0


def _test_rows(labels: Tensor) -> Tensor:
    """Return which images are test images: bool ``[n]``, 30 % of every class, rounded, the same in every process."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        rows = torch.nonzero(labels == label).squeeze(1)
        # random_raw is the part of numpy's generators that is promised to stay the same in every version.
        order = np.argsort(np.random.Philox(key=[_SEED, label]).random_raw(len(rows)), kind="stable")
        chosen[rows[torch.from_numpy(order[: round(TEST_FRACTION * len(rows))])]] = True
    return chosen


def _table() -> np.ndarray:
    """Return the digits, float64 ``[1797, 65]``: in each row the 64 pixels of an image, and its label.

    They are read from scikit-learn's file, since importing scikit-learn takes as long as a small run.
    """
    spec = find_spec("sklearn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz" if spec and spec.origin else None
    if file and file.is_file():
        return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits  # of a version that keeps them elsewhere

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])


def digits() -> Source:
    """Return 1,797 handwritten digits (UCI "Optical Recognition of Handwritten Digits", test part, CC BY 4.0).

    The 8 x 8 images of 0 to 16 are scaled to [0, 255], enlarged to 32 x 32 (bilinear) and repeated over
    three channels.

    Returns
    -------
    Source
        10 classes, 2 tasks by default; a fixed stratified 30 % of every class is the test part.
    """
    table = torch.from_numpy(_table())
    small = table[:, :-1].reshape(-1, 1, 8, 8).to(torch.float32) * (255 / 16)
    large = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    pixels = large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = table[:, -1].to(torch.int64)
    test = _test_rows(labels)
    names = tuple(map(str, range(10)))
    train, held = (Images(pixels[rows], labels[rows]) for rows in (~test, test))
    return Source("digits", names, train, held, tasks=2)
