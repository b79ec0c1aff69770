"""Merging the deltas of several tasks of one base into one, by the methods that peft and mergekit have.

A task vector t_i is what task i adds to the base. Everything is computed in float64 on the positions that any of the
tasks changes, and rounded to the tensor's dtype once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mist_ext.deltas.change import Change
from mist_ext.deltas.delta import TaskDelta
from mist_ext.deltas.sparsifying import drop, trim
from mist_ext.deltas.tensors import bits
from mist_ext.deltas.vectors import (
    Vector,
    change_at,
    names_of,
    old_at,
    positions_of,
    same_tensors,
    task_vector,
    union,
)

Combine = Callable[[Tensor, Tensor], Tensor]


def _average(vectors: Tensor, weights: Tensor) -> Tensor:
    """Average the models: sum_i w_i t_i / sum_i w_i."""
    return _sum(vectors, weights) / weights.sum()


def _sum(vectors: Tensor, weights: Tensor) -> Tensor:
    """Add the task vectors: sum_i w_i t_i."""
    total = torch.zeros_like(vectors[0])
    for vector, weight in zip(vectors, weights, strict=True):  # one after the other: any number of threads adds alike
        total += weight * vector
    return total


def _elect(vectors: Tensor, weights: Tensor) -> Tensor:
    """Take the mean of those w_i t_i that have the sign of their sum; 0 where the sum is 0."""
    weighted = vectors * weights[:, None]
    sign = _sum(vectors, weights).sign()
    agreeing = (weighted.sign() == sign) & (sign != 0)
    return (weighted * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)


METHODS: dict[str, Combine] = {
    "linear": _average,
    "task_arithmetic": _sum,
    "ties": _elect,
    "dare_linear": _sum,
    "dare_ties": _elect,
}
_SPARSE = ("ties", "dare_linear", "dare_ties")


def merge(
    deltas: Sequence[TaskDelta],
    method: str = "task_arithmetic",
    *,
    weights: Sequence[float] | None = None,
    density: float | None = None,
    lambda_: float | None = None,
    seed: int | None = None,
) -> TaskDelta:
    """Merge the deltas of several tasks into one of the same base.

    Parameters
    ----------
    deltas : sequence of TaskDelta
        Of one base, with old values; `rebase` makes such of the chain that a run leaves.
    method : str
        With t_i a task vector and w_i its weight:

        - ``linear``: the base plus sum_i w_i t_i / sum_i w_i, the average of the models.
        - ``task_arithmetic`` (arXiv 2212.04089): the base plus lambda * sum_i w_i t_i. A negative weight unlearns.
        - ``ties`` (arXiv 2306.01708): trim each t_i to its largest entries, elect the sign of sum_i w_i t_i for every
          entry, and add lambda times the mean of those w_i t_i that have it.
        - ``dare_linear`` (arXiv 2311.03099): drop entries of each t_i at random, divide the rest by the density, then
          ``task_arithmetic``.
        - ``dare_ties``: drop and divide, then elect and take the mean.
    weights : sequence of float, optional
        One for each delta; by default 1.
    density : float, optional
        Of ``ties``, ``dare_linear`` and ``dare_ties``: the share of a task's changed entries that is kept, of all its
        tensors together, above 0 and up to 1; by default 0.5. It is a share of what the task changed, not of the model.
    lambda_ : float, optional
        Of all methods but ``linear``: scales the merged vector; by default 1.
    seed : int, optional
        Of ``dare_linear`` and ``dare_ties``: which entries are dropped, by default 0. A task's drops depend on it and
        on the task's delta alone, not on the other tasks or their order.

    Returns
    -------
    TaskDelta
        Of the same base; entries that keep their bits are not in it. Its result's digest is not known.

    Raises
    ------
    ValueError
        If the deltas are of different bases, or one is forward-only, or they change a tensor of integers differently;
        for an unknown method, an option that the method does not have, or one out of range.
    """
    deltas = list(deltas)
    _check_same_base(deltas)
    used = _used_weights(deltas, weights)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    for name, value, known in (
        ("density", density, _SPARSE),
        ("lambda_", lambda_, tuple(m for m in METHODS if m != "linear")),
        ("seed", seed, ("dare_linear", "dare_ties")),
    ):
        if value is not None and method not in known:
            raise ValueError(f"{name} is {value}, but {method!r} has none; it is an option of {', '.join(known)}")
    kept, scale, drawn = (0.5 if density is None else density), (1.0 if lambda_ is None else lambda_), seed or 0
    if not 0 < kept <= 1:
        raise ValueError(f"density is {density}, expected a share above 0 and up to 1")
    if method == "linear" and not float(used.sum()):
        raise ValueError("the weights add up to 0, so there is no average; use task_arithmetic for differences")
    vectors = [task_vector(delta, f"delta {number}") for number, delta in enumerate(deltas, 1)]
    if method == "ties":
        vectors = [trim(vector, kept) for vector in vectors]
    elif method in ("dare_linear", "dare_ties"):
        vectors = [drop(vector, kept, drawn, delta) for vector, delta in zip(vectors, deltas, strict=True)]
    changes = {}
    for name, given in names_of(deltas).items():
        own = [change for change in given if change is not None]
        if own[0].dtype.is_floating_point:
            merged = _merged(name, own, [vector.get(name) for vector in vectors], used, METHODS[method], scale)
        else:
            merged = _agreed(name, own)
        if merged is not None:
            changes[name] = merged
    values = {"density": kept, "lambda": scale, "seed": drawn}
    told = {name: values[name] for name in _options_of(method)}
    tasks = [delta.info for delta in deltas]
    info = {"merged": {"method": method, "weights": used.tolist(), **told, "tasks": tasks}}
    return TaskDelta(changes, deltas[0].base_digest, info=info)


def _options_of(method: str) -> tuple[str, ...]:
    dropping = ("seed",) if method.startswith("dare") else ()
    return () if method == "linear" else ("lambda", *(("density",) if method in _SPARSE else ()), *dropping)


def _used_weights(deltas: Sequence[TaskDelta], weights: Sequence[float] | None) -> Tensor:
    given = torch.tensor([1.0] * len(deltas) if weights is None else list(weights), dtype=torch.float64)
    if len(given) != len(deltas):
        raise ValueError(f"there are {len(given)} weights for {len(deltas)} deltas; give one for each")
    if not given.isfinite().all():
        raise ValueError(f"the weights are {given.tolist()}, expected finite numbers")
    return given


def _check_same_base(deltas: Sequence[TaskDelta]) -> None:
    """Raise ValueError unless all deltas are of one base, as far as they tell; the message says what differs."""
    if not deltas:
        raise ValueError("there is no delta to merge; give one or more")
    same_tensors(names_of(list(deltas)))
    first = deltas[0]
    for number, other in enumerate(deltas[1:], 2):
        if first.base_digest and other.base_digest and first.base_digest != other.base_digest:
            chained = other.base_digest in {delta.result_digest for delta in deltas}
            what = (
                "they are a chain: rebase it first"
                if chained
                else "only tasks that were learned from one model can be merged"
            )
            raise ValueError(
                f"delta {number} has the base {other.base_digest}, delta 1 has {first.base_digest}"
                f"{_first_difference(first, other)}; {what}"
            )
        if difference := _first_difference(first, other):
            raise ValueError(f"delta {number} is of another base than delta 1{difference}")


def _first_difference(first: TaskDelta, other: TaskDelta) -> str:
    """Return where two deltas know different values before, in words; "" where they agree."""
    for name in (name for name in first.changes if name in other.changes):
        ours, theirs = first.changes[name], other.changes[name]
        if ours.old is None or theirs.old is None:
            continue
        positions = union([positions_of(ours), positions_of(theirs)])
        forwards, backwards = old_at([ours, theirs], positions), old_at([theirs, ours], positions)
        if count := int((bits(forwards) != bits(backwards)).sum()):
            return f": {count:,} entries of {name!r} had other values before"
    return ""


def _merged(
    name: str,
    changes: list[Change],
    vectors: list[Vector | None],
    weights: Tensor,
    combine: Combine,
    scale: float,
) -> Change | None:
    """Merge the changes of one tensor; a task that does not change it has a vector of zeros."""
    positions = union([positions_of(change) for change in changes])
    zeros = torch.zeros(len(positions), dtype=torch.float64)
    spread = torch.stack([zeros if vector is None else vector.at(positions) for vector in vectors])
    old = old_at(changes, positions)
    added = scale * combine(spread, weights)
    new = torch.where(added == 0, old.double(), old.double() + added).to(old.dtype)  # -0.0 + 0.0 is 0.0
    if not new.double().isfinite().all():  # which some float8 do not have
        raise ValueError(f"{name!r} has numbers that are not finite after merging; lower the weights or lambda")
    return change_at(changes[0], positions, old, new)


def _agreed(name: str, changes: list[Change]) -> Change:
    """Return the change of a tensor of integers, which all tasks that change it change alike."""
    if not all(change.same(changes[0]) for change in changes):
        raise ValueError(
            f"{name!r}, of {changes[0].dtype}, was changed differently by several tasks, and integers have no mean; "
            "leave one of the tasks out"
        )
    return changes[0]
