"""Writes changes into a model: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mist_ext.deltas.change import Change
from mist_ext.deltas.tensors import bits, tensors_of
from mist_ext.kernels import ops
from mist_ext.parameters import with_names


@dataclass
class Stage:
    """The changes of one delta, in one direction.

    Attributes
    ----------
    changes : mapping of str to Change
    forward : bool
        From old to new values, or back.
    """

    changes: Mapping[str, Change]
    forward: bool

    def value(self, change: Change) -> Tensor:
        """Return what is written."""
        value = change.new if self.forward else change.old
        assert value is not None
        return value

    def expected(self, change: Change) -> Tensor | None:
        """Return what must be there before, if it is known."""
        return change.old if self.forward else change.new

    def is_done(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether a model has all values that would be written."""
        return all(self._is_there(tensors[name], change) for name, change in self.changes.items())

    def _is_there(self, tensor: Tensor, change: Change) -> bool:
        there = bits(tensor)
        if change.positions is not None:
            there = there[change.positions.to(tensor.device).long()]
        return torch.equal(there, bits(self.value(change)).to(tensor.device))


def write(target: nn.Module | Mapping[str, Tensor], stages: Sequence[Stage]) -> None:
    """Write one or two deltas, one after the other, in one pass over memory.

    Raises
    ------
    ValueError
        If a tensor is missing, has another shape or dtype, or other values than expected; nothing is changed then.
    """
    tensors = tensors_of(target)
    names = _checked_names(tensors, stages)
    written: list[list[str]] = []
    for device in dict.fromkeys(tensors[name].device for name in names):
        group = [name for name in names if tensors[name].device == device]
        try:
            _write(tensors, group, stages)
        except RuntimeError as error:
            for other in written:  # which had all that was expected
                _write(tensors, other, [Stage(stage.changes, not stage.forward) for stage in reversed(stages)])
            if "has other bits" not in str(error):
                raise
            raise ValueError(_reason(tensors, stages, group, error)) from error
        written.append(group)


def _checked_names(tensors: Mapping[str, Tensor], stages: Sequence[Stage]) -> list[str]:
    """Return the names of all tensors to write, each memory once."""
    owners: dict[Any, str] = {}
    for stage in stages:
        for name, change in stage.changes.items():
            if name not in tensors:
                raise ValueError(f"the model has no {name!r}, which the delta changes: it belongs to another one")
            check_like(name, tensors[name], change.shape, change.dtype, "in the delta")
    for name in dict.fromkeys(name for stage in stages for name in stage.changes):
        tensor = tensors[name]
        strides = tensor.stride()
        if 0 in strides and any(step == 0 < size - 1 for size, step in zip(tensor.shape, strides, strict=True)):
            raise ValueError(f"entries of {name!r} share memory, as expand() makes them, so none can change; clone it")
        first = owners.setdefault((tensor.data_ptr() if tensor.numel() else name, tensor.shape, strides), name)
        for changes in [stage.changes for stage in stages] if first != name else []:
            ours, theirs = changes.get(name), changes.get(first)
            if ours is None or theirs is None or not ours.same(theirs):
                raise ValueError(f"{first!r} and {name!r} are one tensor in the model, but change differently")
    _check_tied(tensors, {name for stage in stages for name in stage.changes})
    return list(owners.values())


def _check_tied(tensors: Mapping[str, Tensor], named: Set[str]) -> None:
    """Raise ValueError where a tensor that is not named has the memory of one that is: it would change with it."""
    owners = {tensors[name].data_ptr(): name for name in named if tensors[name].numel()}
    for name, tensor in tensors.items() if len(named) < len(tensors) else ():
        if name not in named and tensor.numel() and (first := owners.get(tensor.data_ptr())) is not None:
            raise ValueError(
                f"{first!r} and {name!r} are one tensor in the model, but the delta changes {first!r} alone: untie "
                "them, or make the delta of the whole model, so that it names both"
            )


def _write(tensors: Mapping[str, Tensor], names: list[str], stages: Sequence[Stage]) -> None:
    param = [tensors[name].contiguous() for name in names]
    lists = []
    for stage in stages:
        chosen = [_replacement(tensor, stage, name) for name, tensor in zip(names, param, strict=True)]
        index, value, expected = map(list, zip(*chosen, strict=True))
        known = all(values is not None for values in expected)
        lists += [index, value, expected if known else []]
    ops.write_values_(param, *lists)
    for name, tensor in zip(names, param, strict=True):
        if not tensors[name].is_contiguous():
            tensors[name].copy_(tensor)


def _replacement(tensor: Tensor, stage: Stage, name: str) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Return positions, values and expected values on the tensor's device."""
    change = stage.changes.get(name)
    if change is None:
        nothing = tensor.new_empty(0)
        return tensor.new_empty(0, dtype=torch.int32), nothing, nothing
    value, expected, device = stage.value(change), stage.expected(change), tensor.device
    index = None if change.positions is None else change.positions.to(device)
    return index, value.to(device), None if expected is None else expected.to(device)


def _reason(tensors: Mapping[str, Tensor], stages: Sequence[Stage], names: list[str], error: RuntimeError) -> str:
    """Return why a model does not have what was expected."""
    first = stages[0]
    if first.is_done(tensors):
        return "the model has this delta already" if first.forward else "the model does not have this delta"
    told = with_names(error, names).splitlines()[0].removeprefix("write_values_: ")
    return f"the model is not the one that the delta belongs to: {told}"


def check_like(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, where: str) -> None:
    """Raise ValueError unless a tensor has a shape and a dtype."""
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name!r} has shape {list(tensor.shape)}, but {list(shape)} {where}")
    if tensor.dtype != dtype:
        raise ValueError(f"{name!r} has dtype {tensor.dtype}, but {dtype} {where}")
