"""Makes a delta of positions and old values that were recorded while a model was tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mist_ext.deltas.change import Change, change_of
from mist_ext.deltas.delta import TaskDelta
from mist_ext.deltas.digests import join, tensor_digest, tensor_digests
from mist_ext.deltas.tensors import bits, tensors_of

Entry = tuple[Tensor, Tensor | None, Tensor | None]  # the tensor now, the positions, the values there before


def recorded_delta(
    entries: Mapping[str, Entry], model: nn.Module | None, base_digest: str, info: Mapping[str, Any] | None
) -> TaskDelta:
    """Return the delta of tensors whose positions are known, and perhaps their values before.

    Parameters
    ----------
    entries : mapping of str to tuple
        A tensor as it is now; its positions, int32, or None for all; and the values there before, flat, or None.
    model : Module, optional
        Whose tensors they are: it gives names and digests.
    base_digest : str
        Of the model before, where no values before are known.
    info : mapping, optional
        As for `TaskDelta`.

    Raises
    ------
    ValueError
        If a tensor is not the model's, or if neither values before nor ``base_digest`` are known.
    """
    forward_only = any(before is None for _, _, before in entries.values())
    if forward_only and not base_digest:
        raise ValueError(
            "the values before are not known: make the optimiser with remember=True, or give the base_digest, "
            "state_digest(model) before the first step"
        )
    named, tensors = dict(entries), {}
    if model is not None:
        tensors = tensors_of(model)
        named = _by_the_model_s_names(entries, tensors)
    changes = {}
    for name, (tensor, index, before) in named.items():
        now = bits(tensor)
        chosen = now if index is None else now[index.to(tensor.device).long()]
        change = change_of(
            tuple(tensor.shape), tensor.dtype, index, None if before is None else bits(before), chosen, forward_only
        )
        if change is not None:
            changes[name] = change
    if model is None:
        return TaskDelta(changes, base_digest, "", info)
    digests = tensor_digests(tensors)
    result = join(digests)
    if not forward_only:
        digests |= {name: tensor_digest(_undone(tensors[name], change)) for name, change in changes.items()}
        base_digest = join(digests)
    return TaskDelta(changes, base_digest, result, info)


def _by_the_model_s_names(entries: Mapping[str, Entry], tensors: Mapping[str, Tensor]) -> dict[str, Entry]:
    """Return the entries under all names that the model has for their memory."""
    names: dict[Any, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault((tensor.data_ptr(), tensor.shape), []).append(name)
    found: dict[str, Entry] = {}
    for given, entry in entries.items():
        own = names.get((entry[0].data_ptr(), entry[0].shape))
        if own is None:
            raise ValueError(f"{given!r} is not a parameter of this model; give the model that is tuned")
        found |= dict.fromkeys(own, entry)
    return found


def _undone(tensor: Tensor, change: Change) -> Tensor:
    """Return a copy of a tensor as it was before."""
    assert change.old is not None
    flat = bits(tensor).clone()
    if change.positions is None:
        flat.copy_(bits(change.old))
    else:
        flat[change.positions.to(flat.device).long()] = bits(change.old).to(flat.device)
    return flat.view(tensor.dtype).view(tensor.shape)
