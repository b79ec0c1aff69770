"""A step: which gradients are kept, and the update of those entries alone."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from problem import BETAS, EPS, KEEP, MOMENTUM, SEED
from torch import Tensor

from contests.contest import PUBLISHED, Call, Contest, Rival, assert_same_bits
from contests.dense import CompiledAdamW, CompiledSGD, FusedAdamW, FusedAdamWAlone, FusedSGD, FusedSGDAlone
from contests.indexed import IndexedAdamW, IndexedSGD
from contests.lines import step_bytes
from contests.published import PublishedAdamW, PublishedSGD
from mist_ext import Selection, SparseAdamW, SparseSGD
from mist_ext.kernels import ops, reference


class DropApply(Contest):
    state: ClassVar[tuple[str, ...]]
    apply: ClassVar[Callable[..., None]]
    oracle: ClassVar[Callable[..., None]]

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """All arguments of the op, with new state."""

    @abstractmethod
    def optimizer(self, named: list[tuple[str, torch.nn.Parameter]], selection: Selection) -> torch.optim.Optimizer:
        """The optimiser that takes the same step."""

    def ours(self) -> dict[str, Call]:
        arguments, apply = self.arguments(), type(self).apply

        def call() -> None:
            self.problem.step += 1
            apply(**arguments)

        (whole_step,) = self.built_on_it
        return {self.op: call, whole_step: self._optimizer().step}

    def _optimizer(self) -> torch.optim.Optimizer:
        names = [str(t) for t in range(len(self.problem.shapes))]
        shapes = dict(zip(names, self.problem.shapes, strict=True))
        selection = Selection(dict(zip(names, self.problem.index, strict=True)), shapes)
        named = [(name, torch.nn.Parameter(p)) for name, p in zip(names, self.problem.param, strict=True)]
        for (_, parameter), grad in zip(named, self.problem.grad, strict=True):
            parameter.grad = grad
        return self.optimizer(named, selection)

    def verify(self) -> None:
        problem = self.problem
        before = [p.clone() for p in problem.param]
        mine = self.arguments()
        its = {**self.arguments(), "param": before}
        for _ in range(2):  # the second has a history
            problem.step += 1
            type(self).apply(**mine)
            type(self).oracle(**its)
            for what in ("param", "master", *self.state):
                assert_same_bits(f"{self.op} {what}", mine[what], its[what])
        state = mine[self.state[0]]
        changed = sum(int((values != 0).sum()) for values in state)
        expected = (1 - (1 - KEEP) ** 2) * sum(problem.selected)
        assert math.isclose(changed, expected, rel_tol=0.2), f"{changed} entries were kept, expected {expected:.0f}"

    def outcome(self) -> list[Tensor]:
        return self.problem.param

    def moved(self) -> int:
        return step_bytes(self.problem, len(self.state))


class SGD(DropApply):
    op = "drop_apply_sgd_"
    built_on_it = ("SparseSGD.step",)
    state = ("momentum_buffer",)
    apply, oracle = staticmethod(ops.drop_apply_sgd_), staticmethod(reference.drop_apply_sgd_)
    rivals: ClassVar[dict[str, type[Rival]]] = {
        PUBLISHED: PublishedSGD,
        "index_put": IndexedSGD,
        "foreach mask + fused SGD": FusedSGD,
        "compiled chain": CompiledSGD,
        "dense fused SGD alone": FusedSGDAlone,
    }

    def arguments(self) -> dict[str, Any]:
        return self.problem.sgd()

    def optimizer(self, named: list[tuple[str, torch.nn.Parameter]], selection: Selection) -> torch.optim.Optimizer:
        problem = self.problem
        options = {"lr": problem.lr, "weight_decay": problem.weight_decay, "keep": KEEP, "seed": SEED}
        return SparseSGD(named, selection, momentum=MOMENTUM, **options)


class AdamW(DropApply):
    op = "drop_apply_adamw_"
    built_on_it = ("SparseAdamW.step",)
    state = ("exp_avg", "exp_avg_sq", "updates")
    apply, oracle = staticmethod(ops.drop_apply_adamw_), staticmethod(reference.drop_apply_adamw_)
    rivals: ClassVar[dict[str, type[Rival]]] = {
        PUBLISHED: PublishedAdamW,
        "index_put": IndexedAdamW,
        "foreach mask + fused AdamW": FusedAdamW,
        "compiled chain": CompiledAdamW,
        "dense fused AdamW alone": FusedAdamWAlone,
    }

    def arguments(self) -> dict[str, Any]:
        return self.problem.adamw()

    def optimizer(self, named: list[tuple[str, torch.nn.Parameter]], selection: Selection) -> torch.optim.Optimizer:
        problem = self.problem
        options = {"lr": problem.lr, "weight_decay": problem.weight_decay, "keep": KEEP, "seed": SEED}
        return SparseAdamW(named, selection, betas=BETAS, eps=EPS, **options)
