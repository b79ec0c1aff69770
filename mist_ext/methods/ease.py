"""EASE: an adapter, and so a subspace, for every task."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from mist_ext.methods.adaptation import Adapters, at_least_one
from mist_ext.methods.trained import TrainedMethod
from mist_ext.methods.training import CosineHead, Recipe


class Ease(TrainedMethod):
    """Expandable subspaces, with old prototypes synthesised in new ones.

    Zhou et al., "Expandable Subspace Ensemble for Pre-Trained Model-Based Class-Incremental Learning", arXiv
    2403.12030. Every task b trains adapters A_b with a cosine classifier that is then thrown away; the features are
    those of all subspaces so far, [phi(x; A_1), ..., phi(x; A_b)]. New classes have prototypes in all of them. Those
    of an earlier task o's classes in the new subspace b have no images, and follow from the new classes by how alike
    the classes are in subspace o, where both are known (section 4.2, equations 6 to 8)::

        P[o, b] = softmax(cos(P[o, o], P[b, o])) P[b, b]

    A class of task o is scored by its own subspace, and by the others with less weight (equation 11)::

        score = cos(phi(x; A_o), p[o]) + alpha sum_{i != o} cos(phi(x; A_i), p[i])

    Published for a ViT-B/16: SGD, cosine annealing from 0.025, 20 epochs, batch 48, bottleneck 64. A class that comes
    again, which the paper does not treat, takes the newest prototype.

    Parameters
    ----------
    alpha : float
        Weight of the other subspaces.
    bottleneck : int
        Width of the adapters.
    epochs : int
    lr : float
    batch_size : int
    seed : int

    Attributes
    ----------
    table : Tensor
        float64, ``[classes, tasks, d]``: every class's prototype in every subspace.
    """

    stale = "the subspaces of earlier tasks were learned on an earlier backbone"
    fixed_options: ClassVar[tuple[str, ...]] = ("seed", "alpha", "bottleneck")
    learned: ClassVar[tuple[str, ...]] = ("counts", "table")

    def __init__(
        self,
        alpha: float = 0.1,
        bottleneck: int = 64,
        epochs: int = 20,
        lr: float = 0.025,
        batch_size: int = 48,
        seed: int = 1993,
    ) -> None:
        super().__init__(Recipe(epochs, lr, batch_size, weight_decay=5e-4), seed)
        self.alpha, self.bottleneck = alpha, at_least_one("bottleneck", bottleneck)
        self.table = torch.zeros(0, 0, 0, dtype=torch.float64)

    @property
    def learned_width(self) -> int:
        return len(self.sessions) * self.feature_width

    def build_network(self) -> nn.Module:
        return nn.ModuleList()

    def extend_network(self, classes: range) -> None:
        self.network.append(Adapters(self.backbone, self.bottleneck))

    def train_network(self, images: Dataset, classes: range) -> bool:
        adapters: Adapters = self.network[-1]
        with self.drawn("head", len(self.sessions)):
            head = CosineHead(self.feature_width, classes).to(self.device)

        def loss(pixels: Tensor, labels: Tensor) -> Tensor:
            return head.loss(adapters.features(self.backbone, pixels), labels)

        self.fit(loss, [((*adapters.parameters(), *head.parameters()), 1.0)], images)
        return True  # they have got a part more

    def compute_features(self, pixels: Tensor) -> Tensor:
        return torch.cat([adapters.features(self.backbone, pixels) for adapters in self.network], dim=1)

    def update(self, features: Tensor, targets: Tensor) -> None:
        tasks = len(self.sessions)
        table = features.new_zeros(targets.shape[1], tasks, features.shape[1] // tasks)
        if len(self.table):
            table[: len(self.table), : self.table.shape[1]] = self.table
        counts = targets.sum(dim=0)
        new = counts > 0
        means = (targets.T @ features)[new] / counts[new].unsqueeze(1)
        table[new] = means.view(len(means), *table.shape[1:])
        for own, session in enumerate(self.sessions[:-1]):
            old = table[session.start : session.stop]
            alike = functional.normalize(old[:, own], dim=1) @ functional.normalize(table[new][:, own], dim=1).T
            old[:, -1] = alike.softmax(dim=1) @ table[new][:, -1]
        self.table = table

    def score(self, features: Tensor) -> Tensor:
        parts = functional.normalize(features.view(len(features), *self.table.shape[1:]), dim=2)
        cosines = torch.einsum("ntd,ctd->nct", parts, functional.normalize(self.table, dim=2))
        weights = torch.full(self.table.shape[:2], self.alpha, dtype=features.dtype, device=features.device)
        for own, session in enumerate(self.sessions):
            weights[session.start : session.stop, own] = 1
        return (cosines * weights).sum(dim=2)
