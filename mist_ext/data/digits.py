"""scikit-learn's handwritten digits; nothing is downloaded."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mist_ext.data.source import Images, Source

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


def digits() -> Source:
    """Return 1,797 handwritten digits (UCI "Optical Recognition of Handwritten Digits", test part, CC BY 4.0).

    The 8 x 8 images of 0 to 16 are scaled to [0, 255], enlarged to 32 x 32 (bilinear) and repeated over
    three channels.

    Returns
    -------
    Source
        10 classes, 2 tasks by default; a fixed stratified 30 % of every class is the test part.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).to(torch.float32)[:, None] * (255 / 16)
    large = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    pixels = large.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    test = _test_rows(labels)
    names = tuple(str(name) for name in bunch.target_names)
    train, held = (Images(pixels[rows], labels[rows]) for rows in (~test, test))
    return Source("digits", names, train, held, tasks=2)
