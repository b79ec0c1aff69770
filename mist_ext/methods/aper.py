"""APER: the backbone adapted on the first task, beside the backbone as it was pre-trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mist_ext.methods.adaptation import Adaptation, Adapters, ScaleShift, TunedCopy, VisualPrompts, at_least_one
from mist_ext.methods.first_session import FirstSession
from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.methods.training import Recipe


class Aper(FirstSession, SimpleCIL):
    """Prototypes of pre-trained and adapted features together.

    Zhou et al., "Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity are All
    You Need", arXiv 2303.07338, section 4. The model phi is adapted to phi* on the first task, with a cosine classifier
    that is then thrown away (equation 6 with one of five ways to adapt); from there on both are frozen, and SimpleCIL's
    prototypes are made of both (equation 7)::

        f(x) = [phi(x); phi*(x)]      p_c = (1/n_c) sum_i f(x_i)      class = argmax_c cos(f(x), p_c)

    Published for a ViT-B/16: SGD, cosine annealing from 0.01, 20 epochs, batch 48.

    Parameters
    ----------
    kind : type of Adaptation
        What adapts phi.
    settings : mapping
        Its arguments besides the backbone.
    epochs : int
    lr : float
    batch_size : int
    seed : int
    weight_decay : float
    """

    def __init__(
        self,
        kind: type[Adaptation],
        settings: Mapping[str, Any],
        epochs: int,
        lr: float,
        batch_size: int,
        seed: int,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__(kind, settings, Recipe(epochs, lr, batch_size, weight_decay=weight_decay), seed)

    def compute_features(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.frozen(pixels), self.adapted(pixels)], dim=1)


class AperAdapter(Aper):
    """APER with a bottleneck of 64 beside every block's MLP, scaled by 0.1. `Aper` has the rest."""

    fixed_options: ClassVar[tuple[str, ...]] = ("seed", "bottleneck")

    def __init__(
        self, bottleneck: int = 64, epochs: int = 20, lr: float = 0.01, batch_size: int = 48, seed: int = 1993
    ) -> None:
        self.bottleneck = at_least_one("bottleneck", bottleneck)
        super().__init__(Adapters, {"bottleneck": bottleneck}, epochs, lr, batch_size, seed)


class AperSSF(Aper):
    """APER with a scale and a shift after every operation. `Aper` has the rest."""

    def __init__(self, epochs: int = 20, lr: float = 0.01, batch_size: int = 48, seed: int = 1993) -> None:
        super().__init__(ScaleShift, {}, epochs, lr, batch_size, seed)


class AperVPTShallow(Aper):
    """APER with 5 prompts beside the first block's tokens. `Aper` has the rest."""

    fixed_options: ClassVar[tuple[str, ...]] = ("seed", "length")
    _deep = False

    def __init__(
        self, length: int = 5, epochs: int = 20, lr: float = 0.01, batch_size: int = 48, seed: int = 1993
    ) -> None:
        self.length = length
        super().__init__(VisualPrompts, {"length": length, "deep": self._deep}, epochs, lr, batch_size, seed)


class AperVPTDeep(AperVPTShallow):
    """APER with 5 prompts of its own in every block. `Aper` has the rest."""

    _deep = True


class AperFinetune(Aper):
    """APER with a tuned copy of the whole backbone: 6 epochs, batch 128, weight decay 0.05. `Aper` has the rest."""

    needs_vit = False

    def __init__(self, epochs: int = 6, lr: float = 0.01, batch_size: int = 128, seed: int = 1993) -> None:
        super().__init__(TunedCopy, {}, epochs, lr, batch_size, seed, weight_decay=0.05)
