"""Random distortion of character bitmaps, for the glyphs data and for the embedded backbone's letters.

Everything is a function of the bitmap and of a row of uniform numbers, sample by sample: where the numbers
come from (a counter-based generator for data, a plain one for pre-training) is the caller's affair.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 32  # of the images made, in pixels
KNOTS = 4  # the elastic field and the background are smooth fields through 4 x 4 random knots
_SCALARS = 28
_FIELD = KNOTS * KNOTS

# Scalars whose mildest value is 1 (contrast; no line and no cover) or 0 (polarity, uneven background, grain)
# rather than the middle.
_CALM_SCALARS = ([9, 21, 26], [11, 18, 27])

DRAWS = _SCALARS + 3 * _FIELD + SIDE * SIDE
"""Uniform numbers that one image takes."""


def soften(draws: Tensor, strength: float) -> Tensor:
    """Return the draws of a milder distortion, for a curriculum.

    Parameters
    ----------
    draws : Tensor
        float32 ``[n, DRAWS]``, uniform in [0, 1).
    strength : float
        From 0 (upright, white on black, nothing covered) to 1 (``draws`` as they are).
    """
    calm = torch.full((DRAWS,), 0.5)
    calm[_CALM_SCALARS[0]] = 1.0
    calm[_CALM_SCALARS[1]] = 0.0
    return torch.lerp(calm, draws, strength)


def between(draw: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * draw


def smooth_fields(knots: Tensor, side: int) -> Tensor:
    """Return smooth fields ``[n, fields, side, side]`` in about -1 to 1 from uniform numbers ``[n, fields * 16]``."""
    grid = knots.reshape(len(knots), -1, KNOTS, KNOTS) * 2 - 1
    return F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=True)


def place(ink: Tensor, u: Tensor, field: Tensor) -> Tensor:
    """Return ink ``[n, side, side]`` after an affine map of six numbers and an elastic field ``[n, 2, side, side]``."""
    side = field.shape[-1]
    angle = between(u[:, 0], -0.45, 0.45)  # radians: 26 degrees
    size = between(u[:, 1], 0.6, 1.05)
    aspect = torch.exp(between(u[:, 2], -0.25, 0.25))
    shear = between(u[:, 3], -0.3, 0.3)
    # The map goes from the image made to the bitmap, so sizes divide.
    cos, sin = torch.cos(angle), torch.sin(angle)
    x_scale, y_scale = 1 / (size * aspect), aspect / size
    shift = between(u[:, 4:6], -0.2, 0.2)
    rows = (
        torch.stack([x_scale * cos, x_scale * (shear * cos - sin), shift[:, 0]], dim=1),
        torch.stack([y_scale * sin, y_scale * (shear * sin + cos), shift[:, 1]], dim=1),
    )
    grid = F.affine_grid(torch.stack(rows, dim=1), [len(ink), 1, side, side], align_corners=False)
    grid = grid + 0.12 * field.permute(0, 2, 3, 1)
    return F.grid_sample(ink[:, None], grid, align_corners=False).squeeze(1)


def _weighted(ink: Tensor, u: Tensor) -> Tensor:
    """Return ink with thicker or thinner, sharper or softer strokes."""
    soft = F.avg_pool2d(ink[:, None], 3, stride=1, padding=1).squeeze(1)
    threshold = between(u[:, 0], 0.1, 0.4)[:, None, None]
    gain = between(u[:, 1], 1.5, 5)[:, None, None]
    stroke = ((soft - threshold) * gain + 0.25).clamp(0, 1)
    blurred = F.avg_pool2d(stroke[:, None], 3, stride=1, padding=1).squeeze(1)
    return torch.lerp(stroke, blurred, u[:, 2, None, None])


def colours(u: Tensor, least_contrast: float, tint: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return contrasts ``[n]``, and the colours of paper and ink ``[n, 3, 1, 1]``, from nine numbers an image."""
    contrast = between(u[:, 0], least_contrast, 1.0)
    dark = u[:, 1] * (1 - contrast)
    light = dark + contrast
    inverted = u[:, 2] < 0.5
    paper_level = torch.where(inverted, dark, light)
    ink_level = torch.where(inverted, light, dark)
    tints = between(u[:, 3:9], -tint, tint)
    paper = (paper_level[:, None] + tints[:, :3])[:, :, None, None]
    return contrast, paper, (ink_level[:, None] + tints[:, 3:])[:, :, None, None]


def distort(ink: Tensor, draws: Tensor) -> Tensor:
    """Draw characters as if photographed: moved, bent, on a background, in varying contrast, partly covered.

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
    if draws.shape != (len(ink), DRAWS):
        raise ValueError(
            f"draws have shape {tuple(draws.shape)}; expected ({len(ink)}, {DRAWS}), a row for each bitmap"
        )
    u, fields, noise = draws.tensor_split((_SCALARS, _SCALARS + 3 * _FIELD), dim=1)
    smooth = smooth_fields(fields, SIDE)
    stroke = _weighted(place(ink, u[:, 0:6], smooth[:, :2]), u[:, 6:9])

    contrast, paper, colour = colours(u[:, 9:18], 0.3, 0.12)
    paper = paper + (0.4 * contrast * u[:, 18])[:, None, None, None] * smooth[:, 2:]

    axis = torch.linspace(-1, 1, SIDE)
    y, x = axis[:, None], axis[None, :]
    # A stray line in the ink's colour, at full strength in half of the images.
    angle = (u[:, 19] * math.pi)[:, None, None]
    offset = between(u[:, 20], -0.9, 0.9)[:, None, None]
    width = torch.where(u[:, 21] < 0.5, 0.12 * u[:, 21], -1.0)[:, None, None]
    line = ((x * torch.cos(angle) + y * torch.sin(angle) - offset).abs() < width).to(ink.dtype)
    stroke = torch.maximum(stroke, line)
    image = paper + stroke[:, None] * (colour - paper)

    # A covering rectangle of any grey, at full strength in six of ten images.
    centre = between(u[:, 22:24], -0.8, 0.8)[:, :, None, None]
    half = between(u[:, 24:26], 0.1, 0.4)[:, :, None, None]
    inside = ((x - centre[:, 0]).abs() < half[:, 0]) & ((y - centre[:, 1]).abs() < half[:, 1])
    covered = inside & (u[:, 26] < 0.6)[:, None, None]
    image = torch.where(covered[:, None], u[:, 27, None, None, None], image)

    # The noise's own strength reuses the cover's grey, which has nothing to do with it.
    grain = 0.2 * u[:, 27, None, None] * (noise.reshape(-1, SIDE, SIDE) - 0.5)
    return ((image + grain[:, None]).clamp(0, 1) * 255).round().to(torch.uint8)
