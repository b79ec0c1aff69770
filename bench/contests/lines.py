"""The cache lines that a step must move.

An entry that a step keeps has its position, gradient, value and state read and, but for position and gradient, written
back. Memory moves in lines of 64 bytes (32 on a GPU), and kept entries are scattered: so the bytes that any
implementation must move are counted as the distinct lines that hold a kept entry, once for each time they are read or
written back. What an implementation reads to find out which entries are kept is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from problem import Problem
from torch import Tensor

LINE = {"cpu": 64, "cuda": 32}


def kept(problem: Problem) -> Iterator[tuple[Tensor | None, Tensor, Tensor]]:
    """For each tensor: its index, and the positions in it and in the tensor that the first step keeps."""
    for t, index in enumerate(problem.index):
        position = problem.ours(t, 1).nonzero().view(-1)
        yield index, position, position if index is None else index[position].long()


def step_bytes(problem: Problem, state: int) -> int:
    """Bytes moved by a step of a rule that has ``state`` compact arrays of 4 bytes an entry."""
    line, item = LINE[problem.device.type], problem.dtype.itemsize
    masters = item != 4
    lines = 0
    for index, position, at in kept(problem):
        compact, dense = touched(position, 4, line), touched(at, item, line)
        lines += 0 if index is None else compact
        lines += 3 * dense  # gradient read, parameter read and written
        lines += 2 * (state + masters) * compact
    return lines * line


def mask_bytes(problem: Problem) -> int:
    """Bytes moved by masking: every gradient written, the kept ones and their positions read."""
    line, item = LINE[problem.device.type], problem.dtype.itemsize
    lines = 0
    for index, position, at in kept(problem):
        lines += touched(at, item, line) + (0 if index is None else touched(position, 4, line))
    return lines * line + problem.parameters * item


def touched(position: Tensor, item: int, line: int) -> int:
    """Distinct lines of an aligned array that hold one of the ascending positions."""
    return (position * item // line).unique_consecutive().numel()
