"""Scoring: ``score += scale * grad**2``."""

from __future__ import annotations

from typing import ClassVar

import torch
from problem import Problem
from torch import Tensor

from contests.compiled import compiled
from contests.contest import PUBLISHED, Call, Contest, Rival, addition, assert_same_bits
from contests.published import BATCHES, PublishedScore
from mist_ext.kernels import ops, reference

SCALE = 1 / BATCHES


class Foreach(Rival):
    """`torch._foreach_addcmul_`."""

    def __call__(self) -> None:
        torch._foreach_addcmul_(self.problem.score, self.problem.grad, self.problem.grad, SCALE)

    def outcome(self) -> list[Tensor]:
        return self.problem.score


class Compiled(Foreach):
    """The same as a compiled chain."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.call = compiled(rule, problem.layout, problem.score, problem.grad)

    def __call__(self) -> None:
        self.call()


def rule(score: Tensor, grad: Tensor) -> None:
    score.add_(grad.float().square() * SCALE)


class Accumulate(Contest):
    op = "accumulate_"
    scores = True
    rivals: ClassVar[dict[str, type[Rival]]] = {
        PUBLISHED: PublishedScore,
        "foreach addcmul": Foreach,
        "compiled chain": Compiled,
    }

    def ours(self) -> dict[str, Call]:
        score, grad = self.problem.score, self.problem.grad
        return {self.op: lambda: ops.accumulate_(score, grad, None, SCALE)}

    def verify(self) -> None:
        ours = [torch.zeros_like(score) for score in self.problem.score]
        ops.accumulate_(ours, self.problem.grad, None, SCALE)
        for score, grad in zip(ours, self.problem.grad, strict=True):
            oracle = torch.zeros_like(score)
            reference.accumulate_([oracle], [grad], [None], SCALE)
            assert_same_bits(self.op, [score], [oracle])

    def outcome(self) -> list[Tensor]:
        return self.problem.score

    def moved(self) -> int:
        """Read score and gradient, write the score: 12 bytes a parameter, 10 with 16-bit gradients."""
        return self.problem.parameters * (8 + self.problem.dtype.itemsize)

    def add(self) -> tuple[Call, int]:
        """Here over tensors of the model's very shapes."""
        problem = self.problem
        wide = problem.dtype == torch.float32
        return addition(problem.score, problem.grad if wide else [torch.ones_like(s) for s in problem.score])
