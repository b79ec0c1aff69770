"""What deltas have in common: which entries they share, and whether they push them the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mist_ext.deltas.delta import TaskDelta
from mist_ext.deltas.tensors import bits
from mist_ext.deltas.vectors import positions_of, task_vector


@dataclass(frozen=True)
class TensorChange:
    """How much of a tensor a delta changes.

    Attributes
    ----------
    name : str
    entries : int
        Of the tensor.
    changed : int
        Of these.
    squared_norm : float or None
        The sum of the squared changes; None in a forward-only delta, or of integers.
    """

    name: str
    entries: int
    changed: int
    squared_norm: float | None


@dataclass(frozen=True)
class Overlap:
    """What each pair of deltas shares.

    Attributes
    ----------
    jaccard : list of list of float
        Entries that both change over entries that either changes; 1 for a delta with itself.
    agreement : list of list of float or None
        The share of the entries that both change which both move the same way; None where there are none, or where a
        delta is forward-only.
    """

    jaccard: list[list[float]]
    agreement: list[list[float | None]]


def tensor_changes(delta: TaskDelta, what: str = "the delta") -> list[TensorChange]:
    """Return how much of each of its tensors a delta changes, in the delta's order; errors begin with ``what``."""
    vectors = {} if delta.forward_only else task_vector(delta, what)
    found = []
    for name, change in delta.changes.items():
        vector = vectors.get(name)
        squared = None if vector is None else float(vector.values.square().sum())
        changed = change.entries if change.old is None else int((bits(change.old) != bits(change.new)).sum())
        found.append(TensorChange(name, change.numel, changed, squared))
    return found


def norm(changes: Sequence[TensorChange]) -> float | None:
    """Return the Euclidean norm of some tensors' changes together; None where one is not known."""
    squared = [change.squared_norm for change in changes]
    return None if not squared or None in squared else math.sqrt(math.fsum(s for s in squared if s is not None))


def overlap(deltas: Sequence[TaskDelta]) -> Overlap:
    """Compare every two of some deltas."""
    signs = [_signs(delta) for delta in deltas]
    known = [not delta.forward_only for delta in deltas]
    count = len(deltas)
    jaccard = [[1.0] * count for _ in deltas]
    agreement: list[list[float | None]] = [[None] * count for _ in deltas]
    for i in range(count):
        for j in range(i, count):
            common, either, agreeing = _counts(signs[i], signs[j])
            jaccard[i][j] = jaccard[j][i] = common / either if either else 1.0
            if common and known[i] and known[j]:
                agreement[i][j] = agreement[j][i] = agreeing / common
    return Overlap(jaccard, agreement)


Signs = dict[str, tuple[Tensor, Tensor]]


def _signs(delta: TaskDelta) -> Signs:
    """Return the positions that a delta changes, and the signs of the changes, by tensor; +1 where none is known."""
    if delta.forward_only:
        spots = {name: positions_of(change) for name, change in delta.changes.items()}
        return {name: (places, torch.ones(len(places), dtype=torch.int8)) for name, places in spots.items()}
    moved = {name: (v.positions, v.values.sign().to(torch.int8)) for name, v in task_vector(delta, "the delta").items()}
    return {name: (places[signs != 0], signs[signs != 0]) for name, (places, signs) in moved.items()}


def _counts(first: Signs, second: Signs) -> tuple[int, int, int]:
    """Return how many entries both change, either changes, and both change the same way."""
    common = agreeing = 0
    for name in first.keys() & second.keys():
        (ours, our_signs), (theirs, their_signs) = first[name], second[name]
        shared = torch.isin(ours, theirs, assume_unique=True)
        common += int(shared.sum())
        agreeing += int((our_signs[shared] == their_signs[torch.isin(theirs, ours, assume_unique=True)]).sum())
    total = sum(len(places) for signs in (first, second) for places, _ in signs.values())
    return common, total - common, agreeing
