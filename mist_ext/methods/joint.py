"""Joint training: the upper bound, which keeps all images."""

from __future__ import annotations

from typing import ClassVar

from torch import nn
from torch.utils.data import Dataset

from mist_ext.methods.adaptation import TunedCopy
from mist_ext.methods.finetune import Finetune
from mist_ext.methods.training import TaskHeads


class Joint(Finetune):
    """Fine-tunes on the images of all tasks so far at once, for every task anew from the backbone as it is then.

    No method that keeps no images is expected to end above it. With ten tasks it trains on five and a half times the
    images. `Finetune` has the arguments and where they come from.
    """

    rehearses = True
    learned: ClassVar[tuple[str, ...]] = ("counts",)

    def extend_network(self, classes: range) -> None:
        self.network.copy = TunedCopy(self.backbone)
        self.network.heads = TaskHeads(self.feature_width)
        self.network.heads.extend(range(classes.stop))

    def train_network(self, images: Dataset, classes: range) -> bool:
        return super().train_network(images, range(classes.stop))

    def build_network(self) -> nn.Module:
        return nn.Module()

    def _follow(self) -> None:
        """Follow nothing: the copy has just been made."""
