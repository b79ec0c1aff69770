"""What all ranks must agree on: that their work is the same, whether it succeeded, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from mist_ext.distributed import ranks

T = TypeVar("T")
# What is raised for a user's mistake, or for what is missing on a machine.
EXPECTED = (ValueError, OSError, MemoryError)


class EveryRanksError(ValueError):
    """Raised on every rank alike, so that one needs to tell of it."""

    on_every_rank = True


E = TypeVar("E", bound=Exception)


def alike(error: E) -> E:
    """Mark an error that every rank raises at once, so that one needs to tell of it."""
    error.on_every_rank = True  # type: ignore[attr-defined]
    return error


def everywhere(work: Callable[[], T]) -> T:
    """Do the same on every rank; if it fails on some, fail on all and say where.

    Raises
    ------
    EveryRanksError
        With the messages of those ranks where it failed.
    """
    if ranks.size() == 1:
        return work()
    try:
        result, failure = work(), None
    except EXPECTED as error:
        failure = str(error)
    messages = _all(failure)
    if any(message is not None for message in messages):
        raise EveryRanksError(_by_rank(messages))
    return result


def on_first(work: Callable[[], T]) -> T:
    """Do something on rank 0 alone, and have its result, which must be picklable, on every rank.

    Raises
    ------
    EveryRanksError
        With the message, if it fails.
    """
    if ranks.size() == 1:
        return work()
    outcome: list[Any] = [None, None]
    if ranks.is_first():
        try:
            outcome[0] = work()
        except EXPECTED as error:
            outcome[1] = str(error)
    dist.broadcast_object_list(outcome, 0)
    if outcome[1] is not None:
        raise EveryRanksError(outcome[1])
    return outcome[0]


def require_same(facts: Mapping[str, Any]) -> None:
    """Raise `EveryRanksError` with the differences unless all ranks have the same facts, by name."""
    if ranks.size() == 1:
        return
    everyone: list[Mapping[str, Any]] = _all(dict(facts))
    first = everyone[0]
    differences = [
        f"{name} is {other.get(name)!r} on rank {rank}, {first.get(name)!r} on rank 0"
        for rank, other in enumerate(everyone)
        for name in {**first, **other}
        if other.get(name) != first.get(name)
    ]
    if differences:
        raise EveryRanksError(
            f"the ranks were not started alike: {'; '.join(differences)}. Give all of them the same options, data and "
            "versions"
        )


def largest(*values: int) -> list[int]:
    """Of each number the largest that any rank has."""
    if ranks.size() == 1:
        return list(values)
    shared = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.tolist()


def joined(own: Mapping[T, Any]) -> dict[T, Any]:
    """The entries of all ranks' mappings."""
    if ranks.size() == 1:
        return dict(own)
    together: dict[T, Any] = {}
    for part in _all(dict(own)):
        together |= part
    return together


def _all(own: Any) -> list[Any]:
    everyone: list[Any] = [None] * ranks.size()
    dist.all_gather_object(everyone, own)
    return everyone


def _by_rank(messages: list[str | None]) -> str:
    """Each different message once, with the ranks it came from."""
    of: dict[str, list[int]] = {}
    for rank, message in enumerate(messages):
        if message is not None:
            of.setdefault(message, []).append(rank)
    if len(of) == 1 and all(message is not None for message in messages):
        return next(iter(of))
    return "\n".join(f"rank {', '.join(map(str, where))}: {message}" for message, where in of.items())
