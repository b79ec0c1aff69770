"""100 classes of non-Latin characters under strong random distortion; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mist_ext.data.distort import DRAWS, distort, soften
from mist_ext.data.draws import image_draws
from mist_ext.data.image_sets import Images
from mist_ext.data.source import Source

ASSET = Path(__file__).parent.parent / "assets" / "glyphs.npz"
STRENGTH = 0.85  # above the 0.75 of the embedded backbone's pre-training
TRAIN_PER_CLASS = 40
TEST_PER_CLASS = 20
_SEED = 2505  # any number; a different one is a different data set
_BLOCK = 1000  # images distorted at once, which keeps the working memory below 100 MB


def make(
    bitmaps: Tensor, part: int, labels: Tensor, samples: Tensor, seed: int = _SEED, strength: float = STRENGTH
) -> Tensor:
    """Return distorted images, each determined by its part, its class, its number in the class and the seed.

    Parameters
    ----------
    bitmaps : Tensor
        uint8 ``[classes, styles, side, side]``, 255 for ink.
    part : int
        0 for training, 1 for test.
    labels, samples : Tensor
        int64 ``[n]``: the class, and the number of the sample in it.
    seed : int
        Of all draws.
    strength : float
        Of the distortion (`soften`).

    Returns
    -------
    Tensor
        uint8 ``[n, 3, 32, 32]``.
    """
    made = []
    for start in range(0, len(labels), _BLOCK):
        rows = slice(start, start + _BLOCK)
        pairs = zip(labels[rows].tolist(), samples[rows].tolist(), strict=True)
        draws = torch.from_numpy(
            np.stack([image_draws(seed, part, label, sample, DRAWS + 1) for label, sample in pairs])
        )
        style = (draws[:, 0] * bitmaps.shape[1]).long()
        ink = bitmaps[labels[rows], style].to(torch.float32) / 255
        made.append(distort(ink, soften(draws[:, 1:], strength)))
    return torch.cat(made)


def _part(bitmaps: Tensor, part: int, per_class: int) -> Images:
    labels = torch.arange(len(bitmaps)).repeat_interleave(per_class)
    samples = torch.arange(per_class).repeat(len(bitmaps))
    return Images(make(bitmaps, part, labels, samples), labels)


def glyphs() -> Source:
    """Return Greek, Cyrillic, Armenian, Georgian, Hebrew, Arabic, Lao, N'Ko, ... letters and mathematical symbols.

    None looks like a Latin letter or a digit, so a backbone pre-trained on Latin letters has seen none of the
    classes. The base bitmaps (DejaVu Sans, regular and bold) come with the package, made by
    ``tools/make_glyphs.py``.

    Returns
    -------
    Source
        100 classes, 10 tasks by default; 40 training and 20 test images per class, 32 x 32, the same in every
        process.
    """
    with np.load(ASSET, allow_pickle=False) as asset:
        bitmaps = torch.from_numpy(asset["bitmaps"])
        names = tuple(f"U+{code:04X}" for code in asset["code_points"])
    train, test = _part(bitmaps, 0, TRAIN_PER_CLASS), _part(bitmaps, 1, TEST_PER_CLASS)
    return Source("glyphs", names, train, test, tasks=10)
