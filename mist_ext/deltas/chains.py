"""Chains: deltas of which each one begins where the one before it ends, as the tasks of one run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from mist_ext.deltas.change import Change
from mist_ext.deltas.delta import TaskDelta
from mist_ext.deltas.vectors import change_at, names_of, old_at, positions_of, same_tensors, task_vector, union


def compose(chain: Sequence[TaskDelta]) -> TaskDelta:
    """Return one delta from before a chain of tasks to after it, bit for bit.

    Parameters
    ----------
    chain : sequence of TaskDelta
        In the order of the tasks.

    Returns
    -------
    TaskDelta
        Of the first one's base. Entries that end with the bits they began with are not in it. It is forward-only if
        one of the chain is.

    Raises
    ------
    ValueError
        If it is no chain; the message says between which two it breaks.
    """
    chain = list(chain)
    check_chain(chain)
    forward_only = any(delta.forward_only for delta in chain)
    changes = {}
    for name, steps in names_of(chain).items():
        composed = _compose_changes([step for step in steps if step is not None], forward_only)
        if composed is not None:
            changes[name] = composed
    return TaskDelta(changes, chain[0].base_digest, chain[-1].result_digest, {"composed": [d.info for d in chain]})


def rebase(chain: Sequence[TaskDelta]) -> list[TaskDelta]:
    """Return the deltas of a chain as if each task had been learned from the chain's first base.

    Each task keeps what it adds to an entry, and adds it to the entry's value in the first base: so they can be merged,
    and any of them left out. The sum is rounded to the tensor's dtype; the first delta stays as it is.

    Parameters
    ----------
    chain : sequence of TaskDelta
        In the order of the tasks, with old values.

    Raises
    ------
    ValueError
        If it is no chain, or one of it is forward-only, or changes a tensor of integers twice.
    """
    chain = list(chain)
    check_chain(chain)
    moved, so_far = [chain[0]], chain[0]
    for number, delta in enumerate(chain[1:], 2):
        moved.append(_moved(delta, so_far, f"delta {number}"))
        so_far = compose([so_far, delta])
    return moved


def check_chain(chain: Sequence[TaskDelta]) -> None:
    """Raise ValueError unless each delta begins where the one before it ends."""
    if not chain:
        raise ValueError("there is no delta; give one or more")
    for number, (first, second) in enumerate(pairwise(chain), 1):
        if not first.result_digest or not second.base_digest:
            continue  # a merged delta does not know its result: applying it compares every value that it changes
        if first.result_digest != second.base_digest:
            raise ValueError(
                f"delta {number + 1} does not begin where delta {number} ends: its base is {second.base_digest}, that "
                f"result is {first.result_digest}; give the deltas of one run in the order of its tasks"
            )
    same_tensors(names_of(list(chain)))


def _compose_changes(steps: list[Change], forward_only: bool) -> Change | None:
    """Compose the changes of one tensor."""
    if len(steps) == 1 and (steps[0].old is None) == forward_only:
        return steps[0]
    first = steps[0]
    positions = union([positions_of(step) for step in steps])
    new = torch.empty(len(positions), dtype=first.dtype)
    for step in steps:
        new[torch.searchsorted(positions, positions_of(step))] = step.new.reshape(-1)
    if forward_only:
        whole = len(positions) == first.numel
        return Change(first.shape, first.dtype, None if whole else positions.int(), None, _shaped(first, new, whole))
    old = old_at(steps[::-1], positions)  # of the steps that change an entry, the first one knows it
    return change_at(first, positions, old, new)


def _shaped(like: Change, values: torch.Tensor, whole: bool) -> torch.Tensor:
    return values.view(like.shape) if whole else values


def _moved(delta: TaskDelta, before: TaskDelta, what: str) -> TaskDelta:
    """Return a delta moved to the base of what comes before it."""
    vectors, changes = task_vector(delta, what), {}
    for name, change in delta.changes.items():
        earlier = before.changes.get(name)
        if earlier is None:
            changes[name] = change
            continue
        if name not in vectors:
            raise ValueError(
                f"{what} changes {name!r}, of {change.dtype}, which a task before it changed too; integers cannot be "
                "moved to another base"
            )
        positions, values = vectors[name].positions, vectors[name].values
        old = _old_in_base(change, earlier, positions)
        moved = change_at(change, positions, old, (old.double() + values).to(change.dtype))
        if moved is not None:
            changes[name] = moved
    return TaskDelta(changes, before.base_digest, info=delta.info)


def _old_in_base(change: Change, earlier: Change, positions: torch.Tensor) -> torch.Tensor:
    """Return a change's values in the base of an earlier change: its own where that one has none."""
    assert change.old is not None
    assert earlier.old is not None
    old = change.old.reshape(-1).clone()
    theirs = positions_of(earlier)
    common = torch.isin(theirs, positions, assume_unique=True)
    old[torch.searchsorted(positions, theirs[common])] = earlier.old.reshape(-1)[common]
    return old
