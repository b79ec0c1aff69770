"""What the methods share that tune a copy of the whole backbone on one task after another."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.utils.data import Dataset

from mist_ext.methods.adaptation import TunedCopy
from mist_ext.methods.trained import TrainedMethod
from mist_ext.methods.training import TaskHeads


class SequentiallyTuned(TrainedMethod):
    """A copy of the backbone and a linear classifier, tuned on every task with cross-entropy over its own classes.

    A tuner that moves the backbone between tasks moves the copy by as much: a task starts from what the tuner has made
    of the backbone, and keeps what the method has learned on top.

    Attributes
    ----------
    slowness : float
        The copy's share of the classifier's learning rate.
    followed : Tensor
        float32, ``[parameters]``: the backbone when the newest task began.
    """

    needs_vit = False
    needed_to_predict: ClassVar[tuple[str, ...]] = ("counts",)
    slowness: float = 1.0
    followed: Tensor = torch.zeros(0)

    @property
    def learned_width(self) -> int:
        return self.feature_width if self.sessions else 0

    def build_network(self) -> nn.Module:
        network = nn.Module()
        network.heads = TaskHeads(self.feature_width)
        return network

    def extend_network(self, classes: range) -> None:
        if len(self.sessions) == 1:
            self.network.copy = TunedCopy(self.backbone)
        self.network.heads.extend(classes)

    def train_network(self, images: Dataset, classes: range) -> bool:
        self._follow()
        own, heads = self.network.copy, self.network.heads

        def loss(pixels: Tensor, labels: Tensor) -> Tensor:
            return heads.loss(self.compute_features(pixels), labels, classes)

        newest = heads.tasks[-1].parameters()
        self.fit(loss, [(own.parameters(), self.slowness), (newest, 1.0)], images)
        return True

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the copy by what the backbone has moved since the task before."""
        before, now = self.followed.to(self.device), parameters_to_vector(self.backbone.parameters()).float()
        if len(before) and not torch.equal(before, now):
            copied = list(self.network.copy.parameters())
            for own, moved in zip(copied, (now - before).split([each.numel() for each in copied]), strict=True):
                own += moved.view_as(own)
        self.followed = now

    def compute_features(self, pixels: Tensor) -> Tensor:
        return self.network.copy.features(self.backbone, pixels)

    def score(self, features: Tensor) -> Tensor:
        return self.network.heads(features.float()).double()
