"""Characters in renditions that no backbone here was pre-trained on: outlines, stencils, stitches, chalk, ...

As in ImageNet-R, what is to be told apart stays, and how it is shown changes: every class comes in all renditions, and
all tasks share them. Nothing is downloaded; every image is a pure function of its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mist_ext.data.distort import KNOTS, between, colours, place, smooth_fields
from mist_ext.data.draws import image_draws
from mist_ext.data.image_sets import DrawnImages, Images
from mist_ext.data.source import Source

ASSETS = Path(__file__).parent.parent / "assets"
SIDE = 32  # of the images, in pixels
FINE = 2 * SIDE  # of what is drawn, before it is made smaller
TRAIN_PER_CLASS = 120  # about as many as ImageNet-R has
TEST_PER_CLASS = 20
_BLOCK = 500  # images drawn at once

_SCALARS = 26
_FIELDS = 3 * KNOTS * KNOTS
_GRAIN = (FINE // 2) ** 2
DRAWS = 2 + _SCALARS + _FIELDS + _GRAIN
"""Uniform numbers that one image takes: typeface, rendition, and what follows."""


def _axes(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return pixel coordinates along an angle and across it, each ``[n, FINE, FINE]``."""
    axis = torch.arange(FINE, dtype=torch.float32)
    cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
    return axis * cos + axis[:, None] * sin, axis[:, None] * cos - axis * sin


def _dilate(ink: Tensor, pixels: int) -> Tensor:
    return F.max_pool2d(ink[:, None], 2 * pixels + 1, stride=1, padding=pixels).squeeze(1)


def _blur(ink: Tensor, pixels: int) -> Tensor:
    return F.avg_pool2d(ink[:, None], 2 * pixels + 1, stride=1, padding=pixels).squeeze(1)


def outline(ink: Tensor, u: Tensor, grain: Tensor) -> Tensor:
    """Draw the edge alone, one to two pixels wide."""
    return torch.where(
        (u[:, 0] < 0.5)[:, None, None],
        _dilate(ink, 1) - (1 - _dilate(1 - ink, 1)),
        _dilate(ink, 2) - (1 - _dilate(1 - ink, 1)),
    )


def stencil(ink: Tensor, u: Tensor, grain: Tensor) -> Tensor:
    """Cut bridges through the strokes."""
    along, _ = _axes(math.pi * u[:, 0])
    period = between(u[:, 1], 11, 18)[:, None, None]
    return ink * ((along + period * u[:, 2, None, None]) % period > between(u[:, 3], 3.5, 5.5)[:, None, None])


def stitches(ink: Tensor, u: Tensor, grain: Tensor) -> Tensor:
    """Fill the strokes with parallel threads."""
    along, _ = _axes(math.pi * u[:, 0])
    period = between(u[:, 1], 5, 8)[:, None, None]
    return ink * ((along + period * u[:, 2, None, None]) % period < 0.5 * period)


def dots(ink: Tensor, u: Tensor, grain: Tensor) -> Tensor:
    """Fill the strokes with a lattice of dots."""
    along, across = _axes(math.pi * u[:, 0])
    frequency = 2 * math.pi / between(u[:, 1], 6, 9)[:, None, None]
    lattice = torch.cos(frequency * along + 6 * u[:, 2, None, None]) * torch.cos(
        frequency * across + 6 * u[:, 3, None, None]
    )
    return ink * (lattice > 0.25)


def chalk(ink: Tensor, u: Tensor, grain: Tensor) -> Tensor:
    """Leave out specks of the strokes."""
    return _blur(ink, 1) * (_blur(grain, 1) > between(u[:, 0], 0.48, 0.56)[:, None, None])


def mosaic(ink: Tensor, u: Tensor, grain: Tensor) -> Tensor:
    """Lay the strokes in square tiles."""
    tiles = (F.adaptive_avg_pool2d(ink[:, None], 13) > between(u[:, 0], 0.3, 0.5)[:, None, None, None]).float()
    return F.interpolate(tiles, size=(FINE, FINE), mode="nearest").squeeze(1)


def relief(ink: Tensor, u: Tensor, grain: Tensor) -> Tensor:
    """Light the edges from one side: lighter than the paper here, darker there."""
    shifted = torch.stack(
        [
            one.roll((round(3 * math.sin(a)), round(3 * math.cos(a))), (0, 1))
            for one, a in zip(ink, (2 * math.pi * u[:, 0]).tolist(), strict=True)
        ]
    )
    return _blur(shifted - ink, 1)


def glow(ink: Tensor, u: Tensor, grain: Tensor) -> Tensor:
    """Draw a bright tube along the edge, and its halo."""
    edge = _dilate(ink, 1) - (1 - _dilate(1 - ink, 1))
    return (_blur(edge, 2) + 0.6 * _blur(_blur(edge, 4), 4)).clamp(0, 1)


RENDITIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    one.__name__: one for one in (outline, stencil, stitches, dots, chalk, mosaic, relief, glow)
}


def draw(ink: Tensor, draws: Tensor) -> Tensor:
    """Draw characters in renditions.

    Parameters
    ----------
    ink : Tensor
        float32 ``[n, side, side]``, 0 for paper to 1 for ink, any side.
    draws : Tensor
        float32 ``[n, DRAWS]``, uniform in [0, 1).

    Returns
    -------
    Tensor
        uint8 ``[n, 3, 32, 32]``. Image i depends on ``ink[i]`` and ``draws[i]`` alone.
    """
    parts = torch.tensor([2, _SCALARS, _FIELDS]).cumsum(0).tolist()
    first, u, fields, grain = draws.tensor_split(parts, dim=1)
    smooth = smooth_fields(fields, FINE)
    placed = (place(ink, u[:, :6], 0.7 * smooth[:, :2]) * 1.6 - 0.3).clamp(0, 1)
    grain = F.interpolate(grain.view(-1, 1, FINE // 2, FINE // 2), size=(FINE, FINE)).squeeze(1)
    which = (first[:, 1] * len(RENDITIONS)).long()
    stroke = torch.empty_like(placed)
    for number, rendition in enumerate(RENDITIONS.values()):
        rows = which == number
        if rows.any():
            stroke[rows] = rendition(placed[rows], u[rows, 6:12], grain[rows])
    contrast, paper, colour = colours(u[:, 12:21], 0.45, 0.15)
    image = paper + (0.2 * contrast * u[:, 21])[:, None, None, None] * smooth[:, 2:]
    image = image + stroke[:, None] * (colour - paper)
    return (F.avg_pool2d(image, 2).clamp(0, 1) * 255).round().to(torch.uint8)


def make(bitmaps: Tensor, seed: int, part: int, per_class: int) -> Images:
    """Return one part, ``per_class`` images of each class, from uint8 bitmaps ``[classes, typefaces, side, side]``."""
    labels = torch.arange(len(bitmaps)).repeat_interleave(per_class)
    return DrawnImages(partial(_drawn, bitmaps, seed, part, per_class), labels)


def _drawn(bitmaps: Tensor, seed: int, part: int, per_class: int, positions: Tensor) -> Tensor:
    made = []
    for some in positions.split(_BLOCK):
        labels, samples = some // per_class, some % per_class
        pairs = zip(labels.tolist(), samples.tolist(), strict=True)
        draws = torch.from_numpy(np.stack([image_draws(seed, part, *pair, DRAWS) for pair in pairs]))
        typeface = (draws[:, 0] * bitmaps.shape[1]).long()
        made.append(draw(bitmaps[labels, typeface].float() / 255, draws))
    return torch.cat(made)


def renditions() -> Source:
    """Return 100 Hebrew, Georgian, Tifinagh and Ethiopic letters in eight renditions, 10 tasks.

    No embedded backbone has seen one of these scripts, typefaces or renditions.
    """
    return _source("renditions", 2611)


def renditions_again() -> Source:
    """Return the letters of `renditions` in other images, by which nothing was chosen: does what was found hold?"""
    return _source("renditions_again", 2613, letters="renditions")


def renditions_dev() -> Source:
    """Return 100 Thai and Armenian letters in the same renditions: to choose settings on."""
    return _source("renditions_dev", 2512)


def bitmaps_of(name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Return the letters of a data set of this file: uint8 ``[classes, typefaces, side, side]``, and their names."""
    with np.load(ASSETS / f"{name}.npz", allow_pickle=False) as asset:
        return torch.from_numpy(asset["bitmaps"]), tuple(f"U+{code:04X}" for code in asset["code_points"])


def _source(name: str, seed: int, letters: str | None = None) -> Source:
    bitmaps, names = bitmaps_of(letters or name)
    train, test = make(bitmaps, seed, 0, TRAIN_PER_CLASS), make(bitmaps, seed, 1, TEST_PER_CLASS)
    return Source(name, names, train, test, tasks=10)
