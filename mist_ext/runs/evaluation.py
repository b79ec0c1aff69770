"""How well a method recognises the test images of all tasks so far, in percent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mist_ext.methods.method import Method
from mist_ext.runs.features import Labelled


@dataclass
class Evaluation:
    """Which test images a method has recognised.

    Attributes
    ----------
    correct : list of Tensor
        bool ``[n]``, of every task's test images.
    labels : Tensor
        int64, of all test images, in the same order.
    among_five : Tensor
        bool, of all test images: whether the class is among the five of the highest scores.
    """

    correct: list[Tensor]
    labels: Tensor
    among_five: Tensor

    @classmethod
    def of(cls, method: Method, tests: Sequence[Labelled]) -> Evaluation:
        """Let a method predict the test images of every task."""
        among_five = [(method.best(x, 5) == y[:, None]).any(dim=1) for x, y in tests]
        correct = [method.predict(x) == y for x, y in tests]
        return cls(correct, torch.cat([y for _, y in tests]), torch.cat(among_five))

    @property
    def accuracy(self) -> float:
        """On all test images."""
        return _percent(torch.cat(self.correct))

    @property
    def top5(self) -> float:
        """On all test images, where one counts if its class is among the best five."""
        return _percent(self.among_five)

    @property
    def per_task(self) -> list[float]:
        """On each task's test images."""
        return [_percent(correct) for correct in self.correct]

    def per_class(self, classes: Sequence[int]) -> list[float | None]:
        """Return the accuracy on each class's test images; None for a class without any."""
        correct = torch.cat(self.correct)
        parts = [correct[self.labels == position] for position in classes]
        return [_percent(part) if len(part) else None for part in parts]

    @property
    def chance(self) -> float:
        """What guessing the most frequent class would reach."""
        return 100 * float(self.labels.bincount().max()) / len(self.labels)


def _percent(correct: Tensor) -> float:
    return 100 * float(correct.double().mean())
