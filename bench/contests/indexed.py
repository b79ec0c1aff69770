"""The best that PyTorch does with positions: gather the kept entries, update them, put them back.

One draw for the whole model and one update of all kept entries joined; gathering and putting goes tensor by tensor.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from problem import BETAS, EPS, MOMENTUM, Problem
from torch import Tensor

from contests.contest import Rival


class Indexed(Rival):
    """State is compact, one value a selected entry of the whole model."""

    own_bytes = 2  # 5 % selected: positions of 8 bytes, up to three values, a call's draws

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.param = [p.view(-1) for p in problem.param]
        self.grad = [g.view(-1) for g in problem.grad]
        every = [torch.arange(size, device=problem.device) for size in problem.sizes]
        indices = zip(problem.index, every, strict=True)
        self.index = torch.cat([whole if index is None else index.long() for index, whole in indices])
        self.ends = torch.tensor(problem.selected, device=problem.device).cumsum(0)
        masters = problem.masters()
        self.master = torch.cat(masters) if masters else None

    def compact(self) -> Tensor:
        """Zeros, one for each selected entry."""
        return torch.zeros(len(self.index), device=self.index.device)

    def __call__(self) -> None:
        kept = self.problem.draw()
        cuts = torch.searchsorted(kept, self.ends)[:-1].cpu()
        at = self.index[kept].tensor_split(cuts)
        grad = torch.cat([g[i] for g, i in zip(self.grad, at, strict=True)]).float()
        if self.master is None:
            value = torch.cat([p[i] for p, i in zip(self.param, at, strict=True)])
            self.update(kept, grad, value)
        else:
            value = self.master[kept]
            self.update(kept, grad, value)
            self.master[kept] = value
            value = value.to(self.problem.dtype)
        for p, i, new in zip(self.param, at, value.tensor_split(cuts), strict=True):
            p.index_put_((i,), new)

    @abstractmethod
    def update(self, kept: Tensor, grad: Tensor, value: Tensor) -> None:
        """Update the state of the kept entries, and their values in place."""

    def outcome(self) -> list[Tensor]:
        return self.problem.param


class IndexedSGD(Indexed):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.momentum = self.compact()

    def update(self, kept: Tensor, grad: Tensor, value: Tensor) -> None:
        grad.add_(value, alpha=self.problem.weight_decay).add_(self.momentum[kept], alpha=MOMENTUM)
        self.momentum[kept] = grad
        value.sub_(grad, alpha=self.problem.lr)


class IndexedAdamW(Indexed):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.average, self.square, self.updates = self.compact(), self.compact(), self.compact()

    def update(self, kept: Tensor, grad: Tensor, value: Tensor) -> None:
        lr, (beta1, beta2) = self.problem.lr, BETAS
        count = self.updates[kept] + 1
        average = self.average[kept].lerp_(grad, 1 - beta1)
        square = self.square[kept].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        self.updates[kept], self.average[kept], self.square[kept] = count, average, square
        root = square.div_(1 - beta2**count).sqrt_().add_(EPS)
        value.mul_(1 - lr * self.problem.weight_decay).addcdiv_(average.div_(1 - beta1**count), root, value=-lr)
