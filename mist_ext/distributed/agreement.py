"""Agreement of all ranks: on what they were given, on whether a call succeeded, and on numbers."""

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
    """Raised on every rank alike, so that one of them reports it."""

    on_every_rank = True


E = TypeVar("E", bound=Exception)


def on_every_rank(error: E) -> E:
    """Mark an error that every rank raises at once, so that one of them reports it."""
    error.on_every_rank = True  # type: ignore[attr-defined]
    return error


def everywhere(work: Callable[[], T]) -> T:
    """Call a function on every rank; if it fails on some, fail on all with the ranks and their messages.

    Raises
    ------
    EveryRanksError
        With the messages of the ranks where it failed.
    """
    if ranks.size() == 1:
        return work()
    try:
        result, failure = work(), None
    except EXPECTED as error:
        failure = str(error)
    messages = _gather(failure)
    if any(message is not None for message in messages):
        raise EveryRanksError(_by_rank(messages))
    return result


def on_first(work: Callable[[], T]) -> T:
    """Call a function on rank 0 alone, and return its result, which must be picklable, on every rank.

    Raises
    ------
    EveryRanksError
        With the message, if the call fails.
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
    """Raise `EveryRanksError` with the differences unless all ranks have the same facts, given by name."""
    if ranks.size() == 1:
        return
    everyone: list[Mapping[str, Any]] = _gather(dict(facts))
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
    """Return the largest value over the ranks of each number."""
    if ranks.size() == 1:
        return list(values)
    shared = torch.tensor(values, dtype=torch.int64)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.tolist()


def joined(own: Mapping[T, Any]) -> dict[T, Any]:
    """Return the union of all ranks' mappings."""
    if ranks.size() == 1:
        return dict(own)
    together: dict[T, Any] = {}
    for part in _gather(dict(own)):
        together |= part
    return together


def _gather(own: Any) -> list[Any]:
    """Return the objects of all ranks, in their order."""
    everyone: list[Any] = [None] * ranks.size()
    dist.all_gather_object(everyone, own)
    return everyone


def _by_rank(messages: list[str | None]) -> str:
    """Join the different messages, each with the ranks that it came from."""
    of: dict[str, list[int]] = {}
    for rank, message in enumerate(messages):
        if message is not None:
            of.setdefault(message, []).append(rank)
    if len(of) == 1 and all(message is not None for message in messages):
        return next(iter(of))
    return "\n".join(f"rank {', '.join(map(str, where))}: {message}" for message, where in of.items())
