"""Task vectors: what a task adds to each entry that it changes, as sparse as the delta that it comes from.

A task vector is ``new - old`` in float64, so that the difference of two fp32 or bf16 values is not rounded to their own
dtype before it is added to others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mist_ext.deltas.change import Change, change_of
from mist_ext.deltas.delta import TaskDelta
from mist_ext.deltas.tensors import bits


@dataclass(frozen=True)
class Vector:
    """What a task adds to one tensor.

    Attributes
    ----------
    positions : Tensor
        int64 ``[k]``, ascending flat positions.
    values : Tensor
        float64 ``[k]``.
    """

    positions: Tensor
    values: Tensor

    def at(self, positions: Tensor) -> Tensor:
        """Return the values at ascending positions that include its own: float64, 0 where it has none."""
        spread = torch.zeros(len(positions), dtype=torch.float64)
        spread[torch.searchsorted(positions, self.positions)] = self.values
        return spread


def task_vector(delta: TaskDelta, what: str) -> dict[str, Vector]:
    """Return a delta's task vector by the tensors' names, those of integers left out.

    Raises
    ------
    ValueError
        If the delta is forward-only, or a difference is not finite; the message begins with ``what``.
    """
    if delta.forward_only:
        raise ValueError(
            f"{what} is forward-only: without the values before, what it adds to them is not known; make it anew "
            "without forward_only"
        )
    vectors = {}
    for name, change in delta.changes.items():
        if change.dtype.is_floating_point:
            assert change.old is not None
            values = change.new.reshape(-1).double() - change.old.reshape(-1).double()
            if not values.isfinite().all():
                raise ValueError(
                    f"{what} changes {name!r} by numbers that are not finite; nothing can be added to them"
                )
            vectors[name] = Vector(positions_of(change), values)
    return vectors


def positions_of(change: Change) -> Tensor:
    """Return the flat positions that a change stores: int64, ascending."""
    return torch.arange(change.numel) if change.positions is None else change.positions.long()


def union(positions: list[Tensor]) -> Tensor:
    """Return every position that is in any of some lists: int64, ascending."""
    return torch.cat(positions).unique()


def change_at(like: Change, positions: Tensor, old: Tensor, new: Tensor) -> Change | None:
    """Return the change of a tensor with given values before and after, without what does not change a bit.

    Parameters
    ----------
    like : Change
        Of the same tensor: its shape and dtype.
    positions : Tensor
        int64 ``[k]``, ascending.
    old, new : Tensor
        Of the tensor's dtype, ``[k]``.

    Returns
    -------
    Change or None
        None where no bit changes.
    """
    index = None if len(positions) == like.numel else positions.int()
    return change_of(like.shape, like.dtype, index, bits(old), bits(new), forward_only=False)


def old_at(changes: list[Change], positions: Tensor) -> Tensor:
    """Return the values before some changes of one tensor of one base, at positions that any of them stores."""
    old = torch.empty(len(positions), dtype=changes[0].dtype)
    for change in changes:
        assert change.old is not None
        old[torch.searchsorted(positions, positions_of(change))] = change.old.reshape(-1)
    return old


def names_of(deltas: list[TaskDelta]) -> dict[str, list[Change | None]]:
    """Return every tensor's change in each delta, None where it has none, by name: the first delta's names first."""
    names = dict.fromkeys(name for delta in deltas for name in delta.changes)
    return {name: [delta.changes.get(name) for delta in deltas] for name in names}


def same_tensors(named: Mapping[str, list[Change | None]]) -> None:
    """Raise ValueError unless the changes of each name are of one shape and dtype."""
    for name, changes in named.items():
        kinds = {(change.shape, change.dtype) for change in changes if change is not None}
        if len(kinds) > 1:
            shown = " and ".join(sorted(f"{dtype} {list(shape)}" for shape, dtype in kinds))
            raise ValueError(f"{name!r} is {shown} in different deltas; they belong to different models")
