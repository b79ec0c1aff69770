"""One Gaussian per class: means and covariances, which several methods rest on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mist_ext.methods.prototypes import ClassMeans


class ClassGaussians(ClassMeans):
    """Holds the second moments of every class's features, d^2 numbers a class, beside their sums.

    Attributes
    ----------
    products : Tensor
        float64, ``[classes, d, d]``: the sums of ``f f^T`` over the features of each class.
    """

    learned: ClassVar[tuple[str, ...]] = ("counts", "sums", "products")

    def __init__(self) -> None:
        super().__init__()
        self.products = torch.zeros(0, 0, 0, dtype=torch.float64)

    def covariances(self, positions: Sequence[int]) -> Tensor:
        """Return the unbiased covariances of some classes: float64 ``[len(positions), d, d]``.

        A class without any spread (of one image, or of equal ones) takes the mean covariance of the others, or the
        identity where no class has spread; a warning names it.
        """
        means = self.prototypes
        powers = self.products.diagonal(dim1=1, dim2=2)
        variations = powers - self.counts.unsqueeze(1) * means.square()
        # What rounding leaves of a difference of equal second moments is no spread.
        spread = variations.sum(dim=1) > 1e-12 * powers.sum(dim=1)

        def covariance(position: int) -> Tensor:
            count, mean = self.counts[position].to(torch.float64), means[position]
            return (self.products[position] - count * mean.unsqueeze(1) * mean) / (count - 1).clamp(min=1)

        lacking = [position for position in positions if self.counts[position] > 0 and not spread[position]]
        substitute = torch.eye(self.learned_width).to(means)
        if lacking:
            warnings.warn(
                f"class {', '.join(map(str, lacking))} in the order of the tasks, from 0, has a single image (or equal "
                "ones) and so no covariance: "
                f"{type(self).__name__} uses the mean covariance of the other classes",
                stacklevel=2,
            )
            if others := spread.nonzero().flatten().tolist():
                substitute = sum(map(covariance, others), torch.zeros_like(substitute)) / len(others)
        return torch.stack([substitute if position in lacking else covariance(position) for position in positions])

    def memory(self, rows: int, features: int, classes: int) -> int:
        """Return the bytes of the second moments before and after a task, and of the matrices that are made of them."""
        return 4 * 8 * classes * features * features

    def update(self, features: Tensor, targets: Tensor) -> None:
        super().update(features, targets)
        width = features.shape[1]
        products = features.new_zeros(targets.shape[1], width, width)
        products[: len(self.products)] = self.products if len(self.products) else products[:0]
        for position in targets.any(dim=0).nonzero().flatten().tolist():
            rows = features[targets[:, position] > 0]
            products[position] += rows.T @ rows
        self.products = products


def correlation(covariance: Tensor) -> Tensor:
    """Return ``S[i, j] / (s_i s_j)`` with the standard deviations ``s_i = sqrt(S[i, i])``, for ``[..., d, d]``."""
    deviations = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    return covariance / (deviations.unsqueeze(-1) * deviations.unsqueeze(-2))
