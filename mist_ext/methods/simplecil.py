"""SimpleCIL: class means and cosine similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mist_ext.methods.method import Method


class SimpleCIL(Method):
    """Prototypes of frozen features.

    The prototype of class c is the mean of its features, p_c = (1/n_c) sum_i f_i, and a sample belongs to the
    class with the highest cosine similarity, argmax_c cos(f, p_c) (Zhou et al., "Revisiting Class-Incremental
    Learning with Pre-Trained Models: Generalizability and Adaptivity are All You Need", arXiv 2303.07338).
    Nothing is trained, so it is the best test of a data pipeline.

    A class that comes again, which the paper does not treat, gets the mean of all its rows.

    Attributes
    ----------
    sums : Tensor
        float64, ``[classes, d]``: the sums of the features of each class.
    """

    _state = ("counts", "sums")

    def __init__(self) -> None:
        super().__init__()
        self.sums = torch.zeros(0, 0, dtype=torch.float64)

    @property
    def prototypes(self) -> Tensor:
        """float64, ``[classes, d]``: the class means; zero for a class that was never seen."""
        return self.sums / self.counts.clamp(min=1).unsqueeze(1)

    @property
    def _width(self) -> int:
        return self.sums.shape[1]

    def _learn(self, features: Tensor, targets: Tensor) -> None:
        # A product with one-hot targets, not index_add_, which adds in no fixed order on CUDA.
        sums = targets.T @ features
        if self._width:
            sums[: len(self.sums)] += self.sums
        self.sums = sums

    def _scores(self, features: Tensor) -> Tensor:
        return functional.normalize(features, dim=1) @ functional.normalize(self.prototypes, dim=1).T
