"""RanPAC with its first phase: the backbone adapted on the first task, then random projections of its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mist_ext.methods.adaptation import Adaptation, Adapters, ScaleShift, VisualPrompts, at_least_one
from mist_ext.methods.first_session import FirstSession
from mist_ext.methods.ranpac import WIDTH, RanPAC
from mist_ext.methods.training import Recipe


class AdaptedRanPAC(FirstSession, RanPAC):
    """Both phases of algorithm 1.

    McDonnell et al., "RanPAC: Random Projections and Pre-trained Models for Continual Learning", arXiv 2307.02251. In
    phase 1 the model phi is adapted to phi* on the first task's classes, with a cosine classifier that is then thrown
    away. From there on all is frozen, and phase 2 is `RanPAC` on phi*(x) alone::

        h = relu(phi*(x) W)

    Published for a ViT-B/16: SGD, momentum 0.9, weight decay 5e-4, cosine annealing from 0.01, 20 epochs, batch 48. The
    published settings adapt by adapters on CIFAR-100 and CUB-200, by SSF on ImageNet-R and -A, by prompts on Cars-196.

    Parameters
    ----------
    kind : type of Adaptation
        What adapts phi.
    settings : mapping
        Its arguments besides the backbone.
    width : int
        M, the number of random features.
    epochs : int
    lr : float
    batch_size : int
    seed : int
    """

    fixed_options: ClassVar[tuple[str, ...]] = ("seed", "width")

    def __init__(
        self,
        kind: type[Adaptation],
        settings: Mapping[str, Any],
        width: int,
        epochs: int,
        lr: float,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__(kind, settings, Recipe(epochs, lr, batch_size, weight_decay=5e-4), seed, width=width)

    def compute_features(self, pixels: Tensor) -> Tensor:
        return self.adapted(pixels)


class RanPACAdapter(AdaptedRanPAC):
    """RanPAC after a bottleneck of 64 beside every block's MLP, scaled by 0.1. `AdaptedRanPAC` has the rest."""

    fixed_options: ClassVar[tuple[str, ...]] = ("seed", "width", "bottleneck")

    def __init__(
        self,
        bottleneck: int = 64,
        width: int = WIDTH,
        epochs: int = 20,
        lr: float = 0.01,
        batch_size: int = 48,
        seed: int = 1993,
    ) -> None:
        self.bottleneck = at_least_one("bottleneck", bottleneck)
        super().__init__(Adapters, {"bottleneck": bottleneck}, width, epochs, lr, batch_size, seed)


class RanPACSSF(AdaptedRanPAC):
    """RanPAC after a scale and a shift for every operation. `AdaptedRanPAC` has the rest."""

    def __init__(
        self, width: int = WIDTH, epochs: int = 20, lr: float = 0.01, batch_size: int = 48, seed: int = 1993
    ) -> None:
        super().__init__(ScaleShift, {}, width, epochs, lr, batch_size, seed)


class RanPACVPTDeep(AdaptedRanPAC):
    """RanPAC after 5 prompts of its own in every block. `AdaptedRanPAC` has the rest."""

    fixed_options: ClassVar[tuple[str, ...]] = ("seed", "width", "length")

    def __init__(
        self,
        length: int = 5,
        width: int = WIDTH,
        epochs: int = 20,
        lr: float = 0.01,
        batch_size: int = 48,
        seed: int = 1993,
    ) -> None:
        self.length = length
        super().__init__(VisualPrompts, {"length": length, "deep": True}, width, epochs, lr, batch_size, seed)
