"""The weight gradients of linear layers at the entries that a step keeps: one block of a transformer.

A call makes them for one step, its draw included. The operands are random, of `Problem.tokens` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from problem import KEEP, RATE, SEED, Problem
from torch import Tensor

from contests.contest import PUBLISHED, Call, Contest, Rival, assert_same_bits
from mist_ext.kernels import ops, reference

GATHERED_AT_A_TIME = 2**22  # products, so that they stay in a cache


class WeightGradient(Rival):
    """Ways to make them with PyTorch: what they have in common."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.values: list[Tensor] = []

    @classmethod
    def needs(cls, problem: Problem) -> int:
        """The operands, the whole gradients with a mask, and what is gathered at a time."""
        sizes = sum(problem.sizes[t] for t in problem.linear)
        features = sum(sum(problem.shapes[t]) for t in problem.linear)
        operands = 0 if "operands" in problem.__dict__ else problem.tokens * features * 4
        return operands + 8 * sizes + 12 * GATHERED_AT_A_TIME

    def kept(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each layer: both operands, and which flat positions of its weight are kept."""
        problem = self.problem
        for t, (gradient, inputs) in zip(problem.linear, problem.operands, strict=True):
            index = problem.index[t]
            count = problem.selected[t]
            if problem.own_draw:
                mask = torch.empty(count, dtype=torch.uint8, device=problem.device).bernoulli_(KEEP).bool()
            else:
                mask = problem.ours(t, int(problem.step))
            chosen = mask.nonzero().view(-1)
            yield gradient, inputs, chosen if index is None else index[chosen].long()

    def outcome(self) -> list[Tensor]:
        return [torch.cat([value.float() for value in self.values])]


class Published(WeightGradient):
    """The whole gradient, times a ready-made mask of zeros and ones."""

    exact = False

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.at = [position for _, _, position in self.kept()]
        self.mask = []
        for t, position in zip(problem.linear, self.at, strict=True):
            mask = torch.zeros(problem.sizes[t], dtype=problem.dtype, device=problem.device)
            mask[position] = 1
            self.mask.append(mask.view(problem.shapes[t]))
        self.grad: list[Tensor] = []

    def __call__(self) -> None:
        pairs = zip(self.problem.operands, self.mask, strict=True)
        self.grad = [(gradient.T @ inputs).mul_(mask) for (gradient, inputs), mask in pairs]

    def outcome(self) -> list[Tensor]:
        return [torch.cat([grad.view(-1)[at].float() for grad, at in zip(self.grad, self.at, strict=True)])]


class Dense(WeightGradient):
    """The whole gradient: what backward does without the op."""

    same_work = False

    def __call__(self) -> None:
        for gradient, inputs in self.problem.operands:
            gradient.T @ inputs


class DenseGathered(WeightGradient):
    """The whole gradient, of which the kept entries are gathered."""

    def __call__(self) -> None:
        self.values = [(gradient.T @ inputs).view(-1)[at] for gradient, inputs, at in self.kept()]


class DensePacked(WeightGradient):
    """The whole gradient, then `pack_`."""

    def __call__(self) -> None:
        problem = self.problem
        packed, rest = packing(problem)
        grad = [gradient.T @ inputs for gradient, inputs in problem.operands]
        ops.pack_(packed, grad, **rest)
        self.values = [packed]


class SampledAddmm(WeightGradient):
    """`torch.sparse.sampled_addmm` with a CSR matrix of the kept entries."""

    def __call__(self) -> None:
        self.values = []
        for gradient, inputs, at in self.kept():
            outputs, width = gradient.shape[1], inputs.shape[1]
            ends = torch.searchsorted(at, torch.arange(outputs + 1, device=at.device) * width)
            zeros = torch.zeros(len(at), dtype=gradient.dtype, device=at.device)
            wanted = torch.sparse_csr_tensor(ends, at % width, zeros, (outputs, width), check_invariants=False)
            self.values.append(torch.sparse.sampled_addmm(wanted, gradient.T, inputs, beta=0.0).values())


class Gathered(WeightGradient):
    """Rows and columns gathered for some kept entries at a time, multiplied, and summed over the tokens."""

    def __call__(self) -> None:
        self.values = []
        for gradient, inputs, at in self.kept():
            width = inputs.shape[1]
            for part in at.split(max(GATHERED_AT_A_TIME // len(inputs), 1)):
                self.values.append((gradient[:, part // width] * inputs[:, part % width]).sum(0))


def packing(problem: Problem) -> tuple[Tensor, dict[str, Any]]:
    """A packed vector for the next step's kept entries, of zeros, and what says where they lie."""
    drawn = {"threshold": problem.threshold, "seed": SEED}
    first = [0] * len(problem.linear)
    count = [problem.selected[t] for t in problem.linear]
    places = ops.places(count, first, problem.linear, step=int(problem.step), **drawn)
    packed = torch.zeros(int(places[-1]), device=problem.device)
    index = [problem.index[t] for t in problem.linear]
    rest = {"index": index, "places": places.to(problem.device), "first": first, "ordinal": problem.linear}
    return packed, {**rest, **drawn, "step": problem.step}


class SampledWeightGrad(Contest):
    op = "sampled_weight_grad_"
    rivals: ClassVar[dict[str, type[Rival]]] = {
        PUBLISHED: Published,
        "dense alone": Dense,
        "dense, gathered": DenseGathered,
        "dense, pack_": DensePacked,
        "sampled_addmm": SampledAddmm,
        "gathered columns": Gathered,
    }

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.packed = torch.empty(0)

    def arguments(self) -> dict[str, Any]:
        packed, rest = packing(self.problem)
        gradients, inputs = zip(*self.problem.operands, strict=True)
        return {"packed": packed, "grad_output": list(gradients), "input": list(inputs), **rest}

    def ours(self) -> dict[str, Call]:
        def call() -> None:
            self.problem.step += 1
            arguments = self.arguments()
            ops.sampled_weight_grad_(**arguments)
            self.packed = arguments["packed"]

        return {self.op: call}

    def verify(self) -> None:
        self.problem.step += 1
        ours, oracle = self.arguments(), self.arguments()
        ops.sampled_weight_grad_(**ours)
        reference.sampled_weight_grad_(**oracle)
        assert_same_bits(self.op, [ours["packed"]], [oracle["packed"]])

    def outcome(self) -> list[Tensor]:
        return [self.packed]

    def moved(self) -> int:
        """Read both operands and the index once, write the kept entries' gradients."""
        problem = self.problem
        operands = sum(t.numel() * t.element_size() for pair in problem.operands for t in pair)
        index = sum(0 if problem.index[t] is None else problem.selected[t] for t in problem.linear)
        return operands + 4 * index + 4 * round(sum(problem.selected[t] for t in problem.linear) * KEEP)

    def flops(self) -> int:
        """A product and a sum for each token of each kept entry, of which there are so many on average."""
        return round(2 * self.problem.tokens * RATE * KEEP * sum(self.problem.sizes[t] for t in self.problem.linear))
