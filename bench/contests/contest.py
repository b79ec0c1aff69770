"""What a benchmark compares: ours, and others that do the same work with PyTorch or NumPy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar

import torch
from models import SMALL
from problem import Problem
from torch import Tensor

Call = Callable[[], object]
PUBLISHED, ADD = "published", "a.add_(b)"


class Rival(ABC):
    """One way to do an op's work; a call does it once.

    Attributes
    ----------
    own_bytes : int
        Memory for each of the model's parameters that it takes, with what a call takes at its peak.
    uses : tuple of str
        Attributes of the problem, of 4 bytes a parameter, that it shares with others.
    exact : bool
        Whether it leaves dropped entries alone, as ours does, rather than updating all densely.
    same_work : bool
        False for one that is timed for comparison only, since it does less.
    """

    own_bytes: ClassVar[int] = 0
    uses: ClassVar[tuple[str, ...]] = ()
    exact: ClassVar[bool] = True
    same_work: ClassVar[bool] = True

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @classmethod
    def needs(cls, problem: Problem) -> int:
        """Bytes of memory, beyond what the problem has taken so far."""
        missing = [name for name in cls.uses if name not in problem.__dict__]
        return problem.parameters * (cls.own_bytes + 4 * len(missing))

    @abstractmethod
    def __call__(self) -> object: ...

    @abstractmethod
    def outcome(self) -> list[Tensor]:
        """What a call has changed or, where it returns something, what another call would."""


class Contest(ABC):
    """An op with its rivals.

    Attributes
    ----------
    op : str
    built_on_it : tuple of str
        What else of ours is timed beside the op.
    rivals : dict of str to Rival class
        `PUBLISHED` is the method's own code.
    dtypes : bool
        Whether the dtype of parameters and gradients matters.
    scores : bool
        Whether it works on scores, rather than on the selection that was made from them.
    """

    op: ClassVar[str]
    built_on_it: ClassVar[tuple[str, ...]] = ()
    rivals: ClassVar[dict[str, type[Rival]]]
    dtypes: ClassVar[bool] = True
    scores: ClassVar[bool] = False

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @abstractmethod
    def ours(self) -> dict[str, Call]:
        """The op, and what is built on it, by their names."""

    @abstractmethod
    def verify(self) -> None:
        """Compare the op with the oracle bit for bit, on this very problem."""

    @abstractmethod
    def outcome(self) -> list[Tensor]:
        """What a call of the op has changed or, where it returns something, what another call would."""

    @abstractmethod
    def moved(self) -> int:
        """The bytes that any implementation of the op must read and write."""

    def flops(self) -> int | None:
        """The products and sums that any implementation must make, None where memory alone bounds the op."""
        return None

    def add(self) -> tuple[Call, int]:
        """``a.add_(b)`` of as many float32 entries as the model, and its bytes: read both, write one."""
        return addition(*self.problem.pair)

    @classmethod
    def verify_rival(cls, name: str, problem: Problem) -> None:
        """Let ours and a rival run on small tensors with the same draw: they agree up to rounding.

        Two steps with weight decay; a dense rival one without, since decay and momentum move what ours leaves.
        """
        rival = cls.rivals[name]
        decay, steps = (0.01, 2) if rival.exact else (0.0, 1)
        small = replace(problem, layout=SMALL, lr=0.1, weight_decay=decay, own_draw=False)
        contest, their_problem = cls(small), replace(small)
        call = contest.ours()[cls.op]
        their_problem.step += 1  # ours counts by itself, and begins with 1
        other = rival(their_problem)
        for _ in range(steps):
            call()
            other()
            their_problem.step += 1
        tolerance = {"rtol": 1e-4, "atol": 1e-6} if problem.dtype == torch.float32 else {"rtol": 0.02, "atol": 1e-3}
        theirs = [tensor.detach().float() for tensor in other.outcome()]
        for t, (mine, their) in enumerate(zip(contest.outcome(), theirs, strict=True)):
            assert torch.allclose(mine.float(), their, **tolerance), f"{cls.op}: {name} differs in tensor {t}"


def addition(a: list[Tensor], b: list[Tensor]) -> tuple[Call, int]:
    """``a.add_(b)`` over two float32 lists, and the bytes that it moves."""
    return lambda: torch._foreach_add_(a, b), 12 * sum(tensor.numel() for tensor in a)


def assert_same_bits(what: str, ours: Iterable[Tensor], oracle: Iterable[Tensor]) -> None:
    """Two lists of tensors have the same bits."""
    for t, (mine, its) in enumerate(zip(ours, oracle, strict=True)):
        same = mine.dtype == its.dtype and torch.equal(mine.view(torch.uint8), its.view(torch.uint8))
        assert same, f"{what}: tensor {t} differs from the oracle"
