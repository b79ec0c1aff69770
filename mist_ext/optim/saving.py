"""Saving and loading of a sparse optimiser's state: what identifies it, and how it is checked and matched by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mist_ext.distributed.shard import Shard
from mist_ext.distributed.shard_files import TensorOnDisk, entries_of, total
from mist_ext.indices import check_state, same_index
from mist_ext.optim.state import fixed_dtypes
from mist_ext.selection import Selection

if TYPE_CHECKING:
    from mist_ext.optim.sparse import SparseOptimizer

IDENTITY = "identity"  # the key in a parameter group
_IDENTITY_KEYS = {"optimizer", "seed", "scale_table", "ordinals", "shapes"}
SAME = "select the same entries as before (Selection.from_state_dict restores a selection)"
States = dict[Tensor, dict[str, Tensor]]


def identity(optimizer: SparseOptimizer, names: list[str]) -> dict[str, Any]:
    """Return what a group's state belongs to: the kind of optimiser, and the keep rule's key but for the step."""
    selection, table = optimizer.selection, optimizer.scale_table
    bits = None if table is None else bytes(table.detach().cpu().float().contiguous().view(torch.uint8).tolist())
    return {
        "optimizer": type(optimizer).__name__,
        "seed": optimizer.seed,
        "scale_table": None if bits is None else hashlib.blake2b(bits, digest_size=8).hexdigest(),
        "ordinals": [selection.ordinal[name] for name in names],
        "shapes": [list(selection.total_shape(name)) for name in names],
    }


def shard_state(optimizer: SparseOptimizer, state_dict: dict[str, Any]) -> None:
    """Replace the state of sharded parameters by `Shard` tensors of the whole state."""
    selection = optimizer.selection
    for group in state_dict["param_groups"]:
        for name, key in zip(group["param_names"], group["params"], strict=True):
            if (shard := selection.shards.get(name)) is not None and key in state_dict["state"]:
                state = state_dict["state"][key]
                parts = {kind: Shard(values, shard.first, shard.count) for kind, values in state.items()}
                if "index" in state:
                    parts["index"] = selection.global_index(name)  # type: ignore[assignment]
                state_dict["state"][key] = parts


def matched(optimizer: SparseOptimizer, state_dict: Mapping[str, Any]) -> tuple[list[dict[str, Any]], States]:
    """Return the saved groups in the order of the optimiser's own, and the state of its parameters.

    Raises
    ------
    ValueError
        If the state is that of another optimiser, seed or selection, or cannot be a state at all; the message has the
        difference.
    """
    for key in ("state", "param_groups"):
        if key not in state_dict:
            raise ValueError(f"this is not the state of an optimiser: it has no {key!r}")
    saved = list(state_dict["param_groups"])
    for number, group in enumerate(saved):
        for key in (IDENTITY, "param_names", *optimizer.options):
            if key not in group:
                raise ValueError(
                    f"group {number} has no {key!r}: the state is another kind of optimiser's or version's"
                )
    where = {name: (number, i) for number, group in enumerate(saved) for i, name in enumerate(group["param_names"])}
    own = [name for group in optimizer.param_groups for name in group["param_names"]]
    _check_names(set(own), set(where))
    for number, group in enumerate(saved):
        _check_lists(number, group)
    if len(saved) != len(optimizer.param_groups):
        raise ValueError(f"the state has {len(saved)} parameter groups, this optimiser {len(optimizer.param_groups)}")
    empty = [group for group in saved if not group["param_names"]]
    groups: list[dict[str, Any]] = []
    states: States = {}
    for number, group in enumerate(optimizer.param_groups):
        names = group["param_names"]
        numbers = sorted({where[name][0] for name in names})
        if (
            len(numbers) > 1
            or (numbers and len(saved[numbers[0]]["param_names"]) != len(names))
            or not (names or empty)
        ):
            raise ValueError(f"the state has other parameter groups: group {number} here is {_listed(names)}")
        theirs = saved[numbers[0]] if numbers else empty.pop(0)
        positions = [where[name][1] for name in names]
        groups.append(_group(optimizer, number, theirs, positions))
        for name, parameter, key in zip(names, group["params"], groups[-1]["params"], strict=True):
            state = state_dict["state"].get(key, {})
            if not state and not parameter.requires_grad:  # torch.distributed.checkpoint leaves those out
                states[parameter] = optimizer.state[parameter]
            else:
                states[parameter] = _state(optimizer, theirs, name, parameter, state)
    return groups, states


def _check_lists(number: int, group: Mapping[str, Any]) -> None:
    """Raise ValueError unless the lists of a saved group are those of as many parameters as it names."""
    own = group[IDENTITY]
    if not isinstance(own, Mapping) or (lacking := sorted(_IDENTITY_KEYS - own.keys())):
        lack = "is no dict" if not isinstance(own, Mapping) else f"has no {lacking[0]!r}"
        raise ValueError(f"the {IDENTITY} of group {number} {lack}: the state is damaged, or another version's")
    lists = {"params": group.get("params"), "ordinals": own["ordinals"], "shapes": own["shapes"]}
    for key, values in lists.items():
        if not isinstance(values, list) or len(values) != len(group["param_names"]):
            has = len(values) if isinstance(values, list) else type(values).__name__
            raise ValueError(
                f"group {number} names {len(group['param_names'])} parameters, but its {key} are {has}: the state is "
                "damaged"
            )


def _listed(names: list[str]) -> str:
    return f"{names[0]!r} and {len(names) - 1} more" if len(names) > 1 else repr(names[0]) if names else "empty"


def _group(optimizer: SparseOptimizer, number: int, saved: Mapping[str, Any], positions: list[int]) -> dict[str, Any]:
    """Return a saved group with its parameters in the order of the optimiser's."""
    group = optimizer.param_groups[number]
    ours, theirs = group[IDENTITY], dict(saved[IDENTITY])
    for key in ("ordinals", "shapes"):
        theirs[key] = [theirs[key][i] for i in positions]
    for key, what in (("optimizer", "optimiser"), ("seed", "seed"), ("scale_table", "digest of scale_table")):
        if theirs[key] != ours[key]:
            raise ValueError(
                f"the state was saved with the {what} {theirs[key]!r}, but this optimiser has {ours[key]!r}; make it "
                "as the saved one was made"
            )
    _check_tensors(optimizer.selection, group["param_names"], theirs)
    optimizer.check_group({**saved})
    step = saved["step"]
    if not isinstance(step, Tensor) or step.dtype != torch.int64 or step.numel() != 1 or int(step) < 0:
        raise ValueError(f"the step of group {number} is {step!r}, expected an int64 tensor of 0 or more")
    device = group["params"][0].device if group["params"] else torch.device("cpu")
    return {
        **saved,
        "params": [saved["params"][i] for i in positions],
        "param_names": list(group["param_names"]),
        "step": step.reshape(()).to(device, copy=True),
        IDENTITY: ours,
    }


def _state(
    optimizer: SparseOptimizer, group: dict[str, Any], name: str, parameter: Tensor, saved: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return this rank's copy of a parameter's state."""
    selection = optimizer.selection
    fixed = fixed_dtypes(optimizer, name, parameter)
    rule = optimizer.state_dtypes(group)
    needed = {*fixed, *(rule if any(kind in saved for kind in rule) else ())}
    switched_off = saved.keys() & optimizer.STATE.keys()
    if odd := sorted((saved.keys() ^ needed) - switched_off):
        where = "has none" if odd[0] in saved else "needs one"
        raise ValueError(f"the state of {name!r} differs in {odd[0]!r}: this optimiser {where}")
    first, count, state = selection.first(name), selection.count(name), {}
    for kind, dtype in {**fixed, **optimizer.STATE}.items():
        if kind not in saved:
            continue
        values, expected = saved[kind], selection.total_count(name)
        if not isinstance(values, Tensor | TensorOnDisk) or (values.dtype, total(values)) != (dtype, expected):
            is_there = type(values).__name__
            if isinstance(values, Tensor | TensorOnDisk):
                is_there = f"{values.dtype} [{total(values)}]"
            raise ValueError(f"{kind!r} of {name!r} is {is_there} in the state, expected {dtype} [{expected}]; {SAME}")
        state[kind] = entries_of(values, first, count).to(parameter.device, copy=True)
    _check_index(selection, name, saved.get("index"))
    if name in selection.shards and "index" in state:
        state["index"] = state["index"] - selection.shards[name].begin
    if "updates" in state and bool((state["updates"] < 0).any()):
        raise ValueError(f"'updates' of {name!r} has a negative count: the state is damaged")
    return state


def check_selection(selection: Selection, saved: Mapping[str, Any]) -> None:
    """Raise ValueError with the difference unless this is the state of the same selection."""
    check_state(saved)
    _check_names(set(selection), set(saved["names"]))
    _check_tensors(selection, saved["names"], saved)
    for name in selection:
        _check_index(selection, name, saved["index"].get(name))


def _check_names(own: set[str], theirs: set[str]) -> None:
    for which, lacks, names in (("saved", "selected", theirs - own), ("selected", "saved", own - theirs)):
        if names:
            raise ValueError(f"{which}, but not {lacks}, was {_listed(sorted(names))}; {SAME}")


def _check_tensors(selection: Selection, names: list[str], saved: Mapping[str, Any]) -> None:
    """Raise ValueError unless shapes and ordinals, saved in the order of the names, are the selection's."""
    for name, shape, ordinal in zip(names, saved["shapes"], saved["ordinals"], strict=True):
        if tuple(shape) != selection.total_shape(name):
            raise ValueError(
                f"{name!r} was saved with the shape {list(shape)}, but selected with "
                f"{list(selection.total_shape(name))}; {SAME}"
            )
        if ordinal != selection.ordinal[name]:
            raise ValueError(
                f"{name!r} was saved with the ordinal {ordinal}, but selected with {selection.ordinal[name]}, and so "
                f"other entries would be kept; {SAME}"
            )


def _check_index(selection: Selection, name: str, saved: Tensor | TensorOnDisk | None) -> None:
    if saved is not None:
        index = entries_of(saved, selection.first(name), selection.count(name))
        begin = selection.shards[name].begin if name in selection.shards else 0
        saved = index - begin if begin else index
    if not same_index(selection[name], saved):
        raise ValueError(f"the state was saved with other selected entries of {name!r}; {SAME}")
