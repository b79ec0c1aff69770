"""Class means, which several methods rest on."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mist_ext.methods.method import Method


class ClassMeans(Method):
    """Holds the sum of every class's features. A class that comes again gets the mean of all its rows.

    Attributes
    ----------
    sums : Tensor
        float64, ``[classes, d]``: the sums of the features of each class.
    """

    learned: ClassVar[tuple[str, ...]] = ("counts", "sums")

    def __init__(self) -> None:
        super().__init__()
        self.sums = torch.zeros(0, 0, dtype=torch.float64)

    @property
    def prototypes(self) -> Tensor:
        """Return the class means, float64 ``[classes, d]``; zero for a class that was never seen."""
        return self.sums / self.counts.clamp(min=1).unsqueeze(1)

    @property
    def learned_width(self) -> int:
        return self.sums.shape[1]

    def update(self, features: Tensor, targets: Tensor) -> None:
        # A product with one-hot targets, not index_add_, which adds in no fixed order on CUDA.
        sums = targets.T @ features
        if len(self.sums):
            sums[: len(self.sums)] += self.sums
        self.sums = sums
