"""The best that PyTorch does without positions: a mask of zeros and ones, then a dense optimiser.

The mask of the step is given to them ready-made, so they are spared the draw; and as in the published method the
optimiser moves every entry by momentum and decay.
"""

from __future__ import annotations

import torch
from problem import BETAS, EPS, MOMENTUM, Problem
from torch import Tensor

from contests.compiled import compiled
from contests.contest import Rival


class Dense(Rival):
    exact = False
    uses = ("dense_mask", "dense_grad")

    def outcome(self) -> list[Tensor]:
        return self.problem.param


class ForeachMask(Dense):
    """`torch._foreach_mul_` by the mask."""

    def __call__(self) -> None:
        torch._foreach_mul_(self.problem.dense_grad, self.problem.dense_mask)

    def outcome(self) -> list[Tensor]:
        return self.problem.dense_grad


class FusedSGD(ForeachMask):
    """The same, then ``SGD(fused=True)``."""

    own_bytes = 4

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.optimizer = self.make([torch.nn.Parameter(p) for p in problem.param])
        for p, grad in zip(self.optimizer.param_groups[0]["params"], problem.dense_grad, strict=True):
            p.grad = grad

    def make(self, param: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        decay = self.problem.weight_decay
        return torch.optim.SGD(param, lr=self.problem.lr, momentum=MOMENTUM, weight_decay=decay, fused=True)

    def __call__(self) -> None:
        super().__call__()
        self.optimizer.step()

    def outcome(self) -> list[Tensor]:
        return self.problem.param


class FusedAdamW(FusedSGD):
    """The same with ``AdamW(fused=True)``."""

    own_bytes = 8

    def make(self, param: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        decay = self.problem.weight_decay
        return torch.optim.AdamW(param, lr=self.problem.lr, betas=BETAS, eps=EPS, weight_decay=decay, fused=True)


class FusedSGDAlone(FusedSGD):
    """Dense SGD without any mask: how long an update of every parameter takes at least."""

    uses = ("dense_grad",)
    same_work = False

    def __call__(self) -> None:
        self.optimizer.step()


class FusedAdamWAlone(FusedAdamW):
    """Dense AdamW without any mask."""

    uses = ("dense_grad",)
    same_work = False

    def __call__(self) -> None:
        self.optimizer.step()


class CompiledSGD(Dense):
    """Mask, momentum and update as a compiled chain: one pass."""

    own_bytes = 4

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        lr, decay = problem.lr, problem.weight_decay

        def rule(p: Tensor, grad: Tensor, mask: Tensor, buffer: Tensor) -> None:
            buffer.mul_(MOMENTUM).add_(grad * mask + decay * p)
            p.sub_(lr * buffer)

        momentum = [torch.zeros_like(p) for p in problem.param]
        self.call = compiled(rule, problem.layout, problem.param, problem.dense_grad, problem.dense_mask, momentum)

    def __call__(self) -> None:
        self.call()


class CompiledAdamW(Dense):
    """Mask, averages and update as a compiled chain: one pass."""

    own_bytes = 8

    def __init__(self, problem: Problem) -> None:
        if problem.dtype == torch.float16:
            raise RuntimeError("float16 does not hold squares of small gradients")
        super().__init__(problem)
        lr, decay, (beta1, beta2) = problem.lr, problem.weight_decay, BETAS
        self.updates = 0

        def rule(p: Tensor, grad: Tensor, mask: Tensor, average: Tensor, square: Tensor, bias: Tensor) -> None:
            g = grad * mask
            average.mul_(beta1).add_((1 - beta1) * g)
            square.mul_(beta2).add_((1 - beta2) * g * g)
            p.mul_(1 - lr * decay).sub_(lr * average / bias[0] / ((square / bias[1]).sqrt() + EPS))

        averages = [[torch.zeros_like(p) for p in problem.param] for _ in range(2)]
        tensors = (problem.param, problem.dense_grad, problem.dense_mask, *averages)
        self.call = compiled(rule, problem.layout, *tensors)

    def __call__(self) -> None:
        self.updates += 1
        bias = [1 - beta**self.updates for beta in BETAS]
        self.call(torch.tensor(bias, device=self.problem.device))
