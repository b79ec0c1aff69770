"""APER: the backbone adapted on the first task, beside the backbone as it was pre-trained."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from mist_ext.methods.attachments import within_budget
from mist_ext.methods.modules import Adapters, Beside, Copy, ScaleShift, VisualPrompts, at_least_one
from mist_ext.methods.simplecil import SimpleCIL
from mist_ext.methods.trained import TrainedMethod
from mist_ext.methods.training import CosineHead, Recipe
from mist_ext.tuners.tuner import Track


class Aper(TrainedMethod, SimpleCIL):
    """Prototypes of pre-trained and adapted features together.

    Zhou et al., "Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and Adaptivity are All
    You Need", arXiv 2303.07338, section 4. The model phi is adapted to phi* on the first task, with a cosine classifier
    that is then thrown away (equation 6 with one of five ways to adapt); from there on both are frozen, and SimpleCIL's
    prototypes are made of both (equation 7)::

        f(x) = [phi(x); phi*(x)]      p_c = (1/n_c) sum_i f(x_i)      class = argmax_c cos(f(x), p_c)

    Published for a ViT-B/16: SGD, cosine annealing from 0.01, 20 epochs, batch 48.

    Parameters
    ----------
    epochs : int
    lr : float
    batch_size : int
    seed : int
    """

    stale = "its adaptation was learned on the first task's backbone"

    def __init__(
        self,
        epochs: int = 20,
        lr: float = 0.01,
        batch_size: int = 48,
        seed: int = 1993,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__(Recipe(epochs, lr, batch_size, weight_decay=weight_decay), seed)

    @abstractmethod
    def _adapted(self) -> Beside:
        """What adapts the backbone, before training."""

    def _build(self) -> nn.Module:
        return nn.ModuleDict()

    def _grow(self, classes: range) -> None:
        if len(self.sessions) == 1:
            self.network.adapted = self._adapted()

    def _train(self, images: Dataset, classes: range, track: Track) -> bool:
        if len(self.sessions) > 1:
            return False
        adapted: Beside = self.network.adapted
        with self.drawn("head"):
            head = CosineHead(self.feature_width, classes).to(self.device)

        def loss(pixels: Tensor, labels: Tensor) -> Tensor:
            return head.loss(adapted.features(self.backbone, pixels), labels)

        self.fit(loss, [((*adapted.parameters(), *head.parameters()), 1.0)], images, track)
        return True

    def _features(self, pixels: Tensor) -> Tensor:
        return torch.cat([self.frozen(pixels), self.network.adapted.features(self.backbone, pixels)], dim=1)


class AperAdapter(Aper):
    """APER with a bottleneck of 64 beside every block's MLP, scaled by 0.1. `Aper` has the rest."""

    _fixed: ClassVar[tuple[str, ...]] = ("seed", "bottleneck")

    def __init__(
        self, bottleneck: int = 64, epochs: int = 20, lr: float = 0.01, batch_size: int = 48, seed: int = 1993
    ) -> None:
        super().__init__(epochs, lr, batch_size, seed)
        self.bottleneck = at_least_one("bottleneck", bottleneck)

    def _adapted(self) -> Beside:
        return Adapters(self.backbone, self.bottleneck)


class AperSSF(Aper):
    """APER with a scale and a shift after every operation. `Aper` has the rest."""

    def _adapted(self) -> Beside:
        return ScaleShift(self.backbone)


class AperVPTShallow(Aper):
    """APER with 5 prompts beside the first block's tokens. `Aper` has the rest."""

    _fixed: ClassVar[tuple[str, ...]] = ("seed", "length")
    _deep = False

    def __init__(
        self, length: int = 5, epochs: int = 20, lr: float = 0.01, batch_size: int = 48, seed: int = 1993
    ) -> None:
        super().__init__(epochs, lr, batch_size, seed)
        self.length = length

    def attach(self, backbone: nn.Module) -> None:
        super().attach(backbone)
        within_budget(backbone, "length", self.length, self.length)

    def _adapted(self) -> Beside:
        return VisualPrompts(self.backbone, self.length, self._deep)


class AperVPTDeep(AperVPTShallow):
    """APER with 5 prompts of its own in every block. `Aper` has the rest."""

    _deep = True


class AperFinetune(Aper):
    """APER with a tuned copy of the whole backbone: 6 epochs, batch 128, weight decay 0.05. `Aper` has the rest."""

    needs_vit = False

    def __init__(self, epochs: int = 6, lr: float = 0.01, batch_size: int = 128, seed: int = 1993) -> None:
        super().__init__(epochs, lr, batch_size, seed, weight_decay=0.05)

    def _adapted(self) -> Beside:
        return Copy(self.backbone)
