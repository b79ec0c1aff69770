"""The published method's own chains, operation by operation, as its code runs them on every tensor.

They take the same tensors as the fused ops, with the dense state that the published code keeps: a boolean mask, a
count of earlier selections and a momentum for every entry.
"""

from __future__ import annotations

import torch
from problem import KEEP, LR, MOMENTUM, WEIGHT_DECAY, Problem
from torch import Tensor

BATCHES = 20  # of the scoring epoch; the published code divides by it


class PublishedScore:
    """Scoring: copy the squared gradient, zero the frozen entries by a mask, divide, add."""

    def __init__(self, problem: Problem) -> None:
        self.grad = problem.grad
        self.score = [torch.zeros_like(s) for s in problem.score]
        self.frozen = [torch.zeros(s.shape, dtype=torch.bool, device=s.device) for s in problem.score]

    def __call__(self) -> None:
        for score, gradient, frozen in zip(self.score, self.grad, self.frozen, strict=True):
            gradient = gradient.float().clone()
            gradient[frozen] = 0
            score += gradient**2 / BATCHES


class PublishedStep:
    """A step: draw for the selected entries, mask, scale by 0.9^count, then dense SGD with momentum and decay."""

    def __init__(self, problem: Problem) -> None:
        self.param = [p.clone().requires_grad_() for p in problem.param]
        self.grad = problem.grad
        self.mask = [torch.zeros(shape, dtype=torch.bool, device=problem.device) for shape in problem.shapes]
        for mask, index in zip(self.mask, problem.index, strict=True):
            if index is None:
                mask.fill_(True)
            else:
                mask.view(-1)[index.long()] = True
        self.count = [torch.zeros(shape, device=problem.device) for shape in problem.shapes]
        self.sgd = torch.optim.SGD(self.param, lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)

    def masks(self) -> list[Tensor]:
        """Which gradients are kept in this step, 1 or 0, dense."""
        kept = []
        for mask in self.mask:
            keep = torch.zeros(mask.shape, device=mask.device)
            selected = int(mask.sum())
            keep[mask] = torch.bernoulli(torch.full((selected,), KEEP, device=mask.device))
            kept.append(keep)
        return kept

    def __call__(self) -> None:
        for p, gradient, keep, count in zip(self.param, self.grad, self.masks(), self.count, strict=True):
            p.grad = gradient * keep * 0.9**count
        self.sgd.step()
