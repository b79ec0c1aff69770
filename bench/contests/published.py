"""The published method's own chains, operation by operation, as its code runs them on every tensor.

They take the same tensors as the fused ops, with the dense state that the published code keeps: a boolean mask, a
count of earlier selections and a momentum for every entry. The published code has no AdamW; its analogue here is the
same masking before torch's dense AdamW.
"""

from __future__ import annotations

import torch
from problem import BETAS, EPS, KEEP, MOMENTUM, RATE, Problem
from torch import Tensor

from contests.contest import Rival

BATCHES = 20  # of the scoring epoch; the published code divides by it


class PublishedScore(Rival):
    """Copy the squared gradient, zero the frozen entries by a mask, divide, add."""

    own_bytes = 1

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.frozen = [torch.zeros(s.shape, dtype=torch.bool, device=s.device) for s in problem.score]

    def __call__(self) -> None:
        for score, gradient, frozen in zip(self.problem.score, self.problem.grad, self.frozen, strict=True):
            gradient = gradient.float().clone()
            gradient[frozen] = 0
            score += gradient**2 / BATCHES

    def outcome(self) -> list[Tensor]:
        return self.problem.score


class PublishedSelect(Rival):
    """A tensor's quantile, then a comparison. `torch.quantile` refuses tensors of more than 16 M entries."""

    own_bytes = 1

    def __call__(self) -> list[Tensor]:
        scores = [self.problem.score[i] for i in self.problem.by_score]
        return [score >= torch.quantile(score, 1 - RATE) for score in scores]

    def outcome(self) -> list[Tensor]:
        return [mask.flatten().nonzero().view(-1) for mask in self()]


class PublishedMask(Rival):
    """Draw for the selected entries, then scale every gradient by 0 or 1 and by 0.9^count."""

    exact = False
    own_bytes = 13  # mask, count, a step's draws, the masked gradients

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.param = [torch.nn.Parameter(p) for p in problem.param]  # on the same memory
        self.mask = [torch.zeros(shape, dtype=torch.bool, device=problem.device) for shape in problem.shapes]
        for mask, index in zip(self.mask, problem.index, strict=True):
            if index is None:
                mask.fill_(True)
            else:
                mask.view(-1)[index.long()] = True
        self.count = [torch.zeros(shape, device=problem.device) for shape in problem.shapes]

    def draw(self) -> list[Tensor]:
        """Which gradients are kept in this step, 1 or 0, dense."""
        kept = []
        for t, mask in enumerate(self.mask):
            keep = torch.zeros(mask.shape, device=mask.device)
            if self.problem.own_draw:
                selected = int(mask.sum())
                keep[mask] = torch.bernoulli(torch.full((selected,), KEEP, device=mask.device))
            else:
                keep[mask] = self.problem.ours(t, int(self.problem.step)).float()
            kept.append(keep)
        return kept

    def __call__(self) -> None:
        for p, gradient, keep, count in zip(self.param, self.problem.grad, self.draw(), self.count, strict=True):
            p.grad = (gradient * keep * 0.9**count).to(p.dtype)

    def outcome(self) -> list[Tensor]:
        return [p.grad for p in self.param if p.grad is not None]


class PublishedSGD(PublishedMask):
    """Masking, then dense SGD with momentum and decay."""

    own_bytes = 17

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        options = {"lr": problem.lr, "weight_decay": problem.weight_decay}
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(self.param, momentum=MOMENTUM, **options)

    def __call__(self) -> None:
        super().__call__()
        self.optimizer.step()

    def outcome(self) -> list[Tensor]:
        return self.problem.param


class PublishedAdamW(PublishedSGD):
    """The same masking, then dense AdamW."""

    own_bytes = 21

    def __init__(self, problem: Problem) -> None:
        if problem.dtype == torch.float16:
            raise RuntimeError("torch.optim.AdamW in float16 rounds eps to 0 and divides 0 by it")
        super().__init__(problem)
        options = {"lr": problem.lr, "weight_decay": problem.weight_decay}
        self.optimizer = torch.optim.AdamW(self.param, betas=BETAS, eps=EPS, **options)
