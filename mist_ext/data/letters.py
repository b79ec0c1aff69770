"""Latin letters that the embedded backbone was not shown: is what it knew still there after tuning?"""

from __future__ import annotations

import torch

from mist_ext.assets.pretrain_vit_nano import CLASSES, STRENGTH
from mist_ext.assets.pretrain_vit_nano import letters as ink_of_letters
from mist_ext.data.glyphs import make
from mist_ext.data.source import Images, Source

PER_CLASS = 15  # in each part: 1,110 images in all, about a second of vit_nano on one core
_SEED = 2306  # any number but that of the glyphs


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
    bitmaps = (ink_of_letters() * 255).round().to(torch.uint8)
    labels = torch.arange(len(CLASSES)).repeat_interleave(PER_CLASS)
    samples = torch.arange(PER_CLASS).repeat(len(CLASSES))
    train, test = (Images(make(bitmaps, part, labels, samples, _SEED, STRENGTH), labels) for part in (0, 1))
    return Source("letters", CLASSES, train, test, tasks=1, layout="rendered")
