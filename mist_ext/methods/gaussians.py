"""One Gaussian per class: means and covariances, which several methods rest on."""

from __future__ import annotations

import warnings
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

    _state: ClassVar[tuple[str, ...]] = ("counts", "sums", "products")

    def __init__(self) -> None:
        super().__init__()
        self.products = torch.zeros(0, 0, 0, dtype=torch.float64)

    def covariances(self) -> Tensor:
        """The unbiased covariance of every class: float64 ``[classes, d, d]``.

        A class without any spread (of one image, or of equal ones) takes the mean covariance of the others, or the
        identity where no class has spread; a warning names it.
        """
        counts = self.counts.view(-1, 1, 1).to(torch.float64)
        means = self.prototypes
        centred = self.products - counts * means.unsqueeze(2) * means.unsqueeze(1)
        covariances = centred / (counts - 1).clamp(min=1)
        # What rounding leaves of a difference of equal second moments is no spread.
        powers = self.products.diagonal(dim1=1, dim2=2).sum(dim=1)
        spread = centred.diagonal(dim1=1, dim2=2).sum(dim=1) > 1e-12 * powers
        seen = self.counts > 0
        if bool((lacking := seen & ~spread).any()):
            named = ", ".join(str(position) for position in lacking.nonzero().flatten().tolist())
            warnings.warn(
                f"class {named} has a single image (or equal ones) and so no covariance: "
                f"{type(self).__name__} uses the mean covariance of the other classes",
                stacklevel=2,
            )
            width = covariances.shape[1]
            mean = covariances[spread].mean(dim=0) if bool(spread.any()) else torch.eye(width).to(covariances)
            covariances[lacking] = mean
        return covariances

    def _learn(self, features: Tensor, targets: Tensor) -> None:
        super()._learn(features, targets)
        width = features.shape[1]
        products = features.new_zeros(targets.shape[1], width, width)
        products[: len(self.products)] = self.products if len(self.products) else products[:0]
        for position in targets.any(dim=0).nonzero().flatten().tolist():
            rows = features[targets[:, position] > 0]
            products[position] += rows.T @ rows
        self.products = products


def correlation(covariance: Tensor) -> Tensor:
    """``S[i, j] / (s_i s_j)`` with the standard deviations ``s_i = sqrt(S[i, i])``, for ``[..., d, d]``."""
    deviations = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    return covariance / (deviations.unsqueeze(-1) * deviations.unsqueeze(-2))
