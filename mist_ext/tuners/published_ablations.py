"""The ablations of MIST's selection as its published code has them: chosen anew in every step, before a dense SGD.

`random`, `magnitude` and `gradient` are the fair ones: MIST's budget, objective and dynamics.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch

from mist_ext.indices import selected_count
from mist_ext.optim import MaskedGradient
from mist_ext.seeding import draw_seed
from mist_ext.selection import Selection
from mist_ext.tuners.full import Full


class PublishedAblation(Full):
    """Zero all but a chosen part of the gradient of each step, and drop none of it; torch's SGD follows.

    The optimiser is dense: momentum goes on moving entries that were chosen once, and weight decay moves all of them.
    """

    lr_option: ClassVar[str] = "lr"

    def reached(self) -> float:
        """Return the share of the backbone's entries that a step chooses, if it chooses in each tensor alike."""
        sizes = [p.numel() for _, p in self.trained()]
        total = sum(p.numel() for p in self.backbone.parameters())
        return sum(selected_count(size, self.options.rate) for size in sizes) / total


class _OfEachTensor(PublishedAblation):
    """Chooses in each tensor of the backbone alike; the classifier follows its whole gradient."""

    @abstractmethod
    def choose(self) -> Selection:
        """Choose the entries that the step at hand follows."""

    def mask_gradients(self) -> None:
        MaskedGradient(self.trained(), self.choose(), keep=1.0).apply_()


class PublishedRandom(_OfEachTensor):
    """Random entries, drawn anew for every step."""

    def choose(self) -> Selection:
        seed = draw_seed(self.seed, "entries", self.task, *self.position)
        return Selection.random(self.trained(), self.options.rate, seed, vectors=False)


class PublishedMagnitude(_OfEachTensor):
    """The entries of the largest magnitude before the step."""

    def choose(self) -> Selection:
        return Selection.magnitude(self.trained(), self.options.rate, vectors=False)


class PublishedGradient(PublishedAblation):
    """The largest gradients by one threshold for all tensors together, the classifier's among them.

    How many of them are the backbone's differs from step to step; `kept_fraction` counts them.
    """

    def mask_gradients(self) -> None:
        gradients = [p.grad for _, p in self.named_parameters() if p.grad is not None]
        sizes = torch.cat([gradient.abs().flatten() for gradient in gradients])
        threshold = sizes.topk(selected_count(len(sizes), self.options.rate)).values[-1]
        for gradient in gradients:
            gradient.masked_fill_(gradient.abs() < threshold, 0)

    def kept_fraction(self) -> float:
        gradients = [p.grad for _, p in self.trained() if p.grad is not None]
        kept = sum(int(torch.count_nonzero(gradient)) for gradient in gradients)
        return kept / sum(p.numel() for p in self.backbone.parameters())
