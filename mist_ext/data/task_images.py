"""The images of some classes of a stream, as evaluation and training see them."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mist_ext.data.views import Views


class TaskImages(Dataset[tuple[Tensor, int]]):
    """The images of some classes, labelled by the classes' positions in the stream's order.

    Item ``i`` is the view for evaluation, item ``(i, seed)`` a training view.

    Parameters
    ----------
    views : Views
    position : Tensor
        int64, ``[classes]``: each label's position in the class order.
    classes : range
        The positions that belong to this part.

    Attributes
    ----------
    indices : Tensor
        int64, ``[n]``: positions in the source's part.
    labels : Tensor
        int64, ``[n]``.
    """

    def __init__(self, views: Views, position: Tensor, classes: range) -> None:
        self.views = views
        self.classes = classes
        labels = position[views.images.labels]
        self.indices = ((labels >= classes.start) & (labels < classes.stop)).nonzero().flatten()
        self.labels = labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, int]:
        pixels, label = self.unnormalised(item)
        return self.views.normalised(pixels[None])[0], label

    def unnormalised(self, item: int | tuple[int, int]) -> tuple[Tensor, int]:
        """Return an item before normalisation.

        Parameters
        ----------
        item : int or tuple of int
            ``i`` for evaluation's view, ``(i, seed)`` for a training view.

        Returns
        -------
        Tensor
            uint8, ``[3, size, size]``.
        int
            The label.

        Raises
        ------
        BrokenImage
            If the image cannot be decoded.
        """
        i, seed = item if isinstance(item, tuple) else (item, None)
        row = int(self.indices[i])
        pixels = self.views.evaluation(row) if seed is None else self.views.training(row, seed)
        return pixels, int(self.labels[i])

    @classmethod
    def joined(cls, parts: Sequence[TaskImages]) -> TaskImages:
        """Return the images of several tasks of one stream together, without what was left out of them."""
        joint = copy(parts[0])
        joint.classes = range(parts[0].classes.start, parts[-1].classes.stop)
        joint.indices = torch.cat([part.indices for part in parts])
        joint.labels = torch.cat([part.labels for part in parts])
        return joint

    def leave_out(self, items: list[int]) -> None:
        """Remove items, which cannot be decoded.

        Parameters
        ----------
        items : list of int
            Positions among the present items; those behind them move up.
        """
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[items] = False
        self.indices, self.labels = self.indices[kept], self.labels[kept]
