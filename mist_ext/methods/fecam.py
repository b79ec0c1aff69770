"""FeCAM: a Mahalanobis distance with every class's own covariance."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mist_ext.methods.gaussians import ClassGaussians, correlation


class FeCAM(ClassGaussians):
    """Class means and covariances of frozen features.

    Goswami et al., "FeCAM: Exploiting the Heterogeneity of Class Distributions in Exemplar-Free Continual Learning",
    arXiv 2309.14062, section 4. Features are divided by their length. The covariance S_c of class c is shrunk (equation
    8) and becomes a correlation matrix (equation 9), so that the distances to several classes can be compared::

        S' = S + gamma1 V1 I + gamma2 V2 (1 - I)      R[i, j] = S'[i, j] / (s_i s_j),  s_i = sqrt(S'[i, i])
        class = argmin_c (f - mu_c)^T R_c^-1 (f - mu_c)

    with V1 the mean of S's diagonal and V2 that of its other entries. The paper's Tukey transform is for the
    non-negative features of a ReLU network; as in the published code for a ViT it is left out.

    Parameters
    ----------
    gamma1, gamma2 : float
        Shrinkage. The published code for a ViT-B/16 has 1 and 0, that for networks trained from scratch 1 and 1.

    Attributes
    ----------
    precisions : Tensor
        float64, ``[classes, d, d]``: R_c^-1.
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("gamma1", "gamma2")
    learned: ClassVar[tuple[str, ...]] = ("counts", "sums", "products", "precisions")
    needed_to_predict: ClassVar[tuple[str, ...]] = ("counts", "sums", "precisions")

    def __init__(self, gamma1: float = 1.0, gamma2: float = 0.0) -> None:
        super().__init__()
        if gamma1 <= 0 or not 0 <= gamma2 <= gamma1:
            raise ValueError(f"gamma1={gamma1}, gamma2={gamma2}: expected gamma1 > 0 and 0 <= gamma2 <= gamma1")
        self.gamma1, self.gamma2 = gamma1, gamma2
        self.precisions = self.products

    @torch.no_grad()
    def learn(self, features: Tensor, labels: Tensor) -> None:
        super().learn(features, labels)
        known = len(self.precisions)
        precisions = torch.zeros_like(self.products)
        precisions[:known] = self.precisions if known else precisions[:0]
        positions = labels.unique().tolist()
        for position, covariance in zip(positions, self.covariances(positions), strict=True):
            precisions[position] = torch.linalg.pinv(correlation(self._shrink(covariance)), hermitian=True)
        self.precisions = precisions

    def update(self, features: Tensor, targets: Tensor) -> None:
        super().update(functional.normalize(features, dim=1), targets)

    def score(self, features: Tensor) -> Tensor:
        features = functional.normalize(features, dim=1)
        distances = []
        for mean, precision in zip(self.prototypes, self.precisions, strict=True):
            difference = features - mean
            distances.append((difference @ precision * difference).sum(dim=1))
        return -torch.stack(distances, dim=1)

    def _shrink(self, covariance: Tensor) -> Tensor:
        width = len(covariance)
        variance = covariance.diagonal().mean()
        others = (covariance.sum() - covariance.diagonal().sum()) / max(1, width * (width - 1))
        identity = torch.eye(width, dtype=covariance.dtype, device=covariance.device)
        return covariance + self.gamma1 * variance * identity + self.gamma2 * others * (1 - identity)
