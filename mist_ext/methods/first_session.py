"""Adaptation on the first task alone, which APER and the first phase of RanPAC begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.methods.adaptation import Adaptation
from mist_ext.methods.trained import TrainedMethod
from mist_ext.methods.training import CosineHead, Recipe


class FirstSession(TrainedMethod):
    """Trains something beside the backbone on the first task, with a cosine classifier that is then thrown away.

    From there on both are frozen. The derived class says which features are made of both, and what learns from them.

    Parameters
    ----------
    kind : type of Adaptation
        What adapts the backbone.
    settings : mapping
        Its arguments besides the backbone.
    recipe : Recipe
    seed : int
    **options
        Of the method that learns from the features.
    """

    stale = "its adaptation was learned on the first task's backbone"

    def __init__(
        self, kind: type[Adaptation], settings: Mapping[str, Any], recipe: Recipe, seed: int, **options: Any
    ) -> None:
        super().__init__(recipe, seed, **options)
        self._kind, self._settings = kind, dict(settings)

    def attach(self, backbone: nn.Module) -> None:
        super().attach(backbone)
        self._kind.check(backbone, **self._settings)

    def build_network(self) -> nn.Module:
        return nn.ModuleDict()

    def extend_network(self, classes: range) -> None:
        if len(self.sessions) == 1:
            self.network.adapted = self._kind(self.backbone, **self._settings)

    def train_network(self, images: Dataset, classes: range) -> bool:
        if len(self.sessions) > 1:
            return False
        with self.drawn("head"):
            head = CosineHead(self.feature_width, classes).to(self.device)

        def loss(pixels: Tensor, labels: Tensor) -> Tensor:
            return head.loss(self.adapted(pixels), labels)

        self.fit(loss, [((*self.network.adapted.parameters(), *head.parameters()), 1.0)], images)
        return True

    def adapted(self, pixels: Tensor) -> Tensor:
        """Return features of the adapted backbone: float32 ``[n, num_features]``."""
        own: Adaptation = self.network.adapted
        return own.features(self.backbone, pixels)
