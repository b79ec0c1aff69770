"""Selection: the positions of the highest scores of each tensor.

The rivals are asked for less than `mist_ext.kernels.ops.select` returns: positions in any order, or the k-th value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from problem import Problem
from torch import Tensor

from contests.contest import PUBLISHED, Call, Contest, Rival, assert_same_bits
from contests.published import PublishedSelect
from mist_ext.kernels import ops, reference


class TopK(Rival):
    """`torch.topk` of each tensor: values and positions, unsorted."""

    own_bytes = 1

    def __call__(self) -> list[Tensor]:
        return [torch.topk(s, k, sorted=False).indices for s, k in scores(self.problem)]

    def outcome(self) -> list[Tensor]:
        return [indices.sort().values for indices in self()]


class KthValue(Rival):
    """`torch.kthvalue` of each tensor: one value."""

    own_bytes = 1

    def __call__(self) -> list[float]:
        return [float(torch.kthvalue(s, s.numel() - k + 1).values) for s, k in scores(self.problem)]

    def outcome(self) -> list[Tensor]:
        pairs = zip(scores(self.problem), self(), strict=True)
        return [(s >= value).nonzero().view(-1) for (s, _), value in pairs]


class Partition(KthValue):
    """`numpy.partition` of each tensor: one value. On the CPU alone."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        if problem.device.type != "cpu":
            raise RuntimeError("numpy.partition works on the CPU alone")

    def __call__(self) -> list[float]:
        return [float(np.partition(s.numpy(), len(s) - k)[len(s) - k]) for s, k in scores(self.problem)]


def scores(problem: Problem) -> Iterator[tuple[Tensor, int]]:
    """Each tensor's flat scores and how many are selected."""
    for i, k in zip(problem.by_score, problem.count, strict=True):
        yield problem.score[i].view(-1), k


class Select(Contest):
    op = "select"
    dtypes = False
    scores = True
    rivals: ClassVar[dict[str, type[Rival]]] = {
        PUBLISHED: PublishedSelect,
        "torch.topk": TopK,
        "torch.kthvalue": KthValue,
        "numpy.partition": Partition,
    }

    def ours(self) -> dict[str, Call]:
        score, count = [self.problem.score[i] for i in self.problem.by_score], self.problem.count
        return {self.op: lambda: ops.select(score, count)}

    def verify(self) -> None:
        score, count = [self.problem.score[i] for i in self.problem.by_score], self.problem.count
        for chosen, s, k in zip(ops.select(score, count), score, count, strict=True):
            assert_same_bits(self.op, [chosen], reference.select([s], [k]))

    def outcome(self) -> list[Tensor]:
        return ops.select([self.problem.score[i] for i in self.problem.by_score], self.problem.count)

    def moved(self) -> int:
        """Read every score once, write 4 bytes a selected position."""
        return 4 * sum(self.problem.sizes[i] for i in self.problem.by_score) + 4 * sum(self.problem.count)
