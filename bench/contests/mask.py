"""Masking: every gradient zero but the kept ones, for a dense optimiser of torch's."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from problem import Problem
from torch import Tensor

from contests.contest import PUBLISHED, Call, Contest, Rival, assert_same_bits
from contests.dense import ForeachMask
from contests.lines import mask_bytes
from contests.published import PublishedMask
from mist_ext.kernels import ops, reference


class Indexed(Rival):
    """Gather the kept gradients, make all zero, put the kept ones back."""

    own_bytes = 1
    uses = ("dense_grad",)

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        every = [torch.arange(size, device=problem.device) for size in problem.sizes]
        indices = zip(problem.index, every, strict=True)
        self.index = torch.cat([whole if index is None else index.long() for index, whole in indices])
        self.ends = torch.tensor(problem.selected, device=problem.device).cumsum(0)
        self.grad = [g.view(-1) for g in problem.dense_grad]

    def __call__(self) -> None:
        kept = self.problem.draw()
        at = self.index[kept].tensor_split(torch.searchsorted(kept, self.ends)[:-1].cpu())
        values = [g[i] for g, i in zip(self.grad, at, strict=True)]
        torch._foreach_zero_(self.grad)
        for g, i, value in zip(self.grad, at, values, strict=True):
            g.index_put_((i,), value)

    def outcome(self) -> list[Tensor]:
        return self.problem.dense_grad


class Mask(Contest):
    op = "mask_"
    rivals: ClassVar[dict[str, type[Rival]]] = {
        PUBLISHED: PublishedMask,
        "index_put": Indexed,
        "foreach mask": ForeachMask,
    }

    def arguments(self, grad: list[Tensor]) -> dict[str, Any]:
        problem = self.problem
        own = {"grad": grad, "index": problem.index, "ordinal": list(range(len(grad)))}
        return {**own, "scale_code": [], "table": None, **problem.drawing()}

    def ours(self) -> dict[str, Call]:
        arguments = self.arguments(self.problem.dense_grad)

        def call() -> None:
            self.problem.step += 1
            ops.mask_(**arguments)

        return {self.op: call}

    def verify(self) -> None:
        ours, oracle = ([g.clone() for g in self.problem.grad] for _ in range(2))
        self.problem.step += 1
        ops.mask_(**self.arguments(ours))
        reference.mask_(**self.arguments(oracle))
        assert_same_bits(self.op, ours, oracle)

    def outcome(self) -> list[Tensor]:
        return self.problem.dense_grad

    def moved(self) -> int:
        return mask_bytes(self.problem)
