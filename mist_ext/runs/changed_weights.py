"""A backbone in a checkpoint as what differs from weights that are on the disk already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mist_ext.deltas.change import Change, change_between
from mist_ext.deltas.writing import Stage, write

State = dict[str, dict[str, Tensor | None]]


def changed(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> State:
    """Return the entries of tensors whose bits are not what they were, as a checkpoint holds them.

    Parameters
    ----------
    before, now : mapping of str to Tensor
        Of the same names, shapes and dtypes.

    Returns
    -------
    dict of dict
        Of each tensor that has changed: ``positions``, int32, or None for all entries; and ``new``, their values.
    """
    found = {name: change_between(before[name], tensor.detach().cpu(), True) for name, tensor in now.items()}
    return {name: {"positions": each.positions, "new": each.new} for name, each in found.items() if each is not None}


def with_changes(before: Mapping[str, Tensor], state: Any) -> dict[str, Tensor]:
    """Return a copy of tensors with what `changed` found.

    Raises
    ------
    ValueError
        If it is not that of such tensors; the message names the tensor.
    """
    now = {name: tensor.clone() for name, tensor in before.items()}
    changes = {}
    try:
        for name, each in state.items():
            like = before[name]
            changes[name] = Change(tuple(like.shape), like.dtype, each["positions"], None, each["new"])
            changes[name].check(name)
        write(now, [Stage(changes, forward=True)])
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"the checkpoint does not fit this backbone ({reason}); start the run anew with --overwrite"
        ) from error
    return now
