"""Latin letters that the embedded backbone was not shown: is what it knew still there after tuning?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mist_ext.data.fonts import LATIN_FONTS, render
from mist_ext.data.glyphs import make
from mist_ext.data.image_sets import Images
from mist_ext.data.source import Source

# Letters that distortion (size and place included) makes alike share a class.
CLASSES = (
    *("Cc", "IiJjl", "Kk", "Oo", "Pp", "Ss", "Uu", "Vv", "Ww", "Xx", "Yy", "Zz"),
    *"ABDEFGHLMNQRTabdefghmnqrt",
)
STRENGTH = 0.75  # of the letters' distortion; the glyphs data set is distorted more
PER_CLASS = 15  # in each part: 1,110 images in all, about a second of vit_nano on one core
_SEED = 2306  # any number but that of the glyphs


def render_letters() -> Tensor:
    """Render all classes: the ink, float32 ``[classes, renderings, side, side]`` in [0, 1]."""
    renderings = max(len(members) for members in CLASSES) * len(LATIN_FONTS)
    ink = []
    for members in CLASSES:
        images = [np.asarray(render(letter, font)) for letter in members for font in LATIN_FONTS]
        # Classes of fewer letters repeat theirs, so that every class has the same number of rows.
        ink.append(np.stack([images[i % len(images)] for i in range(renderings)]))
    return torch.from_numpy(np.stack(ink)).to(torch.float32) / 255


def letters() -> Source:
    """Return letters like those that ``vit_nano`` was pre-trained on: same classes, fonts and distortion, other images.

    Their draws come from another generator than those of pre-training, so no image was seen there. For any other
    backbone they are a task that no stream holds. The letters are rendered when asked for, by the fonts that matplotlib
    ships; another version of the font library may move a pixel's grey value.

    Returns
    -------
    Source
        37 classes of letters that are told apart, 15 training and 15 test images each, 32 x 32.
    """
    bitmaps = (render_letters() * 255).round().to(torch.uint8)
    labels = torch.arange(len(CLASSES)).repeat_interleave(PER_CLASS)
    samples = torch.arange(PER_CLASS).repeat(len(CLASSES))
    train, test = (Images(make(bitmaps, part, labels, samples, _SEED, STRENGTH), labels) for part in (0, 1))
    return Source("letters", CLASSES, train, test, tasks=1, layout="rendered")
