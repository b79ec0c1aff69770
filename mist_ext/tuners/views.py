"""The two views of a batch: the images, and a copy of each that is flipped, made grey and cropped by chance."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from mist_ext.distributed.batch_rows import BatchRows

TRIALS = 10  # to find a box that fits the image
GREY = (0.299, 0.587, 0.114)  # of red, green and blue: luma, ITU-R BT.601


class TwoViews(nn.Module):
    """A batch joined by an augmented copy: flip, grey, random resized crop, each drawn per sample.

    The crop is that of the published code. Its box has whole pixels as width and height and begins at a half or a whole
    pixel; the edges of the box become those of the view. Pixels are interpolated bilinearly, and mirrored where a half
    pixel lies beyond the image.

    Parameters
    ----------
    flip, grey : float
        Probabilities of a mirror image and of a grey one.
    scale, ratio : tuple of float
        Bounds of the box's area, as a part of the image's, and of its width by its height.
    """

    def __init__(
        self,
        flip: float = 0.5,
        grey: float = 0.25,
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        super().__init__()
        self.flip = flip
        self.grey = grey
        self.scale = scale
        self.ratio = ratio

    @torch.no_grad()
    def forward(self, images: Tensor, seed: int, rows: BatchRows | None = None) -> Tensor:
        """Return images and their augmented views: ``[B, 3, height, width]`` to ``[2 B, 3, height, width]``.

        The views depend on images and seed alone. With ``rows`` the images are this rank's part of a joint batch,
        and get the views that they have in it.
        """
        if rows is not None and rows.empty:
            return torch.cat([images, images])
        count, own = (len(images), slice(None)) if rows is None else (rows.count, rows.own)
        height, width = images.shape[-2:]
        drawing = torch.Generator().manual_seed(seed)
        flipped, greyed = (torch.rand(2, count, generator=drawing) < torch.tensor([[self.flip], [self.grey]]))[:, own]
        boxes = draw_boxes(count, (height, width), self.scale, self.ratio, drawing)[own]
        views = _where(flipped, images.flip(3), images)
        views = _where(greyed, (views * views.new_tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True), views)
        return torch.cat([images, crop(views, boxes)])


def draw_boxes(
    count: int, size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], drawing: torch.Generator
) -> Tensor:
    """Draw one box for each image; an image that none of ten fits is taken whole.

    Parameters
    ----------
    count : int
    size : tuple of int
        Height and width of the images.
    scale, ratio : tuple of float
        As in `TwoViews`: the area is drawn uniformly, the ratio by its logarithm.
    drawing : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor
        float32 ``[count, 4]``: left, top, width and height, in pixels.
    """
    height, width = size
    area, logarithm = torch.rand(2, count, TRIALS, generator=drawing)
    area = (scale[0] + (scale[1] - scale[0]) * area) * height * width
    ratios = (math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * logarithm).exp()
    widths, heights = (area * ratios).sqrt().round(), (area / ratios).sqrt().round()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.gather(1, first).squeeze(1)
    across = torch.where(found, widths.gather(1, first).squeeze(1), width)
    down = torch.where(found, heights.gather(1, first).squeeze(1), height)
    left, top = torch.rand(2, count, generator=drawing)
    # Any of the half pixels from 0 to where the box meets the other edge.
    left, top = (left * (2 * (width - across) + 1)).floor() / 2, (top * (2 * (height - down) + 1)).floor() / 2
    return torch.stack([left, top, across, down], dim=1)


def crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Return the boxes, resized bilinearly to the images' size.

    Parameters
    ----------
    images : Tensor
        Float, ``[n, channels, height, width]``.
    boxes : Tensor
        float32 ``[n, 4]``, left, top, width and height in pixels, within the images.
    """
    height, width = images.shape[-2:]
    left, top, across, down = boxes.to(images.device, images.dtype).T[:, :, None]

    def along(start: Tensor, length: Tensor, pixels: int) -> Tensor:
        """Return where each pixel of the view comes from, where -1 and 1 are the image's edges: ``[n, pixels]``."""
        centres = (2 * torch.arange(pixels, device=images.device, dtype=images.dtype) + 1) / pixels - 1
        return length / pixels * centres + ((2 * start + length) / pixels - 1)

    shape = (len(images), height, width)
    x, y = along(left, across, width)[:, None, :].expand(shape), along(top, down, height)[:, :, None].expand(shape)
    return grid_sample(images, torch.stack([x, y], dim=3), padding_mode="reflection", align_corners=False)


def _where(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(chosen.to(images.device).view(-1, 1, 1, 1), changed, images)
