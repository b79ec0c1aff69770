"""Sequential fine-tuning: the lower bound, with nothing against forgetting."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from mist_ext.methods.sequential import SequentiallyTuned
from mist_ext.methods.training import Recipe


class Finetune(SequentiallyTuned):
    """Fine-tunes the whole backbone and a growing linear classifier on one task after another.

    What the classifier has for earlier classes stays as it is while the features below it move. LAMDA-PILOT (Sun et
    al., arXiv 2309.07117) has it as its baseline, for a ViT-B/16: SGD at a constant rate of 0.001, 20 epochs, batch
    128, cross-entropy over the classes of the task.

    Parameters
    ----------
    epochs : int
    lr : float
    batch_size : int
    seed : int
    """

    learned: ClassVar[tuple[str, ...]] = ("counts", "followed")

    def __init__(self, epochs: int = 20, lr: float = 0.001, batch_size: int = 128, seed: int = 1993) -> None:
        super().__init__(Recipe(epochs, lr, batch_size, weight_decay=5e-4, schedule=lambda done: 1.0), seed)

    def update(self, features: Tensor, targets: Tensor) -> None:
        """Learn nothing from features: the classifier has been trained with them."""
